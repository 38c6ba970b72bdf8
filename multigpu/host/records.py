"""What a state becomes when a process begins and ends: restarts, backoff, fence. Values only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, List, Optional

from multigpu.host import verdicts
from multigpu.host.state import (
    BACKING_OFF,
    FENCED,
    GAVE_UP,
    HISTORY,
    STOPPED,
    Backoff,
    LastVerdict,
    State,
)

HOUR_S = 3600.0
WORKED_S = 600.0
"""After so long an engine has worked, and the next failure is the first one."""
EARLY_S = 60.0
LONGEST_S = 300.0
DEADLOCK = "deadlock"
"""`kind` of a stall while every card was fully used at little power: a collective that waits."""
MOST_DEADLOCKS, MOST_LOST = 3, 2


def delay_s(failures: int, first_s: float) -> float:
    """How long to wait before the next start: 0, `first_s`, 3, 7, 15 ... times that, 5 min at most.

    systemd has waited `first_s` (RestartSec=) already: together 1, 2, 4, 8 ... times.
    """
    if failures < 2:
        return 0.0
    return min(first_s * 2.0 ** min(failures - 1, 20), LONGEST_S) - min(first_s, LONGEST_S)


def begun(before: State, now: float, pid: int, named: Dict[str, Any]) -> State:
    """The state of a process that starts. `named` are service, wish, runtime, revision, invocation.

    Another revision, and a start after it had given up or was stopped, begin anew: somebody did so.
    """
    anew = before.revision != named.get("revision") or before.state in (GAVE_UP, FENCED, STOPPED)
    return replace(
        before,
        **named,
        state=BACKING_OFF,
        since=now,
        pid=pid,
        ready_at=None,
        progress_at=None,
        busy_since=None,
        running=None,
        waiting=None,
        tokens_total=None,
        kv_usage=None,
        backoff=Backoff() if anew else before.backoff,
        message=None if anew else before.message,
    )


def recorded(
    before: State,
    verdict: LastVerdict,
    kind: Optional[str] = None,
    message: Optional[str] = None,
) -> State:
    """The state after a verdict: exactly one restart more."""
    worked = before.ready_at is not None and verdict.at - before.ready_at >= WORKED_S
    failures = 1 if worked else before.backoff.n + 1
    counts = {**before.restarts, verdict.reason: before.restarts.get(verdict.reason, 0) + 1}
    item = {"reason": verdict.reason, "at": verdict.at, "kind": kind}
    return replace(
        before,
        state=BACKING_OFF,
        since=verdict.at,
        restarts=counts,
        last_verdict=verdict,
        backoff=Backoff(failures),
        history=[*before.history, item][-HISTORY:],
        message=message,
    )


def corrected(before: State, reason: str, text: str, at: float, invocation: str) -> State:
    """What systemd says of an end: counted once, also where we had another name for it.

    When the kernel kills one process for memory, the supervisor only sees that it is gone.
    """
    last = before.last_verdict
    verdict = LastVerdict(reason, text, at, None, None, invocation)
    if last is None or not invocation or last.invocation != invocation:
        return recorded(before, verdict)
    if last.reason == reason:
        return before
    counts = {**before.restarts, last.reason: max(0, before.restarts.get(last.reason, 0) - 1)}
    back = replace(before, restarts=counts, history=before.history[:-1])
    again = recorded(back, replace(verdict, evidence=last.evidence), message=before.message)
    return replace(again, backoff=before.backoff)


def counted(history: List[Dict[str, Any]], key: str, value: str, now: float) -> int:
    """How many verdicts of the last hour have this reason or kind."""
    return sum(item.get(key) == value and now - item["at"] <= HOUR_S for item in history)


def fence_reason(state: State, now: float, reactions: bool) -> Optional[str]:
    """Why another start cannot help, in one line; None while it can.

    Where a root unit may reset cards or reboot, lost cards are its business.
    """
    reason = state.last_verdict.reason if state.last_verdict else None
    if counted(state.history, "kind", DEADLOCK, now) >= MOST_DEADLOCKS:
        return "the ranks waited for each other three times within an hour"
    if reactions:
        return None
    if reason == verdicts.RESET_REQUIRED:
        return "a card needs a reset, and nobody here may do that"
    if counted(state.history, "reason", verdicts.GPU_LOST, now) >= MOST_LOST:
        return "a card was lost twice within an hour"
    return None


def said_twice(state: State, message: Optional[str], lasted_s: float) -> bool:
    """The same last words as the time before, both times soon after the start."""
    return message is not None and lasted_s < EARLY_S and state.message == message
