"""Waiting for a transient unit that works on the host, with its progress on the screen.

pyinfra shows what a command prints only with -vvv, and one that runs for hours is lost with its
connection; so the unit is looked at every few seconds, and it goes on when nobody looks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
from pyinfra.api import FunctionCommand, Host, QuoteString, State, StringCommand
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS

from multigpu.fetching import Watched

EVERY_S, LINE_EVERY_S = 2.0, 10.0
LOOK_TIMEOUT_S = 60
_LOOK = """\
systemctl show -p ActiveState -p Job "$1"
[ -e "$2" ] && echo stamp
cat "$3" 2>/dev/null
echo
"""
_LAST_WORDS = """\
journalctl -q -u "$1" _TRANSPORT=stdout -n 5 -o cat --no-pager
systemctl show -p Result --value "$1"
"""
Reader = Callable[[str], Watched]


def watch(
    unit: str, *, stamp: str, status: str, title: str, reader: Reader, arguments: dict[str, Any]
) -> FunctionCommand:
    """Wait until the unit has ended; fails with one line when the stamp is not there then.

    `status` is the file that `reader` makes a line or a reason of; `arguments` are the operation's
    global arguments.
    """
    return FunctionCommand(_watch, [(unit, stamp, status), title, reader, arguments], {})


def connector_arguments(arguments: Any) -> dict[str, Any]:
    """Those of an operation's global arguments that a command of its own needs (sudo)."""
    kept = {k: v for k, v in dict(arguments or {}).items() if k in CONNECTOR_ARGUMENT_KEYS}
    return {**kept, "_timeout": LOOK_TIMEOUT_S}


def _watch(
    state: State,
    host: Host,
    names: tuple[str, str, str],
    title: str,
    reader: Reader,
    arguments: dict[str, Any],
) -> bool:
    waited, said = 0.0, -LINE_EVERY_S
    while True:
        found = reader(_run(host, _LOOK, names, arguments))
        if found.complete:
            return True
        if not found.busy:
            reason = found.reason or _last_words(host, names, arguments)
            host.log_styled(f"{title}: {reason}", fg="red")
            return False
        if found.line is not None and waited - said >= LINE_EVERY_S:
            host.log(f"{title}: {found.line}")
            said = waited
        gevent.sleep(EVERY_S)
        waited += EVERY_S


def _run(host: Host, script: str, names: tuple[str, ...], arguments: dict[str, Any]) -> str:
    words = (QuoteString(name) for name in names)
    command = StringCommand("sh", "-c", QuoteString(script), "multigpu-watch", *words)
    _, output = host.run_shell_command(command, **arguments)
    return str(output.stdout)


def _last_words(host: Host, names: tuple[str, str, str], arguments: dict[str, Any]) -> str:
    words = _run(host, _LAST_WORDS, names[:1], arguments).split("\n")
    told = "; ".join(word.strip() for word in words if word.strip())
    return f"{names[0]} ended without a reason: {told or 'it said nothing'}; run it again"
