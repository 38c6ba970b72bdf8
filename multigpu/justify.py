"""Does this model justify the second card? What one card would give against several, in numbers.

Asked on every host with two or more cards. The comparison is at the plan's own workload and, for
throughput, at a busy one: with one user two cards never look busy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import floor
from typing import NamedTuple

from multigpu import memory as m
from multigpu.groups import pool
from multigpu.hardware import Gpu, Host
from multigpu.labels import counted, label, rounded
from multigpu.losers import RANKED
from multigpu.plan import (
    Candidate,
    Justification,
    ModelSize,
    Objective,
    Plan,
    Rejected,
    Strategy,
    Workload,
)
from multigpu.ranking import missed, request_ms
from multigpu.speed import predict

WORTH = 1.1
"""A second card that gives less than a tenth more is not worth its power."""
BUSY = 16
"""Requests at a time at which throughput is compared where fewer are planned for."""
# Bits per weight as files and checkpoints really take them. Q4_K_M 4.8 to 4.9 (llama.cpp,
# tools/quantize/README.md, Llama 3.1 8B: 4.89), AWQ and GPTQ with groups of 128 4.25 in the linear
# layers and 16 in embedding and head; Q8_0 is 8.5 exactly.
EFFECTIVE_BITS = {4: 4.85, 8: 8.5, 16: 16.0}
KV_SHARE = 0.1
"""Left for KV cache when the largest model is computed; a request of a few thousand tokens."""
USABLE_SHARE = 0.92
"""vLLM's default for --gpu-memory-utilization (0.33.0)."""
CONTEXT_MIB = 2048
"""Activations, CUDA graphs and context where the plan does not say them of a card."""


class Sides(NamedTuple):
    """The best way over several cards, the best way on one, and copies of the latter."""

    several: Candidate | None
    one: Candidate | None
    copies: Candidate | None


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


def justify(plan: Plan, host: Host) -> Justification | None:
    """The comparison with one card; None where the plan has no second card to speak of."""
    gpus = pool(host, plan.wish.gpus)
    if len(gpus) < 2:
        return None
    sides = _sides(plan, host)
    busy = replace(plan.workload, concurrency=max(plan.workload.concurrency, BUSY))
    rates = [_rate(way, host, plan, busy) for way in sides]
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
    return replace(made, sentences=tuple(_sentences(made, plan, sides, rates)))


def _sides(plan: Plan, host: Host) -> Sides:
    """Candidates that hold, also those that only a pin rules out; the best of each kind."""
    ways = [plan.chosen, *(item.candidate for item in plan.rejected if _comparable(item))]
    timed = (_timed(way, host, plan) for way in ways)
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
    """It holds, or only a pin of the operator stands against it; expert or not, it has memory."""
    if not all(reason.rule in (*RANKED, "pinned") for reason in item.reasons):
        return False
    return bool(item.candidate.memory) and all(card.fits for card in item.candidate.memory)


def _timed(way: Candidate, host: Host, plan: Plan) -> Candidate:
    if way.predicted is not None:
        return way
    return replace(way, predicted=predict(way, host, plan.model, plan.workload))


def _rate(way: Candidate | None, host: Host, plan: Plan, busy: Workload) -> float | None:
    """Output tokens per second of the whole service at the busy workload."""
    if way is None:
        return None
    same = busy.concurrency == plan.workload.concurrency
    found = way.predicted if same else predict(way, host, plan.model, busy)
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


def sizes(plan: Plan, host: Host, gpus: Sequence[Gpu]) -> tuple[ModelSize, ...]:
    """The largest models that these cards could carry instead, by bits per weight.

    One engine over all cards has their sum (a pipeline or layer split reaches it on any mix), a
    copy on every card what the smallest holds.
    """
    vendor = host.gpu(plan.chosen.gpus[0]).vendor
    alike = [gpu for gpu in gpus if gpu.vendor is vendor]
    fixed = max(
        (c.activations_mib + c.graphs_mib + c.overhead_mib for c in plan.chosen.memory),
        default=CONTEXT_MIB,
    )
    rooms = [
        max(0.0, USABLE_SHARE * m.free_mib(gpu, plan.wish) - fixed) * (1 - KV_SHARE)
        for gpu in alike
    ]
    return tuple(
        ModelSize(bits, _billions(sum(rooms), effective), _billions(min(rooms), effective))
        for bits, effective in EFFECTIVE_BITS.items()
    )


def _billions(room_mib: float, bits: float) -> float:
    """Parameters in 1e9, rounded down to a tenth."""
    return floor(room_mib * m.MIB * 8 / bits / 1e8) / 10


def _sentences(
    made: Justification, plan: Plan, sides: Sides, rates: Sequence[float | None]
) -> Iterator[str]:
    """The verdict, the numbers, what a split costs, and what else the cards could carry."""
    yield _verdict_sentence(made, plan)
    if made.verdict != "needed":
        yield from _numbers(made)
        yield from _cost_of_splitting(sides, rates, made.concurrency)
    if made.verdict != "needed" or plan.model.weights_mib * 2 < _room(made):
        yield _carry(made)


def _verdict_sentence(made: Justification, plan: Plan) -> str:
    more = counted(made.usable - 1, "more card")
    match made.verdict:
        case "needed":
            return f"One card is not enough: {_against_one(plan)}."
        case "worth-it" if made.gpus == 1:
            return f"The plan stays on one card; {more} would serve {plan.workload.objective}."
        case "worth-it":
            return f"The model justifies {counted(made.gpus, 'card')}."
        case "not-worth-it":
            return (
                f"One card holds {plan.model.name}; for {plan.workload.objective} it does not "
                + (f"justify {more}.")
            )
        case _:
            return (
                "One card holds the model; no speed is predicted, so measure one against several."
            )


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
        for ratio, text in (
            (made.throughput_ratio, f"the output tokens at {made.concurrency} requests at a time"),
            (made.latency_ratio, "the speed of one request"),
            (made.context_ratio, "the context"),
        )
        if ratio is not None
        for text in [f"{rounded(ratio)} times {text}"]
    ]
    if parts and made.label and made.one_card:
        yield f"{made.label} against {made.one_card}: {', '.join(parts)}."


def _cost_of_splitting(
    sides: Sides, rates: Sequence[float | None], concurrency: int
) -> Iterator[str]:
    """A model that fits one card is not split without saying what copies would give instead."""
    several, copies = sides.several, sides.copies
    if several is None or several.replicas == len(several.gpus) or sides.one is None:
        return
    split, copied = rates[0], rates[2]
    if copies is None or split is None or copied is None:
        yield "It is split although one card holds it: what copies would give is not known."
        return
    gives = f"{rounded(copied)} tok/s at {concurrency} requests against {rounded(split)} split"
    if copied > split:
        cost = f"the split costs {1 - split / copied:.0%} of that".replace("%", " %")
        yield f"It is split although one card holds it: {label(copies)} gives {gives}, {cost}."
    else:
        yield f"Splitting costs nothing here: {label(copies)} gives {gives}."


def _room(made: Justification) -> float:
    """MiB of weights in 16 bits that all cards could carry."""
    widest = max(made.sizes, key=lambda size: size.bits)
    return widest.billions * 1e9 * 2 / m.MIB


def _carry(made: Justification) -> str:
    together = ", ".join(f"{rounded(s.billions)}B at {s.bits} bit" for s in made.sizes)
    each = ", ".join(f"{rounded(s.per_card_billions)}B at {s.bits} bit" for s in made.sizes)
    return (
        f"The {made.usable} cards could carry {together} in one engine, "
        f"or a copy on each of {each}."
    )
