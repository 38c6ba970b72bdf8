"""Keeps the state file of one supervisor, and writes down its verdict with what was behind it."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, replace
from typing import Any, Dict, Optional

from multigpu.host import evidence, fence, records, requests, state, verdicts
from multigpu.host.notify import notify, say
from multigpu.host.state import LastVerdict

REWRITTEN_S = 5.0
"""So old the file gets at most while the supervisor lives."""
CRITICAL, ERROR = 2, 3
ASKED = {verdicts.RESET_REQUIRED: requests.GPU_RESET, verdicts.GPU_LOST: requests.REBOOT}
"""What root's unit is asked for, where there is one: a lost card comes back with a reboot only."""


class Keeper:
    """The state of a service; without a directory it is only remembered."""

    def __init__(self, directory: Optional[str], named: Dict[str, Any]) -> None:
        self.directory = directory
        self.path = state.path_of(directory, named["service"]) if directory else None
        self.state = state.read(self.path) if self.path else state.EMPTY
        self.written = 0.0
        named = {
            **named,
            "revision": os.environ.get("MULTIGPU_REVISION"),
            "invocation": os.environ.get("INVOCATION_ID"),
        }
        self.before = self.state
        self.state = records.begun(self.state, time.time(), os.getpid(), named)

    def set(self, name: str, **changes: Any) -> None:
        """Another moment of the same process; written when its name changed or it got old."""
        changed = name != self.state.state
        since = time.time() if changed else self.state.since
        self.state = replace(self.state, state=name, since=since, **changes)
        if changed or time.monotonic() - self.written >= REWRITTEN_S:
            self.write()

    def write(self) -> None:
        """Now. What cannot be written is not: an engine goes on without."""
        self.written = time.monotonic()
        if self.path:
            state.write(self.path, self.state)

    def deadlocks(self) -> int:
        """How often ranks waited for each other within the last hour."""
        return records.counted(self.state.history, "kind", records.DEADLOCK, time.time())

    def stopped(self) -> int:
        """A clean end."""
        self.set(state.STOPPED, backoff=state.Backoff(), message=None)
        self.write()
        notify("STATUS=stopped")
        return 0

    def evidence(self, reason: str, facts: Dict[str, Any]) -> Optional[str]:
        """Keep what is known before anything is killed; the path, None without one."""
        if self.directory is None:
            return None
        folder = os.path.join(self.directory, "evidence")
        found = {"reason": reason, "at": time.time(), "state": asdict(self.state), **facts}
        return evidence.keep(folder, self.state.service, reason, found)

    def verdict(
        self,
        reason: str,
        text: str,
        evidence_path: Optional[str] = None,
        kind: Optional[str] = None,
        message: Optional[str] = None,
    ) -> int:
        """Write it down, say it in one line, put up the fence where a restart cannot help."""
        now, status = time.time(), verdicts.exit_status(reason)
        last = LastVerdict(reason, text, now, status, evidence_path, self.state.invocation)
        self.state = records.recorded(self.state, last, kind, message)
        why = records.fence_reason(self.state, now, fence.reactions())
        if why is not None:
            self.fence(reason, f"{why}: {text}")
        elif reason in ASKED and fence.reactions():
            self.ask(reason, text, evidence_path)
        self.write()
        notify(f"STATUS={text}")
        say(text, ERROR)
        return status

    def ask(self, reason: str, text: str, evidence_path: Optional[str]) -> None:
        """Leave a request for root's unit, which looks for itself and may refuse."""
        if self.directory is None:
            return
        what = ASKED[reason]
        failed = requests.ask(self.directory, what, (), reason, text=text, evidence=evidence_path)
        say(failed or f"{self.state.service} asks for {what}: {text}", ERROR)

    def fence(self, reason: str, text: str) -> None:
        """No start until a person removes the mark."""
        self.state = replace(self.state, state=state.FENCED)
        if fence.put_up(self.directory, reason, text, time.time()):
            path = fence.path(self.directory or "")
            say(f"{self.state.service} stays down: {text}; do: mend it, then rm {path}", CRITICAL)
