"""One deploy at a time on a host: a lock that lives as long as the connection of the run.

    python3 -c THIS WHO SEEN [--root DIR]

Prints one JSON line: {"held": true}, or who holds it. The lock is flock(2) on a file below /run,
held by a process of its own, which ends, and with it the lock, when the process that serves the
connection does (sshd's for SSH): a deploy that is killed frees the host within a second. `SEEN` is
the line that this run read when it looked at the host: another one means that a deploy was here
meanwhile. Travels as text, before any program is on the host: stdlib only, Python 3.9+.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import socket
import sys
import time
from typing import Dict, List, Optional, Tuple

PATH = "/run/multigpu/deploy.lock"
PATIENCE_S, LOOK_S = 3.0, 0.2
"""For the run before, whose connection closes just now; between two looks at ours."""
ON_THE_WAY = ("sh", "bash", "dash", "zsh", "ksh", "fish", "ash", "busybox", "sudo", "su", "doas")
PIDFD_OPEN, PIDFD_GETFD = 434, 438
IDLE_S, EVERY_S, TIMES = 10, 5, 3


def stat(pid: int) -> Optional[Tuple[str, int, str]]:
    """Name, parent and start of a process (proc(5), stat); None when it is gone or dead."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            text = stream.read()
    except OSError:
        return None
    name = text[text.index("(") + 1 : text.rindex(")")]
    rest = text.rpartition(")")[2].split()
    return None if rest[0] in "ZX" else (name, int(rest[1]), rest[19])


def connection() -> int:
    """The process that serves the run's connection: the first ancestor that only hands on."""
    pid = os.getppid()
    while pid > 1:
        found = stat(pid)
        if found is None or found[0] not in ON_THE_WAY:
            return pid
        pid = found[1]
    return pid


def keep_alive(pid: int) -> None:
    """A connection whose other end lost power ends within seconds, not after hours.

    sshd sets SO_KEEPALIVE, the kernel asks after two hours. Best effort: pidfd_getfd(2) is of
    Linux 5.6.
    """
    with contextlib.suppress(OSError, AttributeError, ValueError):
        libc = ctypes.CDLL(None, use_errno=True)
        handle = libc.syscall(PIDFD_OPEN, pid, 0)
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError, ValueError):
                if os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:"):
                    patient(libc.syscall(PIDFD_GETFD, handle, int(name), 0))


def patient(handle: int) -> None:
    """Set how long a TCP connection may be silent."""
    with socket.socket(fileno=handle) as found:
        if found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE_S)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, EVERY_S)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, TIMES)


def take(path: str, who: str, seen: str) -> Dict[str, object]:
    """Take the lock, or say who has it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                return {"held": False, **line(handle)}
            time.sleep(LOOK_S)
    before = line(handle)
    if str(before.get("id", "")) != seen:
        return {"held": False, "meanwhile": True, **before}
    pid = connection()
    found = stat(pid)
    keep_alive(pid)
    mine = {"id": os.urandom(6).hex(), "by": who, "since": int(time.time()), "pid": pid}
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(mine).encode(), 0)
    if os.fork() == 0:
        hold(pid, found[2] if found else "")
    return {"held": True}


def line(handle: int) -> Dict[str, object]:
    """What the last holder wrote."""
    try:
        found = json.loads(os.pread(handle, 4096, 0) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def hold(pid: int, started: str) -> None:
    """Keep the lock while that process lives; never returns."""
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    found = stat(pid)
    while found is not None and found[2] == started:
        time.sleep(LOOK_S)
        found = stat(pid)
    os._exit(0)


def main(arguments: List[str]) -> int:
    """`WHO SEEN [PATH]`; prints what came of it."""
    who, seen = arguments[:2]
    print(json.dumps(take(arguments[2] if len(arguments) > 2 else PATH, who, seen)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
