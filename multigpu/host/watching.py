"""Puts together what is seen of an engine in one tick: pages, processes, cards, its own words."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Set, Tuple

from multigpu.host import connections, gpu_facts, listening, metrics_page, processes
from multigpu.host.engine_output import Output
from multigpu.host.gpu_facts import Watch
from multigpu.host.gpu_work import GpuWork
from multigpu.host.judging import BLOCKED, BUSY, IDLE, STOPPED, Judge, Page, Seen
from multigpu.host.looks import Canary, Look

NOT_HTTP = re.compile(r"EngineCore|Worker|scheduler|detokenizer", re.IGNORECASE)
"""Processes that may have inherited the socket and never answer at it."""
CPU_IDLE_SHARE, CPU_IDLE_S = 0.02, 0.015
CPU_WORKING_CORES = 0.3
RANK_LINES = 2
TOKENS = re.compile(r"generation_tokens_total$|realtime_tokens_total$|n_decode_total$")


@dataclass(frozen=True)
class Names:
    """The engine's metrics: where, which gauges and which counters (`multigpu.progress`)."""

    path: Optional[str] = None
    busy: Tuple[str, ...] = ()
    moving: Tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """True where progress can be seen."""
        return bool(self.path and self.busy and self.moving)


@dataclass
class Tree:
    """The engine's processes at the last tick, and the CPU time that they had before."""

    found: List[processes.Process] = field(default_factory=list)
    needed: Dict[Tuple[int, int], str] = field(default_factory=dict)
    cpu: Dict[int, float] = field(default_factory=dict)
    used_s: Dict[int, float] = field(default_factory=dict)
    passed_s: float = 0.0
    at: float = 0.0

    def look(self, now: float) -> None:
        """Read all descendants of this process."""
        self.found = processes.below(os.getpid())
        cpu = {process.pid: process.cpu_s for process in self.found}
        self.used_s = {pid: max(0.0, s - self.cpu.get(pid, s)) for pid, s in cpu.items()}
        self.cpu, self.passed_s, self.at = cpu, now - self.at, now

    def cores(self) -> float:
        """How many processors all of them used since the look before."""
        return sum(self.used_s.values()) / self.passed_s if self.passed_s > 0 else 0.0

    def activity(self, pids: Set[int]) -> Optional[str]:
        """What these processes do, in the words of `judging`; None when they are gone."""
        ours = [process for process in self.found if process.pid in pids]
        if not ours:
            return None
        if any(process.state in "Tt" for process in ours):
            return STOPPED
        if any(process.state == "D" for process in ours):
            return BLOCKED
        used = sum(self.used_s.get(process.pid, 0.0) for process in ours)
        return IDLE if used <= max(CPU_IDLE_SHARE * self.passed_s, CPU_IDLE_S) else BUSY


class Watching:
    """Everything that looks at one engine; nothing here waits for it."""

    def __init__(
        self,
        base: str,
        health: Look,
        metrics: Optional[Look],
        names: Names,
        cards: Watch,
        canary: Canary,
        output: Output,
    ) -> None:
        self.base, self.health, self.metrics, self.names = base, health, metrics, names
        self.cards, self.canary, self.output = cards, canary, output
        self.port = listening.port_of(base)
        self.tree, self.work = Tree(), GpuWork()
        self.answers = (0, 0)
        self.listeners: Set[int] = set()
        self.values: Dict[str, float] = {}
        self.page_text: Optional[str] = None
        self.moved_at = time.monotonic()
        self.rank_lines = 0
        self.page: Optional[Page] = None

    def owned(self) -> Optional[bool]:
        """Whether whoever listens at the port is of our processes; None when nobody listens."""
        wanted = listening.inodes(self.port)
        if wanted is None:
            return True
        if not wanted:
            return None
        self.tree.look(time.monotonic())
        held = listening.holders(wanted, [process.pid for process in self.tree.found])
        self.listeners = {
            process.pid
            for process in self.tree.found
            if any(process.pid in pids for pids in held.values())
            and not NOT_HTTP.search(process.name)
        } or {pid for pids in held.values() for pid in pids}
        return all(held.values())

    def ready(self) -> None:
        """From now on the engine is judged."""
        self.owned()
        reading = self.cards.reading
        pids = reading.pids if reading else frozenset()
        self.tree.needed = processes.needed(self.tree.found, pids)
        self.moved_at = time.monotonic()
        self.rank_lines = self.output.waits_for_ranks

    @property
    def ranks_wait(self) -> bool:
        """True when the engine said so twice since something moved."""
        return self.output.waits_for_ranks - self.rank_lines >= RANK_LINES

    def missing(self) -> List[str]:
        """Processes that the engine needs and that are no longer there."""
        return processes.gone(self.tree.needed, self.tree.found)

    def look(self, now: float, judge: Judge) -> Seen:
        """What was seen since the tick before."""
        self.tree.look(now)
        page, answered = self._http()
        if page is not None and (self.page is None or page.moving != self.page.moving):
            self.moved_at, self.rank_lines = now, self.output.waits_for_ranks
        self.page = page or self.page
        self.work.take(self.cards.reading, now - self.moved_at < 3 * self.cards.pause_s)
        look = self.metrics or self.health
        return Seen(
            page=page,
            answered=answered,
            refused=look.refused and self.health.refused,
            listeners=self.tree.activity(self.listeners),
            working=self._working(),
            hard=self._hard(),
            soft=self._soft(),
            canary=self.canary.last_event(),
        )

    def connected(self) -> int:
        """Clients at the port."""
        return connections.established(self.port)

    def sick(self) -> Dict[str, str]:
        """What NVML and the kernel say against the cards since something last moved."""
        return gpu_facts.sick(self.cards.reading, self.moved_at - 10.0)

    def _http(self) -> Tuple[Optional[Page], bool]:
        """A new page, and whether anything was answered."""
        metrics = self.metrics.number if self.metrics else 0
        before, self.answers = self.answers, (self.health.number, metrics)
        page = None
        if self.metrics is not None and metrics != before[1] and self.metrics.text is not None:
            self.page_text = self.metrics.text
            wanted = (*self.names.busy, *self.names.moving)
            self.values = metrics_page.sums(self.page_text, wanted) or self.values
            page = metrics_page.read(self.page_text, self.names.busy, self.names.moving)
        return page, self.answers != before

    def _working(self) -> bool:
        """By the cards where their power is known, else by the processors."""
        if self.work.known:
            return self.work.working
        return self.tree.cores() >= CPU_WORKING_CORES

    def _hard(self) -> Tuple[str, ...]:
        stopped = [
            f"{process.name} ({process.pid}) is stopped"
            for process in self.tree.found
            if process.state in "Tt" and (process.pid, process.started) in self.tree.needed
        ]
        return (*self.sick().values(), *stopped)

    def _soft(self) -> Tuple[str, ...]:
        if processes.compiling(self.tree.found):
            return ()
        found = []
        if self.ranks_wait:
            found.append("the engine says that ranks wait for each other")
        if self.work.deadlocked:
            found.append("all cards fully used at little power")
        return tuple(found)

    def counters(self) -> Dict[str, Optional[float]]:
        """What a state file shows of the last page."""
        values, busy = self.values, self.names.busy
        tokens = next((values[name] for name in values if TOKENS.search(name)), None)
        return {
            "running": values.get(busy[0]) if busy else None,
            "waiting": values.get(busy[1]) if len(busy) > 1 else None,
            "tokens_total": tokens,
            "kv_usage": values.get("vllm:kv_cache_usage_perc"),
        }
