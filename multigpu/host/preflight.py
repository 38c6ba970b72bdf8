"""Before an engine is started: wait where the last ones failed, look who holds port and cards."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from typing import Callable, Dict, List, Optional, Tuple

from multigpu.host import gpu_facts, listening, processes, verdicts
from multigpu.host.gpu_facts import MISMATCH, Card, Reading, Watch
from multigpu.host.judging import Finding
from multigpu.host.notify import notify, say

POLL_S = 0.1
NVML_S = 10.0
ORPHANS_GONE_S = 5.0
EXTENSION_S, EXTENDED_EVERY_S = 30, 5.0
UNIT = re.compile(r"/(multigpu-[^/]+\.service)$")


class Extension:
    """More time to start, as long as somebody asks for it (sd_notify(3))."""

    def __init__(self) -> None:
        self.told = 0.0

    def ask(self) -> None:
        """Now, unless it was just done."""
        if time.monotonic() - self.told >= EXTENDED_EVERY_S:
            self.told = time.monotonic()
            notify(f"EXTEND_TIMEOUT_USEC={EXTENSION_S * 1_000_000}")


def pause(seconds: float, stopping: Callable[[], bool]) -> bool:
    """Wait; False when a stop came first."""
    deadline, told, extension = time.monotonic() + seconds, 0.0, Extension()
    while time.monotonic() < deadline and not stopping():
        if time.monotonic() - told >= 1:
            told = time.monotonic()
            extension.ask()
            notify(f"STATUS=starts again in {deadline - told:.0f} s")
        time.sleep(min(POLL_S, max(0.0, deadline - time.monotonic())))
    return not stopping()


def port(url: str) -> Optional[Finding]:
    """Somebody else at our port."""
    if not listening.taken(url):
        return None
    text = f"another process listens at {url}: see ss -ltnp, or set another port"
    return Finding(verdicts.PORT_CONFLICT, text)


def cards(watch: Watch, needed_mib: Dict[str, Optional[int]]) -> Optional[Finding]:
    """Cards that are gone, sick or held by others. Orphans of our own are killed first."""
    reading = watch.first(NVML_S)
    if reading is None:
        return None
    if orphans(reading):
        reading = _without_orphans(watch)
    if reading.error == MISMATCH:
        return Finding(verdicts.RESET_REQUIRED, "driver and its library differ: reboot needed")
    found = gpu_facts.sick(reading, time.monotonic())
    for reason in (verdicts.GPU_LOST, verdicts.RESET_REQUIRED):
        if reason in found:
            return Finding(reason, found[reason])
    return next(filter(None, (_held(c, needed_mib.get(c.uuid)) for c in reading.cards)), None)


def _held(card: Card, needed_mib: Optional[int]) -> Optional[Finding]:
    """A process of somebody else that leaves less than the engine needs: it is never killed."""
    foreign = [pid for pid, _ in card.processes if not ours(pid)]
    if not foreign or needed_mib is None or card.used_mib is None or card.total_mib is None:
        return None
    free = card.total_mib - card.used_mib
    if free >= needed_mib:
        return None
    who = ", ".join(f"{name(pid)} ({pid})" for pid in foreign[:5])
    text = f"{card.uuid}: {who} leave {free} MiB free, {needed_mib} are needed: stop them"
    return Finding(verdicts.GPU_BUSY, text)


def name(pid: int) -> str:
    """What a process is called; another user's may be hidden from us."""
    found = processes.read(pid)
    return found.name if found else "a process of another user"


def ours(pid: int) -> bool:
    """True for this process and what it started."""
    return pid == os.getpid() or any(p.pid == pid for p in processes.below(os.getpid()))


def orphans(reading: Reading) -> List[int]:
    """Processes of our user on our cards that belong to no other unit of ours."""
    return [pid for pid in reading.pids if not ours(pid) and _same_user(pid) and _unit(pid)[1]]


def _same_user(pid: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}").st_uid == os.getuid() != 0
    except OSError:
        return False


def _unit(pid: int) -> Tuple[Optional[str], bool]:
    """The unit of ours that a process runs in, and whether it is in none but this one."""
    try:
        found, mine = (_cgroup_unit(f"/proc/{who}/cgroup") for who in (pid, "self"))
    except OSError:
        return None, False
    return found, found is None or found == mine


def _cgroup_unit(path: str) -> Optional[str]:
    with open(path, encoding="utf-8", errors="replace") as file:
        matches = [UNIT.search(line.rstrip("\n")) for line in file]
    return next((match[1] for match in matches if match), None)


def _without_orphans(watch: Watch) -> Reading:
    """Kill them and wait for a reading that was made afterwards; the last one, if none comes."""
    assert watch.reading is not None
    for pid in orphans(watch.reading):
        say(f"{name(pid)} ({pid}) of an earlier process holds a card: killed")
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    done = time.monotonic()
    while watch.reading.at < done + 1 and time.monotonic() < done + ORPHANS_GONE_S:
        time.sleep(POLL_S)
    return watch.reading
