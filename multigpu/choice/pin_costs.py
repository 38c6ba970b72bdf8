"""What a pin costs: the best of the ways that nothing but the operator's pins rules out.

They were proposed and sized with the others, so only their speed is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from multigpu.choice import ranking
from multigpu.choice.doubts import Predict
from multigpu.hardware import Host
from multigpu.labels import label
from multigpu.page.speed_text import speeds
from multigpu.plan import Candidate, ModelSpec, Objective, Reason, Rejected, Wish, Workload


def pin_costs(
    chosen: Candidate,
    rejected: Sequence[Rejected],
    host: Host,
    model: ModelSpec,
    wish: Wish,
    load: Workload,
    predict: Predict,
) -> Iterator[Reason]:
    """One warning where another way is predicted to be clearly better than the pinned one."""
    free = [
        replace(item.candidate, predicted=predict(item.candidate, load))
        for item in rejected
        if only_pinned(item)
    ]
    if not free:
        return
    # Both are timed at the plan's own load, also where each would be at its own concurrency.
    best = ranking.order([chosen, *free], host, model, wish, load)[0]
    if best is chosen:
        return
    found = f"{label(best)} would give {_worth(best, model, load)} against"
    keys = ", ".join(key for key in WAY if getattr(wish, key) is not None)
    yield Reason(
        "pin-costs",
        f"{found} {_worth(chosen, model, load)}",
        None,
        f"leave {keys} free to have it, or measure both",
    )


WAY = (
    "runtime",
    "strategy",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "layers",
    "expert_parallel",
    "gpus",
)
"""Keys of the wish that fix the way of serving."""


def only_pinned(item: Rejected) -> bool:
    """It fits, and only pins stand against it."""
    if any(reason.rule != "pinned" for reason in item.reasons):
        return False
    return bool(item.candidate.memory) and all(card.fits for card in item.candidate.memory)


def _worth(way: Candidate, model: ModelSpec, load: Workload) -> str:
    """What the objective asks for, in numbers."""
    if load.objective is Objective.CONTEXT:
        return f"{ranking.longest(way, model, load):,} tokens in one request"
    if way.predicted is None or way.predicted.tpot_ms is None:
        return "an unknown speed"
    return speeds(way, load)
