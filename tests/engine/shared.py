"""Numbers that the processes of a simulated engine share, and the names that they carry."""

from __future__ import annotations

import contextlib
import mmap
import os

FIELDS = (
    "running", "waiting", "generated", "prompted", "finished", "decoded", "kv_usage",
    "step", "step_s", "held", "working", "shm_s", "errored", "left",
)  # fmt: skip
"""`step` is what the core moves and every worker acknowledges; `held` stops it; `working` lets the
workers burn CPU without a step. Single writers, so nothing is locked."""
MOST_WORKERS = 16


class Shared:
    """A page of doubles: the fields above, then one acknowledged step for each worker."""

    def __init__(self, workers: int) -> None:
        object.__setattr__(self, "workers", workers)
        object.__setattr__(self, "page", memoryview(mmap.mmap(-1, 4096)).cast("d"))

    def __getattr__(self, name: str) -> float:
        return self.page[FIELDS.index(name)]

    def __setattr__(self, name: str, value: float) -> None:
        self.page[FIELDS.index(name)] = value

    def acknowledge(self, worker: int) -> None:
        self.page[len(FIELDS) + worker] = self.step

    def all_acknowledged(self) -> bool:
        acknowledged = self.page[len(FIELDS) : len(FIELDS) + self.workers]
        return all(step >= self.step for step in acknowledged)


def rename(name: str) -> None:
    """The name in ps, as setproctitle does it: comm, and the command line in our own memory."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/self/comm", "w") as file:
            file.write(name)
        with open("/proc/self/stat") as file:
            words = file.read().rpartition(")")[2].split()
        start, end = int(words[45]), int(words[46])  # arg_start and arg_end of proc(5)
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(start)
            memory.write(name.encode()[: end - start - 1].ljust(end - start, b"\0"))


def ended(pid: int) -> int | None:
    """The exit code of a child, negative for a signal; None while it runs."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return -9
    return os.waitstatus_to_exitcode(status) if found else None
