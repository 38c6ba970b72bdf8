"""A source of samples that may hang: asked in a thread of its own, waited for with a deadline.

NVML can block for ever on a sick card (Xid 119: its firmware does not answer). A question without
an answer is not asked again until it ends; meanwhile the source is down, and says for how long.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Callable, Generic, List, Optional, TypeVar

from multigpu.host.exporter_table import Sample

Answer = TypeVar("Answer")


class Source(Generic[Answer]):
    """`ask` is called in a thread; whatever it raises is an error of the source, in one line."""

    def __init__(self, name: str, ask: Callable[[], Answer], deadline_s: float) -> None:
        self.name, self.ask, self.deadline_s = name, ask, deadline_s
        self.errors, self.duration_s = 0, 0.0
        self.succeeded_at: Optional[float] = None
        self.is_up = False
        self._asked_at: Optional[float] = None
        self._done = threading.Event()
        self._answer: Optional[Answer] = None
        self._said: Optional[str] = None

    def answer(self) -> Optional[Answer]:
        """What the source says now; None when it fails or takes longer than its deadline."""
        asked_at = self.begin()
        in_time = self._done.wait(max(0.0, asked_at + self.deadline_s - time.monotonic()))
        if not in_time:
            self._failed(f"no answer within {self.deadline_s:g} s")
            return None
        answer, self._asked_at = self._answer, None
        if answer is not None:
            self.is_up, self._said = True, None
        return answer

    def begin(self) -> float:
        """Ask, unless an earlier question is still open; returns when it was asked (monotonic)."""
        if self._asked_at is not None:
            return self._asked_at
        self._asked_at, self._answer = time.monotonic(), None
        self._done = threading.Event()
        threading.Thread(target=self._work, name=self.name, daemon=True).start()
        return self._asked_at

    def _work(self) -> None:
        started = time.monotonic()
        try:
            self._answer = self.ask()
            self.succeeded_at = time.time()
        except Exception as error:  # a bug in one source must not take the others along
            self._failed(f"{type(error).__name__}: {error}")
        self.duration_s = time.monotonic() - started
        self._done.set()

    def _failed(self, why: str) -> None:
        self.is_up = False
        self.errors += 1
        if why != self._said:  # once, not at every scrape
            print(f"multigpu: {self.name}: {why}", file=sys.stderr, flush=True)
        self._said = why

    def samples(self) -> List[Sample]:
        """The source's own health."""
        waiting_s = 0.0 if self._asked_at is None else time.monotonic() - self._asked_at
        values = {
            "up": float(self.is_up),
            "errors_total": self.errors,
            "duration_seconds": self.duration_s,
            "waiting_seconds": waiting_s,
            "last_success_timestamp_seconds": self.succeeded_at,
        }
        return [
            Sample(f"multigpu_exporter_source_{name}", {"source": self.name}, value)
            for name, value in values.items()
            if value is not None
        ]
