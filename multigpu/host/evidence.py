"""What is known of an engine before it is killed, in one JSON file; the ten newest are kept.

Written within seconds or not at all: neither a full disk nor a card that hangs holds a restart up.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from typing import Any, Dict, Iterable, List, Optional

from multigpu.host import processes, state

KEPT = 10
LIMIT_S = 5.0
PAGE_CHARACTERS = 200_000
PROC_FILES = ("status", "wchan", "stack", "syscall")
LONGEST_TEXT = 4000
MODE, DIRECTORY_MODE = 0o600, 0o700


def of_process(process: processes.Process) -> Dict[str, Any]:
    """What /proc tells of it; the stack is root's, so it is mostly missing."""
    found: Dict[str, Any] = {
        "pid": process.pid,
        "parent": process.parent,
        "name": process.name,
        "state": process.state,
        "cpu_s": process.cpu_s,
        "rss_bytes": process.rss_bytes,
        "cmdline": processes.command(process.pid)[:LONGEST_TEXT],
        "threads": _threads(process.pid),
    }
    for name in PROC_FILES:
        found[name] = _text(f"/proc/{process.pid}/{name}")
    return found


def _threads(pid: int) -> Optional[Dict[str, str]]:
    """Where each thread waits in the kernel."""
    try:
        numbers = os.listdir(f"/proc/{pid}/task")[:200]
    except OSError:
        return None
    return {number: _text(f"/proc/{pid}/task/{number}/wchan") or "" for number in numbers}


def _text(path: str) -> Optional[str]:
    try:
        with open(path, "rb") as file:
            return file.read(LONGEST_TEXT).decode("utf-8", "replace")
    except OSError:
        return None


def keep(directory: str, service: str, reason: str, facts: Dict[str, Any]) -> Optional[str]:
    """Write it; the path, None where that failed or took too long."""
    done: List[str] = []
    thread = threading.Thread(
        target=_keep, args=(directory, service, reason, facts, done), daemon=True
    )
    thread.start()
    thread.join(LIMIT_S)
    return done[0] if done else None


def _keep(
    directory: str, service: str, reason: str, facts: Dict[str, Any], done: List[str]
) -> None:
    found = {**facts, "processes": [of_process(p) for p in processes.below(os.getpid())]}
    stamp = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime())
    path = os.path.join(directory, f"{stamp}-{service}-{reason}.json")
    content = json.dumps(found, indent=1, default=str).encode()
    if state.write_bytes(path, content, MODE, DIRECTORY_MODE):
        done.append(path)
        forget(directory, f"-{service}-")


def forget(directory: str, marked: str, kept: int = KEPT) -> None:
    """Remove all but the newest: their names begin with the time."""
    with contextlib.suppress(OSError):
        ours: Iterable[str] = sorted(n for n in os.listdir(directory) if marked in n)
        for name in list(ours)[:-kept]:
            os.unlink(os.path.join(directory, name))
