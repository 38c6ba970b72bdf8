"""A justification in sentences: the verdict first, then the numbers behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from multigpu import memory as m
from multigpu.choice.losers import UNSURE
from multigpu.labels import counted, label, rounded
from multigpu.plan import Candidate, Justification, Objective, Plan, Strategy

WORTH = 1.1
"""A second card that gives less than a tenth more is not worth its power."""
SAME = 0.03
"""Ratios that are one when rounded."""


class Sides(NamedTuple):
    """The best way over several cards, the best way on one, and copies of the latter."""

    several: Candidate | None
    one: Candidate | None
    copies: Candidate | None


def sentences(
    made: Justification, plan: Plan, sides: Sides, rates: Sequence[float | None]
) -> Iterator[str]:
    """The verdict, the numbers, what a split costs, and what else the cards could carry."""
    yield _verdict_sentence(made, plan)
    if made.verdict != "needed":
        yield from _numbers(made)
        yield from _cost_of_splitting(plan.chosen, sides, rates, made.concurrency)
    if made.verdict != "needed" or plan.model.weights_mib * 2 < _room(made):
        yield _carry(made)


def _verdict_sentence(made: Justification, plan: Plan) -> str:
    """Yes, no, or only for another objective."""
    objective = plan.workload.objective
    match made.verdict:
        case "needed":
            return f"Yes: one card is not enough: {_against_one(plan)}."
        case "worth-it" if made.gpus == 1:
            return f"Yes for {objective}, although the plan stays on one card."
        case "worth-it":
            return f"Yes, for {objective}{_unsure(_ratio_of(made, objective))}."
        case "not-worth-it":
            better = [str(o) for o in Objective if (_ratio_of(made, o) or 0) >= WORTH]
            if better:
                return f"Only for {' and '.join(better)}, not for {objective}."
            return f"No: one card holds {plan.model.name} and serves {objective} as well."
        case _:
            return "One card holds it and no speed is predicted: measure one against several."


def _ratio_of(made: Justification, objective: Objective) -> float | None:
    match objective:
        case Objective.THROUGHPUT:
            return made.throughput_ratio
        case Objective.CONTEXT:
            return made.context_ratio
        case _:
            return made.latency_ratio


def _unsure(ratio: float | None) -> str:
    """What is to be said of a gain that two predictions of one rig may miss."""
    if ratio is None or ratio >= 1 + UNSURE:
        return ""
    return ", by less than predictions miss: measure both"


def _against_one(plan: Plan) -> str:
    """What rules out one card, by the rejected single card with the most memory."""
    for item in plan.rejected:
        if item.candidate.strategy is Strategy.SINGLE:
            for reason in item.reasons:
                if reason.rule == "memory-fit":
                    return reason.found
    return "no way on a single card holds"


def _numbers(made: Justification) -> Iterator[str]:
    """`X against Y: 1.9 times the output at 16 requests, ...`."""
    parts = [
        text
        for ratio, what, counted_ in (
            (
                made.throughput_ratio,
                f"output tokens at {counted(made.concurrency, 'request')} at a time",
                False,
            ),
            (made.latency_ratio, "speed of one request", False),
            (made.context_ratio, "context", True),
        )
        if ratio is not None
        for text in [_times(ratio, what, exact=counted_)]
    ]
    if parts and made.label and made.one_card:
        yield f"{made.label} against {made.one_card}: {', '.join(parts)}."


def _times(ratio: float, what: str, *, exact: bool) -> str:
    """`1.9 times the context`, `the same context`; small differences of speeds are called so."""
    if abs(ratio - 1) < SAME:
        return f"the same {what}"
    text = f"{rounded(ratio)} times the {what}"
    close = not exact and 1 / (1 + UNSURE) < ratio < 1 + UNSURE
    return f"{text} (within the uncertainty)" if close else text


def _cost_of_splitting(
    chosen: Candidate, sides: Sides, rates: Sequence[float | None], concurrency: int
) -> Iterator[str]:
    """A model that fits one card is not split without saying what copies would give instead."""
    is_split = len(chosen.gpus) > chosen.replicas
    several, copies = sides.several, sides.copies
    if several is None or several.replicas == len(several.gpus) or sides.one is None:
        return
    split, copied = rates[0], rates[2]
    if copies is None or split is None or copied is None:
        if is_split:
            yield "It is split although one card holds it: what copies would give is not known."
        return
    gives = f"{rounded(copied)} tok/s at {concurrency} requests against {rounded(split)} split"
    if 1 / (1 + UNSURE) < copied / split < 1 + UNSURE:
        yield f"Splitting or not is the same within the uncertainty: {label(copies)} gives {gives}."
    elif copied > split:
        share = f"{1 - split / copied:.0%}".replace("%", " %")
        if is_split:
            said = f"It is split although one card holds it: {label(copies)} gives {gives}"
            yield f"{said}, the split costs {share} of that."
        else:
            yield f"A split would cost {share} of the output: {label(copies)} gives {gives}."
    else:
        yield f"Splitting costs nothing here: {label(copies)} gives {gives}."


def _room(made: Justification) -> float:
    """MiB of weights in 16 bits that all cards could carry."""
    widest = max(made.sizes, key=lambda size: size.bits)
    return widest.billions * 1e9 * 2 / m.MIB


def _carry(made: Justification) -> str:
    together = ", ".join(f"{rounded(s.billions)}B at {s.bits} bit" for s in made.sizes)
    each = ", ".join(f"{rounded(s.per_card_billions)}B at {s.bits} bit" for s in made.sizes)
    return f"These cards could carry {together} in one engine, or a copy on each of {each}."
