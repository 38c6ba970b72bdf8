"""Is the engine dead? Values in, verdict out: no clock, no file, no network of its own.

What tells a hang from work is a counter of the engine that moves while requests run or wait; a
health answer is no proof (vLLM's is a flag, vllm issues 17972 and 39863; llama-server answers 200
on every path while a device of it hangs). docs/reliability.md explains each clock.

* Time that nobody watched does not count: after a pause of more than three ticks (SIGSTOP of the
  supervisor, a suspended machine) the clocks go on where they were, and one tick has no verdict.
* No data is neither progress nor, before its time, a verdict.
* What else is known (Xid, lost card, low power at full utilization) shortens a stall; alone it
  never is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from multigpu.host.verdicts import HTTP_DEAD, STALLED

GAP_TICKS = 3
STOPPED, IDLE, BUSY, BLOCKED = "stopped", "idle", "busy", "blocked"
"""What the processes that listen do: /proc/PID/stat says T, they use no CPU time, they use some,
they wait for a disk (D)."""
ASKED, ANSWERED, FAILED = "asked", "answered", "failed"


@dataclass(frozen=True)
class Times:
    """Seconds. `stall_s` and `corroborated_s` include the time that looking takes, two ticks."""

    tick_s: float = 1.0
    stall_s: float = 180.0
    corroborated_s: float = 55.0
    frozen_s: float = 10.0
    dead_s: float = 30.0
    canary_s: float = 60.0
    early_s: float = 600.0
    early_factor: float = 2.0
    alive_factor: float = 4.0


@dataclass(frozen=True)
class Page:
    """What a metrics page says: requests that run or wait, and the counters that should move."""

    busy: float
    moving: Tuple[float, ...]


@dataclass(frozen=True)
class Seen:
    """What was seen since the last tick.

    `page` is None without a new whole page; `answered` is True when any HTTP answer came, whatever
    its status; `refused` when connections are refused. `listeners` is one of STOPPED, IDLE, BUSY,
    BLOCKED, None where it is not known. `working` is True when the cards (without readings of them:
    the processors) do real work. `hard` are facts that a working engine does not survive, `soft`
    those that also come with a compilation. `canary` is what became of a request of our own.
    """

    page: Optional[Page] = None
    answered: bool = False
    refused: bool = False
    listeners: Optional[str] = None
    working: bool = False
    hard: Tuple[str, ...] = ()
    soft: Tuple[str, ...] = ()
    canary: Optional[str] = None


@dataclass(frozen=True)
class Finding:
    """A verdict before the kernel and NVML were asked what is behind it."""

    reason: str
    text: str


class Clock:
    """Seconds that were watched: a tick that comes late counts as one tick."""

    def __init__(self, tick_s: float, now: float) -> None:
        self.tick_s, self.last, self.watched, self.gap = tick_s, now, 0.0, False

    def tick(self, now: float) -> float:
        """Watched seconds so far; `gap`: this tick came late, or the clock went back."""
        passed = now - self.last
        self.last = now
        self.gap = not 0 <= passed <= GAP_TICKS * self.tick_s
        self.watched += self.tick_s if self.gap else passed
        return self.watched


class Judge:
    """One engine, from READY=1 on. `metrics` is False where the engine publishes nothing."""

    def __init__(self, times: Times, now: float, metrics: bool = True) -> None:
        self.times, self.metrics = times, metrics
        self.clock = Clock(times.tick_s, now)
        self.page: Optional[Page] = None
        self.progress = self.answered = self.moved = 0.0
        self.frozen_since: Optional[float] = None
        self.asked: Optional[float] = None
        self.canary_ended = 0.0
        self.failing: Optional[float] = None
        self.at = 0.0

    @property
    def busy(self) -> bool:
        """True when the last page said that requests run or wait."""
        return self.page is not None and self.page.busy > 0

    @property
    def age_s(self) -> float:
        """Seconds since the engine last showed that it works, or that it has nothing to do."""
        return self.at - self.progress

    @property
    def stuck(self) -> bool:
        """Something is to be done and nothing moves; not yet a verdict."""
        return self.busy and self.age_s > GAP_TICKS * self.times.tick_s

    def tick(self, now: float, seen: Seen) -> Optional[Finding]:
        """The verdict at this moment, None while there is none. To be called once a tick."""
        self.at = self.clock.tick(now)
        self._take(seen)
        if self.clock.gap:
            return None
        return self._dead(seen) or self._stalled(seen)

    def wants_canary(self, connected: int = 0, suspicious: bool = False) -> bool:
        """Time for a request of our own: it idles, or requests are there and nothing moves.

        A stuck gauge (a client that went away) is told from a hang by a request that is answered.
        Without metrics only an engine that nobody is connected to is asked.
        """
        if self.asked is not None or self.times.canary_s <= 0:
            return False
        if not self.metrics and connected:
            return False
        pause = self.times.canary_s
        if self.failing is not None or suspicious:
            pause = min(pause, self.times.frozen_s)
        elif self.busy:
            pause = min(pause, self.times.corroborated_s / 2)
        quiet = self.at - max(self.moved, self.canary_ended)
        return quiet >= pause

    def _take(self, seen: Seen) -> None:
        if seen.answered or seen.page is not None:
            self.answered = self.at
        self._take_canary(seen.canary)
        if seen.page is None:
            return
        if self.page is None or seen.page.moving != self.page.moving:
            self.progress = self.moved = self.at
        elif not seen.page.busy and self.asked is None and self.failing is None:
            self.progress = self.at
        self.page = seen.page

    def _take_canary(self, canary: Optional[str]) -> None:
        if canary == ASKED:
            self.asked = self.at
            # An engine that idled had nothing to do before it was asked.
            if not self.busy and self.failing is None:
                self.progress = self.at
        elif canary == ANSWERED:
            self.progress = self.moved = self.canary_ended = self.at
            self.asked = self.failing = None
        elif canary == FAILED:
            self.failing = self.at if self.failing is None else self.failing
            self.canary_ended, self.asked = self.at, None

    def _dead(self, seen: Seen) -> Optional[Finding]:
        """Nobody answers over HTTP."""
        silent = self.at - self.answered
        if silent <= 0 or not self._frozen(seen):
            self.frozen_since = None
        elif self.frozen_since is None:
            self.frozen_since = max(self.answered, self.at - self.times.tick_s)
        if self.frozen_since is not None and self.at - self.frozen_since >= self.times.frozen_s:
            return Finding(HTTP_DEAD, f"no answer for {silent:.0f} s, {_how(seen)}")
        if silent >= self._dead_after(seen):
            return Finding(HTTP_DEAD, f"no answer for {silent:.0f} s")
        return None

    def _frozen(self, seen: Seen) -> bool:
        """Processes that neither work nor answer. An engine without metrics has one thread."""
        if seen.refused or seen.listeners == STOPPED:
            return True
        return self.metrics and seen.listeners == IDLE

    def _dead_after(self, seen: Seen) -> float:
        """Slow is not dead: where tokens moved a moment before, HTTP may be all that is late."""
        times = self.times
        if not self.metrics:
            return self._limit(seen)
        return max(times.dead_s, times.stall_s) if self._was_moving() else times.dead_s

    def _was_moving(self) -> bool:
        return self.busy and self.answered - self.moved <= max(self.times.dead_s, self.times.tick_s)

    def _stalled(self, seen: Seen) -> Optional[Finding]:
        """Something is to be done and nothing moves."""
        if not (self.busy or self.asked is not None or self.failing is not None):
            return None
        limit = self._limit(seen)
        if self.age_s < limit:
            return None
        what = f"{self.page.busy:g} requests" if self.page and self.busy else "a request of ours"
        known = ", ".join((*seen.hard, *seen.soft))
        text = f"no progress for {self.age_s:.0f} s with {what}"
        return Finding(STALLED, f"{text} ({known})" if known else text)

    def _limit(self, seen: Seen) -> float:
        """Seconds without progress that are too many, with what is known just now."""
        times, early = self.times, self.at < self.times.early_s
        stall_s = times.stall_s - min(2 * times.tick_s, times.stall_s / 4)
        if seen.hard or (seen.soft and not early and not seen.working):
            return min(times.corroborated_s, stall_s)
        if seen.working:
            return times.alive_factor * times.stall_s
        return stall_s * (times.early_factor if early else 1.0)


def _how(seen: Seen) -> str:
    if seen.refused:
        return "connections are refused"
    return "its processes are stopped" if seen.listeners == STOPPED else "its processes do nothing"
