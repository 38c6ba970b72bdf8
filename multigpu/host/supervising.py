"""One engine under watch: loading, serving, leaving, and the verdict when it is dead."""

from __future__ import annotations

import argparse
import subprocess
import time
from dataclasses import asdict
from typing import Any, Dict, Optional

from multigpu.host import (
    connections,
    engine_output,
    preflight,
    processes,
    records,
    state,
    supervise_options,
    verdict_port,
    verdicts,
)
from multigpu.host.evidence import PAGE_CHARACTERS
from multigpu.host.judging import Finding, Judge
from multigpu.host.keeper import Keeper
from multigpu.host.notify import notify
from multigpu.host.watching import Watching

POLL_S = 0.1
NOTICED_S = 2.5
"""Within it a load balancer has asked for the verdict (every second) and sends nothing new."""
FOREIGN_S = 10.0
"""So long a stranger may listen at the port of an engine that is about to bind it."""
OUTPUT_S = 1.0
SICK = (verdicts.GPU_LOST, verdicts.RESET_REQUIRED)


class Supervisor:
    """One engine process, from start to verdict."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        options: argparse.Namespace,
        keeper: Keeper,
        watching: Watching,
    ) -> None:
        self.child, self.options, self.keeper, self.watching = child, options, keeper, watching
        self.times = supervise_options.times(options)
        self.drain_s = float(options.drain_s)
        self.began = time.monotonic()
        self.extension = preflight.Extension()
        self.judge: Optional[Judge] = None
        self.stopping = False
        self.told_to_stop = self.terminated = 0.0
        self.foreign_since: Optional[float] = None
        self.missing_since: Optional[float] = None

    @property
    def ready(self) -> bool:
        """READY=1 was said."""
        return self.judge is not None

    def stop(self, *_: object) -> None:
        """Forward SIGTERM once: to llama-server a second one means to drop what it is doing.

        With `drain_s`, once its requests are done. systemd kills the control group after
        TimeoutStopSec.
        """
        if self.stopping:
            return
        self.stopping = True
        self.told_to_stop = time.monotonic()
        notify("STOPPING=1")
        if not (self.ready and self.drain_s):
            self.end_child()

    def end_child(self) -> None:
        """SIGTERM to the engine, once."""
        self.drain_s = 0
        self.terminated = time.monotonic()
        if self.child.poll() is None:
            self.child.terminate()

    def drained(self) -> bool:
        """True when no request is left that a stop would cut, or when they had their time."""
        waited = time.monotonic() - self.told_to_stop
        if waited < min(NOTICED_S, self.drain_s):
            return False
        return waited >= self.drain_s or not connections.established(self.watching.port)

    def standing(self) -> str:
        """What a load balancer is told."""
        if self.stopping:
            return verdict_port.DRAIN
        return verdict_port.UP if self.ready else verdict_port.DOWN

    def run(self) -> int:
        """Until the engine's end, or its verdict. Returns this program's exit status."""
        due = time.monotonic()
        while True:
            status = self.child.poll()
            if status is not None:
                return self.ended(status)
            if time.monotonic() >= due:
                due = max(due + self.times.tick_s, time.monotonic())
                found = self.tick()
                if found is not None:
                    return self.verdict(found)
            time.sleep(min(POLL_S, self.times.tick_s / 2))

    def tick(self) -> Optional[Finding]:
        """Look at everything once, and report what is true now."""
        if self.stopping:
            self._leave()
            return None
        return self._load() if self.judge is None else self._serve(self.judge)

    def _leave(self) -> None:
        if self.ready:
            notify("WATCHDOG=1")
        self.keeper.set(state.DRAINING)
        if self.drain_s and self.drained():
            self.end_child()
        if self.terminated and time.monotonic() - self.terminated > self.options.kill_s:
            self.child.kill()

    def _load(self) -> Optional[Finding]:
        """Not ready yet: it is when it answers 200 at a socket of its own."""
        now = time.monotonic()
        self.keeper.set(state.LOADING)
        if self.watching.health.status == 200 and self._owned(now):
            self._become_ready(now)
            return None
        notify("STATUS=loading")
        self.extension.ask()
        if self.foreign_since is not None and now - self.foreign_since >= FOREIGN_S:
            text = f"another process listens at {self.options.health}: see ss -ltnp"
            return Finding(verdicts.PORT_CONFLICT, text)
        if now - self.began > self.options.start_s:
            return Finding(verdicts.START_TIMEOUT, f"not ready after {self.options.start_s:g} s")
        return None

    def _owned(self, now: float) -> bool:
        if not self.options.exclusive or self.watching.owned():
            self.foreign_since = None
            return True
        self.foreign_since = self.foreign_since or now
        return False

    def _become_ready(self, now: float) -> None:
        if not notify("READY=1\nSTATUS=serving"):
            return  # systemd is told again
        self.watching.ready()
        self.judge = Judge(self.times, now, self.watching.names.known)
        at = time.time()
        self.keeper.set(state.SERVING, ready_at=at, progress_at=at, load_s=now - self.began)

    def _serve(self, judge: Judge) -> Optional[Finding]:
        now = time.monotonic()
        notify("WATCHDOG=1")
        seen = self.watching.look(now, judge)
        found = self._missing(now) or judge.tick(now, seen)
        if found is None and judge.wants_canary(self.watching.connected(), bool(seen.hard)):
            self.watching.canary.send()
        self._report(judge)
        return found

    def _missing(self, now: float) -> Optional[Finding]:
        """A worker that is gone; an engine that ends by itself now is given the time to say so."""
        gone = self.watching.missing()
        if not gone:
            self.missing_since = None
        elif self.missing_since is None:
            self.missing_since = now
        elif now - self.missing_since >= min(0.5, self.times.tick_s / 2):
            return Finding(verdicts.ENGINE_EXIT, f"worker died: {', '.join(gone)}")
        return None

    def _report(self, judge: Judge) -> None:
        changes: Dict[str, Any] = dict(self.watching.counters())
        now = time.time()
        changes["progress_at"] = now - judge.age_s
        since = self.keeper.state.busy_since
        changes["busy_since"] = (since or now) if judge.busy else None
        self.keeper.set(state.STALLED if judge.stuck else state.SERVING, **changes)

    def ended(self, status: int) -> int:
        """The verdict on a child that is gone."""
        if self.stopping:
            processes.kill_all(self.child.pid)
            return self.keeper.stopped()
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        when = "while serving" if self.ready else "before it was ready"
        text = f"the engine ended with {how} {when}"
        return self.verdict(Finding(verdicts.ENGINE_EXIT, text), status)

    def verdict(self, found: Finding, status: Optional[int] = None) -> int:
        """Keep the evidence, end everything that the engine started, write down why."""
        if self.stopping and status is None:
            processes.kill_all(self.child.pid)
            return self.keeper.stopped()
        reason, text = found.reason, found.text
        sick = self.watching.sick()
        behind = next((name for name in SICK if name in sick), None)
        if behind is not None and reason != verdicts.PORT_CONFLICT:
            reason, text = behind, f"{text}; {sick[behind]}"
        path = self.keeper.evidence(reason, self.facts(text))
        left = processes.kill_all(self.child.pid)
        if left:
            text += f"; processes {left} do not die"
        self.watching.output.settle(OUTPUT_S)
        message = None
        if status is not None and not self.ready and reason == verdicts.ENGINE_EXIT:
            reason, text, message = self._of_configuration(text, status)
        return self.keeper.verdict(reason, text, path, self._kind(reason), message)

    def _of_configuration(self, text: str, status: int) -> tuple[str, str, Optional[str]]:
        """Reason, text and last words of an engine that ended while it loaded."""
        lines = self.watching.output.last()
        message = engine_output.message(lines)
        wrong = engine_output.configuration_error(lines, status)
        lasted_s = time.monotonic() - self.began
        if wrong is None and records.said_twice(self.keeper.state, message, lasted_s):
            wrong = f"as the time before: {lines[-1].strip()}"
        if wrong is None:
            return verdicts.ENGINE_EXIT, text, message if lasted_s < records.EARLY_S else None
        return verdicts.CONFIG, f"{text}: {wrong}", message

    def _kind(self, reason: str) -> Optional[str]:
        waits = self.watching.work.deadlocked or self.watching.ranks_wait
        return records.DEADLOCK if reason == verdicts.STALLED and waits else None

    def facts(self, text: str) -> Dict[str, Any]:
        """What the evidence holds beside processes."""
        watching, reading = self.watching, self.watching.cards.reading
        return {
            "text": text,
            "metrics_page": (watching.page_text or "")[:PAGE_CHARACTERS] or None,
            "metrics_status": watching.metrics.status if watching.metrics else None,
            "health_status": watching.health.status,
            "nvml": asdict(reading) if reading else None,
            "nvml_age_s": time.monotonic() - reading.at if reading else None,
            "kernel": watching.sick(),
            "needed": list(watching.tree.needed.values()),
            "output": watching.output.last(),
        }
