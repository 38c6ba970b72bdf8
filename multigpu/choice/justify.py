"""Does this model justify the second card? What one card would give against several, in numbers.

Asked on every host with two or more cards. The comparison is at the plan's own workload and, for
throughput, at a busy one: with one user two cards never look busy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from multigpu import memory as m
from multigpu.choice.could_carry import sizes
from multigpu.choice.justify_text import WORTH, Sides, sentences
from multigpu.choice.losers import RANKED
from multigpu.choice.ranking import missed, request_ms
from multigpu.groups import pool
from multigpu.hardware import Host
from multigpu.labels import label
from multigpu.memo import changed, memo
from multigpu.plan import (
    Candidate,
    Justification,
    Objective,
    Plan,
    Prediction,
    Rejected,
    Workload,
)
from multigpu.speed.measured import Measurement, judged

BUSY = 16
"""Requests at a time at which throughput is compared where fewer are planned for."""
Speed = Callable[[Candidate, Workload], Prediction]


class Ratios(NamedTuple):
    """Several cards over one card; above 1 in favour of several, None where unknown."""

    throughput: float | None
    latency: float | None
    context: float | None

    def of(self, objective: Objective) -> float | None:
        """The one that the objective asks for."""
        match objective:
            case Objective.THROUGHPUT:
                return self.throughput
            case Objective.CONTEXT:
                return self.context
            case _:
                return self.latency


def justify(plan: Plan, host: Host, measured: Sequence[Measurement] = ()) -> Justification | None:
    """The comparison with one card; None where the plan has no second card to speak of.

    `measured` are results of this rig, which replace predictions.
    """

    def speed(way: Candidate, load: Workload) -> Prediction:
        return judged(way, host, plan.model, load, measured)

    gpus = pool(host, plan.wish.gpus)
    if len(gpus) < 2:
        return None
    sides = _sides(plan, speed)
    busy = _busy(plan.workload)
    rates = [_rate(way, plan.workload, busy, speed) for way in sides]
    found = _ratios(sides, rates, plan.workload)
    verdict = _verdict(sides, found, plan.workload)
    made = Justification(
        verdict=verdict,
        gpus=len(plan.chosen.gpus),
        usable=len(gpus),
        concurrency=busy.concurrency,
        label=label(sides.several) if sides.several else None,
        one_card=label(sides.one) if sides.one else None,
        throughput_ratio=found.throughput,
        latency_ratio=found.latency,
        context_ratio=found.context,
        sizes=sizes(plan, host, gpus),
    )
    return changed(made, sentences=tuple(sentences(made, plan, sides, rates)))


def _busy(load: Workload) -> Workload:
    """With `BUSY` requests at a time where there are fewer; kept with the workload."""
    if load.concurrency >= BUSY:
        return load
    known = memo(load)
    if "busy" not in known:
        known["busy"] = changed(load, concurrency=BUSY)
    found: Workload = known["busy"]
    return found


def _sides(plan: Plan, speed: Speed) -> Sides:
    """Candidates that hold, also those that only a pin rules out; the best of each kind."""
    ways = [plan.chosen, *(item.candidate for item in plan.rejected if _comparable(item))]
    timed = (_timed(way, plan.workload, speed) for way in ways)
    several = one = copies = None
    for way in timed:
        if len(way.gpus) == 1:
            one = one or way
        else:
            several = several or way
            if way.replicas == len(way.gpus):
                copies = copies or way
    return Sides(several, one, copies)


def _comparable(item: Rejected) -> bool:
    """It holds, or only a pin of the operator stands against it."""
    # What only ranks lower was asked already whether it fits.
    if item.reasons[0].rule in RANKED:
        return True
    if not all(reason.rule == "pinned" for reason in item.reasons):
        return False
    return bool(item.candidate.memory) and all(card.fits for card in item.candidate.memory)


def _timed(way: Candidate, load: Workload, speed: Speed) -> Candidate:
    if way.predicted is not None:
        return way
    return changed(way, predicted=speed(way, load))


def _rate(way: Candidate | None, load: Workload, busy: Workload, speed: Speed) -> float | None:
    """Output tokens per second of the whole service at the busy workload."""
    if way is None:
        return None
    found = way.predicted if busy is load else speed(way, busy)
    if found is None or found.decode_tokens_per_s is None:
        return None
    return found.decode_tokens_per_s.value


def _ratios(sides: Sides, rates: Sequence[float | None], load: Workload) -> Ratios:
    if sides.several is None or sides.one is None:
        return Ratios(None, None, None)
    return Ratios(
        _ratio(rates[0], rates[1]),
        _ratio(request_ms(sides.one, load), request_ms(sides.several, load)),
        _ratio(_longest(sides.several), _longest(sides.one)),
    )


def _ratio(a: float | None, b: float | None) -> float | None:
    return round(a / b, 3) if a and b else None


def _longest(way: Candidate) -> float:
    """Tokens that one engine could cache."""
    return float(max(way.context_limit or 0, m.headroom_tokens(way)))


def _verdict(sides: Sides, found: Ratios, load: Workload) -> str:
    if sides.one is None:
        return "needed"
    if sides.several is None:
        return "not-worth-it"
    if missed(sides.one, load) and not missed(sides.several, load):
        return "worth-it"
    gain = found.of(load.objective)
    if gain is None:
        return "unknown"
    return "worth-it" if gain >= WORTH else "not-worth-it"
