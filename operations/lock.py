"""One deploy at a time on a host; `--dry` comes as far as here and takes no lock."""

from __future__ import annotations

import getpass
import inspect
import json
import socket
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any

from pyinfra import host, state
from pyinfra.api import FunctionCommand, QuoteString, StringCommand, operation

from multigpu.host import deploy_lock
from operations.common import fail
from operations.waiting import connector_arguments


@operation()
def hold(*, mark: str) -> Generator[FunctionCommand, None, None]:
    """Hold the host until the connection of this run ends; a failing command where another does.

    `mark` is that of the deploy before, as it was when the host was looked at. Taking it changes
    nothing on the host that anybody sees, so it counts as no change.
    """
    if state.is_executing:
        refused = _take(mark)
        if refused is not None:
            yield fail(refused)
            return
    host.noop("no other deploy works on this host")


def _take(mark: str) -> str | None:
    who = f"{getpass.getuser()}@{socket.gethostname()}"
    words = (inspect.getsource(deploy_lock), who, mark)
    command = StringCommand("python3", "-c", *(QuoteString(word) for word in words))
    arguments = connector_arguments(host.current_op_global_arguments)
    _, output = host.run_shell_command(command, **arguments)
    try:
        found = json.loads(output.stdout_lines[-1])
    except (ValueError, IndexError):
        return f"the host did not say whether it is free: {output.stderr or output.stdout}"
    return None if found["held"] else refusal(found)


def refusal(found: dict[str, Any]) -> str:
    """Who deploys, and since when, in one line."""
    since = datetime.fromtimestamp(float(found.get("since") or 0), UTC)
    who = f"{found.get('by') or 'somebody'} since {since:%Y-%m-%d %H:%M:%S} UTC"
    if found.get("meanwhile"):
        return f"another deploy changed this host while this one looked at it ({who}): run it again"
    return (
        f"another deploy works on this host: {who} (its connection is process {found.get('pid')} "
        "there): wait for it, then run this again"
    )
