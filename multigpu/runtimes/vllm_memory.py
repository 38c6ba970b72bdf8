"""What vLLM holds of each card: weights, activations, graphs, overhead, and the KV cache.

vLLM takes what is left of its fraction of the card as KV cache; the rank with the fewest blocks
decides (`determine_available_memory` in `v1/worker/gpu_worker.py`, `get_kv_cache_configs` in
`v1/core/kv_cache_planning.py`). Only the sum of activations, graphs and overhead can be compared
with boot logs of releases that did not print them apart: `python -m benchmarks.kv_cache`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from math import ceil, floor, inf
from typing import NamedTuple

from multigpu import memory as m
from multigpu.hardware import Host
from multigpu.memo import changed, memo
from multigpu.placement import extremes_of, split_at
from multigpu.plan import Candidate, Memory, ModelSpec, Wish
from multigpu.runtimes.vllm_cache import UNBOUNDED, Layout, layout
from multigpu.runtimes.vllm_cards import Card, cards
from multigpu.runtimes.vllm_release import RENDERED, Release
from multigpu.runtimes.vllm_step import (
    Engine,
    activations_mib,
    engine,
    graphs_mib,
    overhead_mib,
    settings,
)
from multigpu.runtimes.vllm_weights import outer_mib, weights_mib
from multigpu.workload import workload

# vLLM's default for --gpu-memory-utilization (0.33.0).
GPU_MEMORY_UTILIZATION = RENDERED.gpu_memory_utilization
# A start is promised only with this much to spare: nine of ten predictions whose release is known
# are nearer than that to what the boot printed.
FIT_MARGIN_MIB = 300


Span = tuple[int, int]
Rank = tuple[Card, Span]


class Fixed(NamedTuple):
    """What a rank holds beside its cache, in whole MiB, and how its cache is cut."""

    weights_mib: float
    activations_mib: float
    overhead_mib: float
    graphs_mib: float
    total_mib: float
    layout: Layout | None
    offloaded_mib: float


def fixed(card: Card, span: Span, e: Engine, model: ModelSpec) -> Fixed:
    """Follows from the kind of card alone, so it is kept with the engine, for one model."""
    known = memo(e)
    if known.get("model") is not model:
        known["model"], known["fixed"] = model, {}
    key = (span, card.kind)
    found: Fixed | None = known["fixed"].get(key)
    if found is None:
        found = known["fixed"][key] = _fixed(card, span, e, model)
    return found


def _fixed(card: Card, span: Span, e: Engine, model: ModelSpec) -> Fixed:
    held = weights_mib(model, span, e.tp, card.gpu, expert_parallel=e.expert_parallel)
    last = span[1] == model.num_hidden_layers
    weights = float(ceil(max(0.0, held - e.offload_mib)))
    activations = float(ceil(activations_mib(model, e, last=last)))
    overhead = float(ceil(overhead_mib(card.gpu.vendor, e)))
    graphs = float(ceil(graphs_mib(e))) if e.release.graphs_first else 0.0
    total = weights + activations + overhead + graphs
    cut = layout(model, span, e.tp, e.kv_bytes)
    return Fixed(weights, activations, overhead, graphs, total, cut, min(e.offload_mib, held))


def utilization(held: Sequence[Card], wish: Wish) -> float:
    """vLLM's one fraction for all cards: the pin, else 0.92, less where a card is in use."""
    if wish.gpu_memory_utilization is not None:
        return wish.gpu_memory_utilization
    return min([card.fraction for card in held])


def sized(
    candidate: Candidate, host: Host, model: ModelSpec, wish: Wish, release: Release = RENDERED
) -> Candidate:
    """The candidate with memory per card, KV tokens of one engine and the utilization.

    With the first settings that hold one request, or the last where none do.
    """
    spans = stages(candidate, model)
    if spans is None:
        return candidate
    known = cards(host, wish)
    held = [known[index] for index in candidate.gpus]
    fraction = utilization(held, wish)
    found = candidate
    for e in settings(engine(candidate, held, model, wish, release), wish):
        found = _filled_in(candidate, held, spans, e, model, wish, fraction)
        if found.kv_sequences:
            break
    return found


def _filled_in(
    candidate: Candidate,
    held: Sequence[Card],
    spans: Sequence[Span],
    e: Engine,
    model: ModelSpec,
    wish: Wish,
    fraction: float,
) -> Candidate:
    """The candidate with the memory of engines that are started so; the smallest one's tokens."""
    # Like cards that hold the same blocks are counted once, and so are engines over such cards.
    times, world = 1, e.world
    if candidate.pipeline_parallel_size == 1 and held.count(held[0]) == len(held):
        times, world, held, spans = len(held), 1, held[:1], spans[:1]
    ranks = tuple(zip(held, spans, strict=True))
    terms = {rank: fixed(*rank, e, model) for rank in dict.fromkeys(ranks)}
    engines = [ranks[i : i + world] for i in range(0, len(ranks), world)]
    rooms = {engine: _blocks(engine, terms, fraction) for engine in dict.fromkeys(engines)}
    blocks, sure = min(rooms.values())
    context = workload(model, wish).context
    request, longest = _request(terms.values(), context, sure, e)
    needed = request + _null_blocks(e)
    concurrency = blocks / request if request else float(e.max_num_seqs)
    rows = {
        engine: _rows(engine, terms, fraction, mine if enough >= needed else None, needed)
        for engine, (mine, enough) in rooms.items()
    }
    return changed(
        candidate,
        memory=tuple([row for engine in engines for row in rows[engine]] * times),
        kv_tokens=floor(concurrency * context),
        kv_sequences=floor(concurrency) if sure >= needed else 0,
        max_model_len=context,
        context_limit=min(longest, model.max_position_embeddings or longest),
        max_num_seqs=e.max_num_seqs,
        max_num_batched_tokens=e.batched if e.told else None,
        gpu_memory_utilization=fraction,
        cpu_offload_mib=times * _offloaded(ranks, terms) if e.offload_mib else 0.0,
    )


def _offloaded(ranks: Iterable[Rank], terms: Mapping[Rank, Fixed]) -> float:
    """Weights of all ranks in the host's memory; a rank has no more to give than it holds."""
    return sum(terms[rank].offloaded_mib for rank in ranks)


def _blocks(ranks: Iterable[Rank], terms: Mapping[Rank, Fixed], fraction: float) -> tuple[int, int]:
    """Blocks of the rank with the fewest, and those of it that are sure: less the margin."""
    found, sure = inf, inf
    for rank in dict.fromkeys(ranks):
        f = terms[rank]
        if f.layout is not None:
            spare = floor(rank[0].room.total_mib * fraction) - f.total_mib
            size = f.layout.block_bytes / m.MIB
            found, sure = min(found, spare / size), min(sure, (spare - FIT_MARGIN_MIB) / size)
    if found is inf:
        return 0, 0
    return max(0, floor(found)), max(0, floor(sure))


def _null_blocks(e: Engine) -> int:
    """Blocks that no request gets: the pool keeps one back, for which the start check plans."""
    return 1 if e.release.null_block else 0


def _request(terms: Iterable[Fixed], context: int, blocks: int, e: Engine) -> tuple[int, int]:
    """(blocks of one request of `context` tokens, the longest request that fits)."""
    for f in terms:
        if f.layout is not None:
            longest = f.layout.longest(blocks - _null_blocks(e), e.in_flight)
            return f.layout.blocks(context, e.in_flight), longest
    return 0, UNBOUNDED


def _rows(
    ranks: Sequence[Rank],
    terms: Mapping[Rank, Fixed],
    fraction: float,
    blocks: int | None,
    needed: int,
) -> list[Memory]:
    """The cards of one engine, like ones as one object.

    vLLM takes what is left as KV cache, cut to the blocks of the rank that has the fewest. Where
    not even one request fits (None) the cache is what that request needs, and the margin is seen.
    """
    made = {rank: _memory(rank[0], terms[rank], fraction, blocks, needed) for rank in set(ranks)}
    return [made[rank] for rank in ranks]


def _memory(card: Card, f: Fixed, fraction: float, blocks: int | None, needed: int) -> Memory:
    size = f.layout.block_bytes / m.MIB if f.layout is not None else 0.0
    overhead = f.overhead_mib
    if f.layout is not None and blocks is None:
        overhead += FIT_MARGIN_MIB
    return Memory(
        f.weights_mib,
        float(ceil(needed * size) if blocks is None else floor(blocks * size)),
        f.activations_mib,
        overhead,
        float(floor(card.room.total_mib * fraction)),
        f.graphs_mib,
        card.other_mib,
    )


def stages(candidate: Candidate, model: ModelSpec) -> list[tuple[int, int]] | None:
    """The blocks [start, end) of every rank, aligned with `gpus`; None when they do not add up."""
    if candidate.pipeline_parallel_size == 1:
        return [(0, model.num_hidden_layers)] * len(candidate.gpus)
    layers = candidate.layers or ()
    if sum(layers) != model.num_hidden_layers or min(layers, default=0) < 1:
        return None
    ends = [sum(layers[: i + 1]) for i in range(len(layers))]
    spans = zip([0, *ends], ends, strict=False)
    return [span for span in spans for _ in range(candidate.tensor_parallel_size)]


def partitioned(
    candidate: Candidate, host: Host, model: ModelSpec, wish: Wish
) -> tuple[int, ...] | None:
    """Counts that keep the worst share of a card's budget smallest.

    A block weighs its own share of the weights and the cache of one request.
    """
    known = cards(host, wish)
    held = [known[index] for index in candidate.gpus]
    e = engine(candidate, held, model, wish)
    fraction = utilization(held, wish)
    context = workload(model, wish).context
    step, sampling = (graphs_mib(e) + activations_mib(model, e, last=x) for x in (False, True))
    budgets = [
        card.room.total_mib * fraction - overhead_mib(card.gpu.vendor, e) - step for card in held
    ]
    budgets[-1] += step - sampling
    first = outer_mib(model, e.tp, first=True)
    last = outer_mib(model, e.tp, last=True)
    if model.num_hidden_layers < len(budgets) or min(budgets) <= 0:
        return None
    sums, extremes = _units(model, e, context)
    return split_at(sums, budgets, first, last, extremes)


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
