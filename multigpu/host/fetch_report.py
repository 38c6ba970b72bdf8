"""How far a fetch is: a status file for the deploy that waits, a line in the journal now and then.

`status.json` in the model's directory: {"schema", "state": fetching | failed, "bytes_done",
"bytes_total", "mib_per_s", "seconds_left", "file", "reason"}; unknown is null. It goes when all is
complete: the stamp says that.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from typing import Any, Deque, Dict, Optional, Tuple

from multigpu.host.fetch_disk import remove

SCHEMA = 1
STATUS = "status.json"
STATUS_EVERY_S, LINE_EVERY_S = 1.0, 15.0
WINDOW_S = 20.0
"""The speed is that of so many last seconds."""


def size(count: int) -> str:
    """Bytes as MiB, from 1 GiB on as GiB."""
    return f"{count / 2**20:.1f} MiB" if count < 2**30 else f"{count / 2**30:.2f} GiB"


class Report:
    """Counts bytes that are there and verified on arrival. Used by several threads at once."""

    def __init__(self, directory: str, total_bytes: int) -> None:
        self.path = os.path.join(directory, STATUS)
        self.total, self.done = total_bytes, 0
        self.file: Optional[str] = None
        self._lock = threading.Lock()
        now = time.monotonic()
        self._seen: Deque[Tuple[float, int]] = deque([(now, 0)])
        self._written, self._said = 0.0, now - LINE_EVERY_S + 2

    def gained(self, count: int, file: str, received: bool) -> None:
        """So many bytes more (or less) of this file; `received` over the network, not read here."""
        with self._lock:
            self.done += count
            self.file = file
            now = time.monotonic()
            if not received:  # hashing what is there must not look like a fast network
                self._seen = deque([(now, self.done)])
            elif now - self._seen[-1][0] >= 0.2:
                self._seen.append((now, self.done))
            while len(self._seen) > 2 and now - self._seen[0][0] > WINDOW_S:
                self._seen.popleft()
            if now - self._written >= STATUS_EVERY_S:
                self._written = now
                self._write("fetching", None)
            if now - self._said >= LINE_EVERY_S:
                self._said = now
                print(self.line(), flush=True)

    def mib_per_s(self) -> Optional[float]:
        """Speed of the last seconds; None before there is one."""
        (began, had), (now, has) = self._seen[0], self._seen[-1]
        return None if now - began < 0.2 or has < had else (has - had) / 2**20 / (now - began)

    def seconds_left(self) -> Optional[float]:
        """At the speed of the last seconds; None where nothing moves."""
        speed = self.mib_per_s()
        return (self.total - self.done) / 2**20 / speed if speed else None

    def line(self) -> str:
        """One line for a person."""
        percent = 100 * self.done // max(self.total, 1)
        speed = self.mib_per_s()
        rate = "" if speed is None else f", {speed:.1f} MiB/s"
        of = f"{size(self.done)} of {size(self.total)}"
        return f"{percent} % ({of}){rate}: {self.file or ''}"

    def failed(self, reason: str) -> None:
        """Keep the reason for the deploy that waits, or the next one."""
        with self._lock:
            self._write("failed", reason)

    def complete(self) -> None:
        """The stamp speaks from now on."""
        remove(self.path)

    def _write(self, state: str, reason: Optional[str]) -> None:
        speed, left = self.mib_per_s(), self.seconds_left()
        status: Dict[str, Any] = {
            "schema": SCHEMA,
            "state": state,
            "bytes_done": self.done,
            "bytes_total": self.total,
            "mib_per_s": None if speed is None else round(speed, 1),
            "seconds_left": None if left is None else round(left),
            "file": self.file,
            "reason": reason,
        }
        try:
            with open(self.path + ".new", "w", encoding="utf-8") as file:
                json.dump(status, file)
            os.replace(self.path + ".new", self.path)
        except OSError:
            pass  # a full disk is said by the file that did not fit
