"""The most requests at a time under a bound, where a wish for throughput does not say how many.

A bound on the time to the first token or per token limits how many requests an engine may run at
once; ways of serving differ in that limit. Each candidate is timed at its own, as a published
comparison under a bound does.
"""

from __future__ import annotations

from collections.abc import Callable

from multigpu.choice.ranking import holds_all, missed
from multigpu.memo import changed
from multigpu.plan import Candidate, Objective, Prediction, Wish, Workload

STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Requests per engine that are tried: bisection over them takes five predictions."""

Predict = Callable[[Candidate, Workload], Prediction]
"""The speed of a candidate under a workload."""


def searched(wish: Wish, load: Workload) -> bool:
    """True where the concurrency follows from a bound."""
    bound = load.tpot_ms is not None or load.ttft_ms is not None
    return bound and load.objective is Objective.THROUGHPUT and wish.concurrency is None


def at_most(candidate: Candidate, load: Workload, predict: Predict) -> tuple[Workload, Candidate]:
    """The workload with the most requests that meet the bounds, and the candidate timed at it.

    None waits for memory. One request per engine where even that misses a bound.
    """
    copies = max(1, candidate.replicas)
    most = candidate.max_num_seqs or STEPS[-1]
    steps = [step for step in STEPS if step <= most]
    found = _timed(candidate, changed(load, concurrency=copies), predict)
    low, high = 0, len(steps) - 1
    while low < high:
        middle = (low + high + 1) // 2
        tried = _timed(candidate, changed(load, concurrency=copies * steps[middle]), predict)
        if missed(tried[1], tried[0]) or not holds_all(tried[1], tried[0]):
            high = middle - 1
        else:
            low, found = middle, tried
    return found


def _timed(candidate: Candidate, load: Workload, predict: Predict) -> tuple[Workload, Candidate]:
    return load, changed(candidate, predicted=predict(candidate, load))
