"""From a host, a model and a wish to a plan: propose, object, rank, and keep every reason.

`plan` is a pure function. Every candidate is either the chosen one or rejected with a reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from multigpu import rules
from multigpu.choice import ranking
from multigpu.choice.assumptions import assumptions
from multigpu.choice.changes import changes
from multigpu.choice.doubts import Predict, doubts
from multigpu.choice.justify import justify
from multigpu.choice.losers import Contest, considered
from multigpu.choice.most_requests import at_most, searched
from multigpu.choice.pin_costs import pin_costs
from multigpu.choice.refusal import refusal
from multigpu.choice.strengths import strengths
from multigpu.environment import doubtful, own_nodes, settings, used_backend
from multigpu.errors import NoPlan
from multigpu.groups import slow
from multigpu.hardware import Host
from multigpu.labels import cards, runtime_name
from multigpu.memo import changed
from multigpu.memory import all_fit
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
from multigpu.speed.measured import Measurement, judged
from multigpu.workload import workload

__all__ = ["considered", "plan", "sift"]


def plan(host: Host, model: ModelSpec, wish: Wish, *, measured: Sequence[Measurement] = ()) -> Plan:
    """The best way to serve a model on one host, or NoPlan with everything that was tried.

    `measured` are results of this rig; those of the same way of serving the same model replace its
    prediction. Raises WishError when pins contradict each other, the host or the model.
    """
    check_pins(host, model, wish)
    load = workload(model, wish)
    holding, rejected = sift(host, model, wish)
    pinned = pinned_keys(wish)
    if not holding:
        raise NoPlan(
            refusal(host, model, wish, rejected),
            tuple(rejected),
            wish.name,
            model=model,
            wish=wish,
            changes=tuple(changes(rejected, host, model, wish)),
        )
    again = partial(_again, host, model, measured)
    load, (chosen, *lower) = _ranked(holding, host, model, wish, load, again)
    contest = Contest(chosen, host, model, wish, load)
    lost = [Rejected(rival, (contest.lost(rival),)) for rival in lower]
    made = Plan(
        host=host.name,
        wish=wish,
        model=model,
        chosen=chosen,
        gpu_uuids=tuple(host.gpu(index).uuid for index in chosen.gpus),
        reasons=tuple(_reasons(chosen, lower, host, wish, load, rejected)),
        rejected=(*lost, *rejected),
        warnings=(
            *_warnings((chosen, *lower), host, model, wish, load, again),
            *(pin_costs(chosen, rejected, host, model, wish, load, again) if pinned else ()),
        ),
        environment=settings(host, model, chosen, wish),
        pinned=pinned,
        simulated=host.simulated,
        workload=load,
        assumptions=tuple(assumptions(chosen, host, model, wish, load)),
        gpu_names=tuple(host.gpu(index).name for index in chosen.gpus),
        backend=used_backend(host, chosen, wish),
        gpu_addresses=own_nodes(host, chosen, wish),
    )
    return changed(made, justification=justify(made, host, measured))


def _ranked(
    holding: list[Candidate],
    host: Host,
    model: ModelSpec,
    wish: Wish,
    load: Workload,
    predict: Predict,
) -> tuple[Workload, list[Candidate]]:
    """The candidates with their speeds, best first, and the workload that the first is timed at."""
    if not searched(wish, load):
        timed = [changed(c, predicted=predict(c, load)) for c in holding]
        return load, ranking.order(timed, host, model, wish, load)
    each = [at_most(c, load, predict) for c in holding]
    # Nothing waits at a candidate's own concurrency, so one request stands for any.
    order = ranking.order([c for _, c in each], host, model, wish, replace(load, concurrency=1))
    return next(own for own, c in each if c is order[0]), order


def sift(host: Host, model: ModelSpec, wish: Wish) -> tuple[list[Candidate], list[Rejected]]:
    """Candidates without objections, and the others with theirs, in the order of proposal."""
    holding: list[Candidate] = []
    rejected: list[Rejected] = []
    for module in RUNTIMES:
        for candidate in module.candidates(host, model, wish):
            reasons = [
                *rules.objections(candidate, host, model, wish),
                *module.objections(candidate, host, model, wish),
            ]
            if not all_fit(candidate.memory):
                reasons += rules.memory_fit(candidate)
            if reasons:
                rejected.append(Rejected(candidate, tuple(reasons)))
            else:
                holding.append(candidate)
    return holding, rejected


def _reasons(
    chosen: Candidate,
    lower: Sequence[Candidate],
    host: Host,
    wish: Wish,
    load: Workload,
    rejected: list[Rejected],
) -> Iterator[Reason]:
    """Pins, what the objective prefers, and why nothing simpler would do."""
    for key in pinned_keys(wish):
        if key in ("runtime", "strategy", "tensor_parallel_size", "pipeline_parallel_size"):
            yield Reason("pinned", f"{key} = {getattr(wish, key)} is set in the inventory")
    if lower:
        of = "the ways that the pins leave" if pinned_keys(wish) else "all ways"
        yield from strengths(chosen, lower[0], host, load, of)
    else:
        left = " under the pins" if pinned_keys(wish) else ""
        yield Reason("only-one", f"no other candidate holds{left}")
    if ranking.engine_size(chosen) > 1 and not any(ranking.engine_size(c) == 1 for c in lower):
        yield from _single_objection(chosen, rejected)


def _single_objection(chosen: Candidate, rejected: list[Rejected]) -> Iterator[Reason]:
    """What rules out one card, for the card that comes nearest; nothing where a card holds it."""
    singles = [item for item in rejected if item.candidate.strategy is Strategy.SINGLE]
    if any(c.memory and all(m.fits for m in c.memory) for c in (s.candidate for s in singles)):
        return
    reasons = [
        reason
        for item in singles
        if item.candidate.runtime == chosen.runtime
        for reason in item.reasons
        if reason.rule == "memory-fit"
    ]
    if reasons:
        yield Reason("one-card-too-small", reasons[0].found)


def _warnings(
    ways: Sequence[Candidate],
    host: Host,
    model: ModelSpec,
    wish: Wish,
    load: Workload,
    predict: Predict,
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
    yield from doubts(ways, host, model, load, predict)


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
    """SGLang takes a smaller share by itself, by the cards of the host (`sglang_memory`)."""
    fraction = chosen.gpu_memory_utilization if chosen.runtime == "vllm" else None
    if fraction is not None and fraction < GPU_MEMORY_UTILIZATION:
        found = f"gpu_memory_utilization is {fraction} because a card is partly in use or pinned so"
        hint = f"free the cards for {GPU_MEMORY_UTILIZATION}"
        yield Reason("utilization-lowered", f"{runtime_name(chosen.runtime)}: {found}", None, hint)
