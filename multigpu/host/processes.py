"""The engine's processes as the kernel shows them (proc(5)), and how all of them are ended.

With PR_SET_CHILD_SUBREAPER (prctl(2)) whatever an engine leaves behind becomes our child: nothing
that holds memory of a card is lost from sight when its parent dies (vllm issues 34643 and 55510).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from dataclasses import dataclass
from typing import Dict, Iterable, List, Optional, Set, Tuple

SUBREAPER = 36
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
NAMED = re.compile(r"^(VLLM::|sglang::)")
"""vLLM and SGLang name the processes that they cannot live without."""
PASSING = ("compile_worker", "resource_tracker", "nvcc", "ptxas", "cicc", "ninja", "cc1plus")
"""Words of processes that come and go beside them: compilers, torch's compile workers."""
COMPILERS = ("nvcc", "ptxas", "cicc", "cc1plus", "ninja", "hipcc")
GPU_FILES = ("/dev/nvidia", "/dev/kfd", "/dev/dri/render")
SHARE = 0.05
KILL_S = 5.0


@dataclass(frozen=True)
class Process:
    """One process; `cpu_s` includes what its ended children used, `state` is the letter of ps."""

    pid: int
    parent: int
    name: str
    state: str
    cpu_s: float
    rss_bytes: int
    started: int

    @property
    def alive(self) -> bool:
        """True unless it only waits to be reaped."""
        return self.state not in "ZX"


def adopt_orphans() -> None:
    """Make this process the parent of orphans among its descendants; without prctl nothing.

    Where memory may not be written and executed, importing ctypes may fail (libffi before 3.4).
    """
    with contextlib.suppress(Exception):
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(SUBREAPER, 1, 0, 0, 0)


def read(pid: int) -> Optional[Process]:
    """One process, None when it is gone or hidden."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read().decode("utf-8", "replace")
        name = text[text.index("(") + 1 : text.rindex(")")]
        words = text[text.rindex(")") + 2 :].split()
        cpu = sum(int(words[n]) for n in (11, 12, 13, 14)) / TICKS_PER_S
        rss, started = int(words[21]) * PAGE_BYTES, int(words[19])
        return Process(pid, int(words[1]), name, words[0], cpu, rss, started)
    except (OSError, ValueError, IndexError):
        return None


def everyone() -> List[Process]:
    """Every process that we may see; ProtectProc= leaves those of our own user."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return []
    found = (read(int(name)) for name in names if name.isdigit())
    return [process for process in found if process is not None]


def below(root: int, of: Optional[Iterable[Process]] = None) -> List[Process]:
    """All descendants of a process, without itself."""
    children: Dict[int, List[Process]] = {}
    for process in everyone() if of is None else of:
        children.setdefault(process.parent, []).append(process)
    found, left = [], [root]
    while left:
        ours = children.pop(left.pop(), [])
        found += ours
        left += [process.pid for process in ours]
    return found


def command(pid: int) -> str:
    """Its command line in one line, "" when it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read(4096).replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""


def files(pid: int) -> List[str]:
    """What its descriptors point to; [] when it is gone or another user's."""
    found = []
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return []
    for number in numbers:
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/fd/{number}"))
    return found


def holds_gpu(pid: int) -> bool:
    """True when it has a card's device file open."""
    return any(path.startswith(GPU_FILES) for path in files(pid))


def needed(
    processes: Iterable[Process], gpu_pids: Iterable[int] = ()
) -> Dict[Tuple[int, int], str]:
    """Those that the engine cannot do without: (pid, start time) to name.

    Their engine names them, or they hold a card, or at least SHARE of all the memory.
    """
    alive, on_gpu = [process for process in processes if process.alive], set(gpu_pids)
    total = sum(process.rss_bytes for process in alive)
    return {
        (process.pid, process.started): process.name
        for process in alive
        if not any(word in f"{process.name} {command(process.pid)}" for word in PASSING)
        and (
            NAMED.match(process.name)
            or process.pid in on_gpu
            or process.rss_bytes >= SHARE * total
            or holds_gpu(process.pid)
        )
    }


def gone(needed_ones: Dict[Tuple[int, int], str], now: Iterable[Process]) -> List[str]:
    """Names of those that are no longer there."""
    there: Set[Tuple[int, int]] = {(p.pid, p.started) for p in now if p.alive}
    return [f"{name} ({pid})" for (pid, at), name in needed_ones.items() if (pid, at) not in there]


def compiling(processes: Iterable[Process]) -> bool:
    """True while a compiler of kernels runs among them."""
    return any(process.name.startswith(COMPILERS) for process in processes if process.alive)


def reap(but: int) -> None:
    """Bury adopted processes that ended; the engine itself is its Popen's."""
    for process in everyone():
        if process.parent == os.getpid() and process.state == "Z" and process.pid != but:
            with contextlib.suppress(OSError):
                os.waitpid(process.pid, os.WNOHANG)


def kill_all(child: int, limit_s: float = KILL_S) -> List[int]:
    """SIGKILL to every descendant of ours until none is left; returns those that do not die.

    What a process starts while it is killed is met in the next round.
    """
    deadline = time.monotonic() + limit_s
    while True:
        left = [process.pid for process in below(os.getpid()) if process.alive]
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        reap(child)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)
