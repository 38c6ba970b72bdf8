"""A port on loopback where the supervisor tells a load balancer how its engine is.

Whoever connects gets one line in the words of HAProxy's agent checks (configuration manual,
`agent-check`): an operating state, and `ready`, which alone takes back an earlier `drain`. It has a
thread of its own, so that nobody who connects can hold the supervisor up. No reason is given:
HAProxy 2.6 takes `down#reason` for no word at all, whatever its manual says.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from typing import Callable

UP, DOWN, DRAIN = "ready up", "ready down", "drain"
ANSWER_S = 1.0
BACKLOG = 16


def listen(port: int, verdict: Callable[[], str]) -> int | None:
    """Answer on 127.0.0.1 with what `verdict` says at that moment, until the process ends.

    Returns the port (0 chooses one), None where it is taken: an engine is not taken down for it.
    """
    channel = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        channel.bind(("127.0.0.1", port))
        channel.listen(BACKLOG)
    except OSError as error:
        print(f"multigpu: no verdicts at port {port}: {error}", file=sys.stderr, flush=True)
        channel.close()
        return None
    threading.Thread(target=_serve, args=(channel, verdict), daemon=True).start()
    return int(channel.getsockname()[1])


def _serve(channel: socket.socket, verdict: Callable[[], str]) -> None:
    while True:
        try:
            other, _ = channel.accept()
        except OSError:  # out of descriptors, or the other one is gone already
            time.sleep(0.1)
            continue
        with other:
            _answer(other, verdict())


def _answer(other: socket.socket, text: str) -> None:
    try:
        other.settimeout(ANSWER_S)
        other.sendall(f"{text}\n".encode("utf-8", "replace"))
    except OSError:
        pass
