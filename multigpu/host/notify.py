"""sd_notify(3) without a library: a datagram to systemd, and nothing that could stop an engine."""

from __future__ import annotations

import os
import socket
import sys

TIMEOUT_S = 0.3
TALKATIVE_AFTER = 2
HIDDEN = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""What an engine must not see: it would speak to systemd in our name."""


def notify(message: str) -> bool:
    """Send one datagram; nothing to do outside systemd.

    False when it was not delivered: systemd may be re-executing itself just now, which is no
    reason to take an engine down; the watchdog speaks when it lasts.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return True
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.settimeout(TIMEOUT_S)
            channel.connect(address)
            channel.sendall(message.encode())
    except OSError as error:
        print(f"multigpu: systemd was not notified: {error}", file=sys.stderr, flush=True)
        return False
    return True


def child_environment(deadlocks: int = 0) -> dict[str, str]:
    """The environment without what would let the engine speak to systemd in our name.

    After ranks waited for each other twice within an hour, NCCL says what it does.
    """
    kept = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    return {"NCCL_DEBUG": "INFO", **kept} if deadlocks >= TALKATIVE_AFTER else kept


def say(text: str, level: int = 4) -> None:
    """One line for the journal; the begin is its priority (sd-daemon(3), SyslogLevelPrefix=)."""
    prefix = f"<{level}>" if "JOURNAL_STREAM" in os.environ else ""
    print(f"{prefix}multigpu: {text}", file=sys.stderr, flush=True)
