"""How many blocks each stage of a vLLM pipeline takes where cards are not alike.

Given to vLLM as VLLM_PP_LAYER_PARTITION; like cards keep vLLM's own even stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from multigpu import memory as m
from multigpu.hardware import Host
from multigpu.memo import memo
from multigpu.placement import extremes_of, split_at
from multigpu.plan import Candidate, ModelSpec, Wish
from multigpu.runtimes.vllm_cards import Card, cards
from multigpu.runtimes.vllm_memory import utilization
from multigpu.runtimes.vllm_release import release
from multigpu.runtimes.vllm_step import Engine, activations_mib, engine, graphs_mib, overhead_mib
from multigpu.runtimes.vllm_weights import outer_mib
from multigpu.workload import workload


def partitioned(
    candidate: Candidate, host: Host, model: ModelSpec, wish: Wish
) -> tuple[int, ...] | None:
    """Counts that keep the worst share of a card's budget smallest.

    A block weighs its own share of the weights and the cache of one request.
    """
    known = cards(host, wish)
    held = [known[index] for index in candidate.gpus]
    e = engine(candidate, held, model, wish, release(wish.runtime_version))
    fraction = utilization(held, wish)
    kept = _kept(e, model)
    key = (fraction, *[card.size for card in held])
    if key not in kept:
        if len(kept) >= KEPT:
            kept.clear()
        kept[key] = _partitioned(held, e, model, fraction, workload(model, wish).context)
    return kept[key]


KEPT = 1024
"""Partitions that are kept with an engine."""


def _kept(e: Engine, model: ModelSpec) -> dict[object, tuple[int, ...] | None]:
    """Partitions by the sizes of cards, of any hosts."""
    known = memo(e)
    if known.get("partitions-model") is not model:
        known["partitions-model"], known["partitions"] = model, {}
    found: dict[object, tuple[int, ...] | None] = known["partitions"]
    return found


def _partitioned(
    held: list[Card], e: Engine, model: ModelSpec, fraction: float, context: int
) -> tuple[int, ...] | None:
    step, opening, sampling, first, last = _ends(e, model)
    budgets = [
        card.room.total_mib * fraction - overhead_mib(card.gpu.vendor, e) - step for card in held
    ]
    budgets[0] += step - opening
    budgets[-1] += step - sampling
    if model.num_hidden_layers < len(budgets) or min(budgets) <= 0:
        return None
    sums, extremes = _units(model, e, context)
    return split_at(sums, budgets, first, last, extremes)


def _ends(e: Engine, model: ModelSpec) -> tuple[float, float, float, float, float]:
    """MiB of a step: in the middle, first, last; what the first and the last stage hold besides.

    Kept with the engine, for one model.
    """
    known = memo(e)
    if known.get("ends-model") is not model:
        graphs, ends = graphs_mib(model, e), ((False, False), (True, False), (False, True))
        steps = (graphs + activations_mib(model, e, first=a, last=b) for a, b in ends)
        outer = outer_mib(model, e.tp, first=True), outer_mib(model, e.tp, last=True)
        known["ends-model"], known["ends"] = model, (*steps, *outer)
    found: tuple[float, float, float, float, float] = known["ends"]
    return found


def _units(
    model: ModelSpec, e: Engine, context: int
) -> tuple[Sequence[float], tuple[float, float]]:
    """Running sums of the blocks' weights and cache of one request; the smallest and largest."""
    key = ("vllm-units", e.tp, e.kv_bytes, e.in_flight, context)
    kept = memo(model)
    if key not in kept:
        units = [
            mib / e.tp
            + m.request_mib(
                (layer,),
                context,
                kv_bytes=e.kv_bytes,
                tensor_parallel_size=e.tp,
                in_flight=e.in_flight,
            )
            for mib, layer in zip(model.layers_mib, model.layers, strict=True)
        ]
        sums = [0.0, *accumulate(units)]
        kept[key] = sums, extremes_of(sums)
    return kept[key]  # type: ignore[no-any-return]
