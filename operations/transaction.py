"""One generation of a host's services to another as a transaction, which the host does by itself.

Staged and verified first; then a transient unit swaps, starts, waits and checks, or goes back. It
outlives the SSH connection, so that a deploy that is killed leaves no host between generations.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Iterator, Sequence

from pyinfra import host
from pyinfra.api import FileUploadCommand, FunctionCommand, QuoteString, StringCommand, operation

from multigpu import transaction
from multigpu.hardware import Host
from multigpu.install.progress import watched
from multigpu.transaction import DONE, STATUS, UNIT, Change, Seen, Wanted
from operations.common import Staging
from operations.waiting import connector_arguments, watch

Command = StringCommand | FileUploadCommand | FunctionCommand
PATIENCE_S = 300
"""For each unit beside its start time: stopping, draining, restarts in between."""

_START = """\
set -u
unit=$1 status=$2 done=$3 limit=$4
shift 4
rm -f "$status" "$done"
systemctl reset-failed "$unit" 2>/dev/null
systemd-run --quiet --unit="$unit" --property=RemainAfterExit=no \\
  --property=TimeoutStartSec="$limit" --service-type=oneshot --no-block "$@"
"""


@operation()
def transact(
    *, machine: Host, wanted: Wanted, changed: Change | None
) -> Generator[Command, None, None]:
    """The wanted generation serves, or the one before again; nothing when nothing differs."""
    if changed is None:
        host.noop("the host holds and runs what is planned")
        return
    for reason in changed.reasons:
        host.log(reason)
    staging = Staging()
    document = transaction.document(machine, wanted, changed)
    path = f"{staging.path}/generation"
    yield staging.create()
    # The directory is private; so is the file before it has content.
    yield StringCommand("install", "-m", "0600", "/dev/null", path, _sudo=False)
    yield staging.put(io.BytesIO(document.encode()), "generation")
    program = ("/usr/bin/python3", wanted.program, "transact", "stage", path)
    yield staging.or_remove(StringCommand(*program))
    yield staging.remove()
    limit_s = transaction.patience_s(wanted.units, PATIENCE_S)
    yield from run(wanted.program, ("apply",), "services", limit_s)


@operation()
def commit(*, program: str, trial: bool) -> Generator[StringCommand, None, None]:
    """The generation on trial was verified: from now on it is what is returned to."""
    if not trial:
        host.noop("the generation in place was verified before")
        return
    yield StringCommand("/usr/bin/python3", program, "transact", "commit")


@operation()
def roll_back(*, seen: Seen, program: str, limit_s: int) -> Generator[Command, None, None]:
    """The generation before serves again; nothing when that was done."""
    if seen.rolled_back_from is not None:
        host.noop(f"generation {seen.current} serves, returned to from {seen.rolled_back_from}")
        return
    yield from run(program, ("rollback",), f"return to generation {seen.previous}", limit_s)


def run(program: str, words: Sequence[str], title: str, limit_s: int) -> Iterator[Command]:
    """Let the host do it, and wait for its end."""
    # systemd replaces $NAME in command lines.
    argv = ("/usr/bin/python3", program, "transact", *(w.replace("$", "$$") for w in words))
    quoted = (QuoteString(word) for word in (UNIT, STATUS, DONE, str(limit_s), *argv))
    yield StringCommand("sh", "-c", QuoteString(_START), "multigpu-transact", *quoted)
    arguments = connector_arguments(host.current_op_global_arguments)
    yield watch(UNIT, stamp=DONE, status=STATUS, title=title, reader=watched, arguments=arguments)
