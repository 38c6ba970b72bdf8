"""What a plan file keeps of a plan: all that serving and the page need, numbers as far as known.

Dropped is what nobody reads twice: of ways that were not chosen the memory of each card (their
reasons say what lacks) and the settings that follow from it, and the speeds of all but the
alternatives that the page shows; of numbers the digits beyond the sixth. Pages show three: with
fewer here a number that is rounded twice would differ between a page and the next.
"""

from __future__ import annotations

from dataclasses import replace
from math import floor, log10

from multigpu.page.alternatives import best
from multigpu.plan import Candidate, Estimate, Justification, Plan, Prediction, Rejected

DIGITS = 6


def stored(plan: Plan) -> Plan:
    """The plan as `planfile.read` gives it back, but for rounded MiB."""
    shown = {id(item) for item in best(plan)}
    return replace(
        plan,
        chosen=replace(plan.chosen, predicted=_prediction(plan.chosen.predicted)),
        rejected=tuple(_rejected(item, id(item) in shown) for item in plan.rejected),
        justification=_justification(plan.justification),
    )


def _rejected(item: Rejected, shown: bool) -> Rejected:
    """An alternative of the page keeps its numbers, the others their names."""
    found = item.candidate
    kept = Candidate(
        runtime=found.runtime,
        strategy=found.strategy,
        gpus=found.gpus,
        tensor_parallel_size=found.tensor_parallel_size,
        pipeline_parallel_size=found.pipeline_parallel_size,
        replicas=found.replicas,
        layers=found.layers,
        expert_parallel=found.expert_parallel,
        cpu_offload_mib=float(round(found.cpu_offload_mib)),
        kv_tokens=found.kv_tokens if shown else None,
        predicted=_of_loser(found.predicted) if shown else None,
    )
    return Rejected(kept, item.reasons)


def _of_loser(found: Prediction | None) -> Prediction | None:
    """The numbers; what they rest on is said once, with the chosen way."""
    rounded = _prediction(found)
    return None if rounded is None else replace(rounded, basis="", unknown=())


def _prediction(found: Prediction | None) -> Prediction | None:
    if found is None:
        return None
    return replace(
        found,
        decode_tokens_per_s=_estimate(found.decode_tokens_per_s),
        prefill_tokens_per_s=_estimate(found.prefill_tokens_per_s),
        ttft_ms=_estimate(found.ttft_ms),
        tpot_ms=_estimate(found.tpot_ms),
    )


def _estimate(found: Estimate | None) -> Estimate | None:
    if found is None:
        return None
    return Estimate(_rounded(found.value), _rounded(found.low), _rounded(found.high))


def _justification(found: Justification | None) -> Justification | None:
    if found is None:
        return None
    ratios = (found.throughput_ratio, found.latency_ratio, found.context_ratio)
    throughput, latency, context = (None if r is None else _rounded(r) for r in ratios)
    sizes = tuple(
        replace(
            size,
            billions=_rounded(size.billions),
            per_card_billions=_rounded(size.per_card_billions),
        )
        for size in found.sizes
    )
    return replace(
        found,
        throughput_ratio=throughput,
        latency_ratio=latency,
        context_ratio=context,
        sizes=sizes,
    )


def _rounded(value: float) -> float:
    if value == 0 or value != value:
        return 0.0
    return round(float(value), DIGITS - 1 - floor(log10(abs(value))))
