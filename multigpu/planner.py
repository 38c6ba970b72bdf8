"""From a host, a model and a wish to a plan: propose, object, rank, and keep every reason.

`plan` is a pure function. Every candidate is either the chosen one or rejected with a reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

from multigpu import ranking, rules
from multigpu.assumptions import assumptions
from multigpu.changes import changes
from multigpu.doubts import doubts
from multigpu.environment import doubtful, settings
from multigpu.errors import NoPlan
from multigpu.groups import slow
from multigpu.hardware import Host
from multigpu.justify import justify
from multigpu.labels import cards, label, runtime_name
from multigpu.losers import Contest, considered
from multigpu.measured import Measurement, judged
from multigpu.pins import check_pins, pinned_keys
from multigpu.plan import (
    Candidate,
    ModelSpec,
    Plan,
    Prediction,
    Reason,
    Rejected,
    Strategy,
    Wish,
    Workload,
)
from multigpu.runtimes import RUNTIMES, runtime
from multigpu.runtimes.vllm_memory import GPU_MEMORY_UTILIZATION
from multigpu.strengths import strengths
from multigpu.workload import workload

__all__ = ["COMPARED", "considered", "plan", "sift"]

COMPARED = {"memory-fit", "ranked-lower", "close-second"}
"""Rules whose `found` already compares with what is needed."""


def plan(host: Host, model: ModelSpec, wish: Wish, *, measured: Sequence[Measurement] = ()) -> Plan:
    """The best way to serve a model on one host, or NoPlan with everything that was tried.

    `measured` are results of this rig; those of the same way of serving the same model replace its
    prediction. Raises WishError when pins contradict each other, the host or the model.
    """
    check_pins(host, model, wish)
    load = workload(model, wish)
    holding, rejected = sift(host, model, wish)
    if not holding:
        raise NoPlan(
            _refusal(host, model, wish, rejected),
            tuple(rejected),
            wish.name,
            model=model,
            wish=wish,
            changes=tuple(changes(rejected, host, model, wish)),
        )
    timed = [replace(c, predicted=judged(c, host, model, load, measured)) for c in holding]
    chosen, *lower = ranking.order(timed, host, model, wish, load)
    contest = Contest(chosen, host, model, wish, load)
    lost = [Rejected(rival, (contest.lost(rival),)) for rival in lower]
    second = lower[0] if lower else None
    made = Plan(
        host=host.name,
        wish=wish,
        model=model,
        chosen=chosen,
        gpu_uuids=tuple(host.gpu(index).uuid for index in chosen.gpus),
        reasons=tuple(_reasons(chosen, second, host, wish, load, rejected)),
        rejected=(*lost, *rejected),
        warnings=tuple(_warnings((chosen, *lower), host, model, wish, load, measured)),
        environment=settings(host, model, chosen, wish),
        pinned=pinned_keys(wish),
        simulated=host.simulated,
        workload=load,
        assumptions=tuple(assumptions(chosen, host, model, wish, load)),
        gpu_names=tuple(host.gpu(index).name for index in chosen.gpus),
    )
    return replace(made, justification=justify(made, host, measured))


def sift(host: Host, model: ModelSpec, wish: Wish) -> tuple[list[Candidate], list[Rejected]]:
    """Candidates without objections, and the others with theirs, in the order of proposal."""
    holding: list[Candidate] = []
    rejected: list[Rejected] = []
    for module in RUNTIMES:
        for candidate in module.candidates(host, model, wish):
            reasons = tuple(
                chain(
                    rules.objections(candidate, host, model, wish),
                    module.objections(candidate, host, model, wish),
                    rules.memory_fit(candidate),
                )
            )
            if reasons:
                rejected.append(Rejected(candidate, reasons))
            else:
                holding.append(candidate)
    return holding, rejected


def _refusal(host: Host, model: ModelSpec, wish: Wish, rejected: list[Rejected]) -> str:
    """One line: what was found, what stands against the nearest way, what to do."""
    start, broken = f"{host.name}: no plan for {wish.name}", _broken(host)
    if not rejected:
        count = f"{len(host.gpus)} card{'' if len(host.gpus) == 1 else 's'}"
        found = f"{count}, none usable" if host.gpus else "no GPU was found"
        return "; ".join([f"{start}: {found}", *broken, "do: look at it with deploys/survey.py"])
    nearest = _nearest(rejected)
    reason = nearest.reasons[0]
    against = reason.found
    if reason.needed is not None and reason.rule not in COMPARED:
        against += f", needs {reason.needed}"
    ways = f"{len(rejected)} way{'' if len(rejected) == 1 else 's'}"
    parts = [
        f"{start}: none of {ways} to serve {model.name} holds",
        f"nearest is {label(nearest.candidate)}: {against}",
        *(f"left out {card}" for card in broken),
        *([f"do: {reason.hint}"] if reason.hint else []),
    ]
    return "; ".join(parts)


def _broken(host: Host) -> list[str]:
    """`GPU 0, 1: cut into MIG slices`, one text per defect."""
    found: dict[str, list[int]] = {}
    for gpu in host.gpus:
        if gpu not in host.usable:
            found.setdefault(rules.defect(gpu), []).append(gpu.index)
    return [f"{cards(indices)}: {defect}" for defect, indices in found.items()]


def _relevant(rejected: list[Rejected]) -> list[Rejected]:
    """Without the runtimes that cannot read the format at all, and what pins rule out."""
    aside = {"model-format", "pinned"}
    kept = [r for r in rejected if not any(reason.rule in aside for reason in r.reasons)]
    return kept or rejected


def _nearest(rejected: list[Rejected]) -> Rejected:
    """The candidate that fell to the fewest rules, of several the one that nearly fits."""

    def distance(item: Rejected) -> tuple[int, float]:
        shares = (m.total_mib / max(m.capacity_mib, 1.0) for m in item.candidate.memory)
        return len(item.reasons), max(shares, default=0.0)

    return min(_relevant(rejected), key=distance)


def _reasons(
    chosen: Candidate,
    second: Candidate | None,
    host: Host,
    wish: Wish,
    load: Workload,
    rejected: list[Rejected],
) -> Iterator[Reason]:
    """Pins, what the objective prefers, and why nothing simpler would do."""
    for key in pinned_keys(wish):
        if key in ("runtime", "strategy", "tensor_parallel_size", "pipeline_parallel_size"):
            yield Reason("pinned", f"{key} = {getattr(wish, key)} is set in the inventory")
    if second is not None:
        yield from strengths(chosen, second, host, load)
    else:
        yield Reason("only-one", "no other candidate holds")
    if len(chosen.gpus) // chosen.replicas > 1:
        yield from _single_objection(chosen, rejected)


def _single_objection(chosen: Candidate, rejected: list[Rejected]) -> Iterator[Reason]:
    """What rules out one card, for the card that comes nearest."""
    singles = [
        reason
        for item in rejected
        if item.candidate.strategy is Strategy.SINGLE and item.candidate.runtime == chosen.runtime
        for reason in item.reasons
        if reason.rule == "memory-fit"
    ]
    if singles:
        one = singles[0]
        yield Reason("one-card-too-small", one.found)


def _warnings(
    ways: Sequence[Candidate],
    host: Host,
    model: ModelSpec,
    wish: Wish,
    load: Workload,
    measured: Sequence[Measurement],
) -> Iterator[Reason]:
    """What the operator should know although the plan holds."""
    chosen = ways[0]
    usable = {gpu.index for gpu in host.usable}
    for gpu in host.gpus:
        if gpu.index not in usable:
            yield Reason("card-left-out", f"GPU {gpu.index}: {rules.defect(gpu)}")
    yield from runtime(chosen.runtime).cautions(chosen, host, model)
    if chosen.tensor_parallel_size > 1 and slow(host, chosen.gpus):
        found = f"{cards(chosen.gpus)} are joined across sockets or by four lanes or fewer"
        hint = "prefill suffers first; measure both, pin strategy = 'pipeline_parallel' to compare"
        yield Reason("slow-link", found, None, hint)
    if chosen.runtime == "vllm" and chosen.tensor_parallel_size > 1 and doubtful(host, chosen.gpus):
        found = "peer access over PCIe is granted inside a virtual machine and is turned off"
        hint = "prove transfers first, then set env = {'NCCL_P2P_DISABLE': '0'}"
        yield Reason("peer-access-unproven", found, None, hint)
    yield from _busy(chosen)
    yield from rules.warnings(chosen, host, model, wish, load)
    yield from doubts(ways, host, model, load, partial(_again, host, model, measured))


def _again(
    host: Host,
    model: ModelSpec,
    measured: Sequence[Measurement],
    way: Candidate,
    load: Workload,
) -> Prediction:
    """The speed of a candidate under another workload."""
    return judged(way, host, model, load, measured)


def _busy(chosen: Candidate) -> Iterator[Reason]:
    fraction = chosen.gpu_memory_utilization
    if fraction is not None and fraction < GPU_MEMORY_UTILIZATION:
        found = f"gpu_memory_utilization is {fraction} because a card is partly in use or pinned so"
        hint = f"free the cards for {GPU_MEMORY_UTILIZATION}"
        yield Reason("utilization-lowered", f"{runtime_name(chosen.runtime)}: {found}", None, hint)
