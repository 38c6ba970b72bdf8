"""What vLLM holds of each card: weights, activations, graphs, overhead, and the KV cache.

vLLM takes what is left of its fraction of the card as KV cache; the rank with the fewest blocks
decides (`determine_available_memory` in `v1/worker/gpu_worker.py`, `get_kv_cache_configs` in
`v1/core/kv_cache_planning.py`). Only the sum of activations, graphs and overhead can be compared
with boot logs of releases that did not print them apart: `python -m benchmarks.kv_cache`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, floor

from multigpu import memory as m
from multigpu.hardware import Gpu, Host
from multigpu.memo import memo
from multigpu.placement import partition
from multigpu.plan import Candidate, Memory, ModelSpec, Wish
from multigpu.runtimes.vllm_cache import UNBOUNDED, Layout, layout
from multigpu.runtimes.vllm_release import RENDERED, Release
from multigpu.runtimes.vllm_step import (
    Engine,
    activations_mib,
    engine,
    graphs_mib,
    overhead_mib,
    small,
)
from multigpu.runtimes.vllm_weights import outer_mib, weights_mib
from multigpu.workload import workload

# vLLM's default for --gpu-memory-utilization (0.33.0).
GPU_MEMORY_UTILIZATION = RENDERED.gpu_memory_utilization
# A start is promised only with this much to spare: nine of ten predictions whose release is known
# are nearer than that to what the boot printed.
FIT_MARGIN_MIB = 300


def utilization(host: Host, candidate: Candidate, wish: Wish) -> float:
    """vLLM's one fraction for all cards: the pin, else 0.92, less where a card is in use.

    vLLM refuses to start when less than this fraction is free on any card.
    """
    if wish.gpu_memory_utilization is not None:
        return wish.gpu_memory_utilization
    free = min(
        (m.free_mib(gpu, wish) - m.FREE_MARGIN_MIB) / m.cuda_total_mib(gpu)
        for gpu in (host.gpu(i) for i in candidate.gpus)
    )
    return max(0.01, min(GPU_MEMORY_UTILIZATION, floor(free * 100) / 100))


def rank(
    gpu: Gpu, stage: tuple[int, int], e: Engine, model: ModelSpec, wish: Wish, fraction: float
) -> Memory:
    """One card without its KV cache."""
    held = weights_mib(model, stage, e.tp, gpu, expert_parallel=e.expert_parallel)
    last = stage[1] == model.num_hidden_layers
    return m.memory(
        weights=max(0.0, held - e.offload_mib),
        kv=0.0,
        activations=activations_mib(model, e, last=last),
        overhead=overhead_mib(gpu, e),
        capacity=m.cuda_total_mib(gpu) * fraction,
        graphs=graphs_mib(e) if e.release.graphs_first else 0.0,
        other=m.other_mib(gpu, wish),
    )


def sized(
    candidate: Candidate, host: Host, model: ModelSpec, wish: Wish, release: Release = RENDERED
) -> Candidate:
    """The candidate with memory per card, KV tokens of one engine and the utilization.

    Where vLLM's defaults for a large card leave no room for one request, those of a small card are
    taken: nothing that fits a smaller card is refused on a larger one.
    """
    spans = stages(candidate, model)
    if spans is None:
        return candidate
    gpus = [host.gpu(index) for index in candidate.gpus]
    fraction = utilization(host, candidate, wish)
    e = engine(candidate, gpus[0], model, wish, release)
    found = _filled_in(candidate, gpus, spans, e, model, wish, fraction)
    if not found.kv_sequences and (less := small(e, wish)) is not e:
        found = _filled_in(candidate, gpus, spans, less, model, wish, fraction)
        return replace(found, max_num_batched_tokens=less.batched)
    return found


def _filled_in(
    candidate: Candidate,
    gpus: Sequence[Gpu],
    spans: Sequence[tuple[int, int]],
    e: Engine,
    model: ModelSpec,
    wish: Wish,
    fraction: float,
) -> Candidate:
    """The candidate with the memory of engines that are started so."""
    ranks = _ranks(gpus, spans, e, model, wish, fraction)
    of_span = {span: layout(model, span, e.tp, e.kv_bytes) for span in dict.fromkeys(spans)}
    layouts = [of_span[span] for span in spans]
    context = workload(model, wish).context
    blocks, sure = _blocks(ranks, layouts, 0.0), _blocks(ranks, layouts, FIT_MARGIN_MIB)
    request, longest = _request(layouts, context, sure, e)
    needed = request + _null_blocks(e)
    fits = sure >= needed
    concurrency = blocks / request if request else float(e.max_num_seqs)
    return replace(
        candidate,
        memory=tuple(
            _filled(fixed, one, blocks if fits else needed, fits=fits)
            for fixed, one in zip(ranks, layouts, strict=True)
        ),
        kv_tokens=floor(concurrency * context),
        kv_sequences=floor(concurrency) if fits else 0,
        max_model_len=context,
        context_limit=min(longest, model.max_position_embeddings or longest),
        max_num_seqs=e.max_num_seqs,
        gpu_memory_utilization=fraction,
        cpu_offload_mib=_offloaded_mib(gpus, spans, e, model),
    )


def _offloaded_mib(
    gpus: Sequence[Gpu], spans: Sequence[tuple[int, int]], e: Engine, model: ModelSpec
) -> float:
    """Weights of all ranks in the host's memory; a rank has no more to give than it holds."""
    if not e.offload_mib:
        return 0.0
    held = (
        weights_mib(model, span, e.tp, gpu, expert_parallel=e.expert_parallel)
        for gpu, span in zip(gpus, spans, strict=True)
    )
    return sum(min(e.offload_mib, mib) for mib in held)


def _ranks(
    gpus: Sequence[Gpu],
    spans: Sequence[tuple[int, int]],
    e: Engine,
    model: ModelSpec,
    wish: Wish,
    fraction: float,
) -> list[Memory]:
    """Every card without its cache; like cards that hold the same blocks are counted once."""
    made: dict[object, Memory] = {}
    ranks = []
    for gpu, span in zip(gpus, spans, strict=True):
        free = m.free_mib(gpu, wish)
        key = (span, gpu.memory_mib, gpu.memory_reserved_mib, free, gpu.name)
        if key not in made:
            made[key] = rank(gpu, span, e, model, wish, fraction)
        ranks.append(made[key])
    return ranks


def _blocks(ranks: Sequence[Memory], layouts: Sequence[Layout | None], margin_mib: float) -> int:
    """Blocks of the rank with the fewest, with so much of every card left alone."""
    found = [
        floor((fixed.capacity_mib - fixed.total_mib - margin_mib) * m.MIB / one.block_bytes)
        for fixed, one in zip(ranks, layouts, strict=True)
        if one is not None
    ]
    return max(0, min(found, default=0))


def _null_blocks(e: Engine) -> int:
    """Blocks that no request gets: the pool keeps one back, for which the start check plans."""
    return 1 if e.release.null_block else 0


def _request(
    layouts: Sequence[Layout | None], context: int, blocks: int, e: Engine
) -> tuple[int, int]:
    """(blocks of one request of `context` tokens, the longest request that fits)."""
    for one in layouts:
        if one is not None:
            longest = one.longest(blocks - _null_blocks(e), e.in_flight)
            return one.blocks(context, e.in_flight), longest
    return 0, UNBOUNDED


def _filled(fixed: Memory, one: Layout | None, blocks: int, *, fits: bool) -> Memory:
    """vLLM takes what is left as KV cache, cut to the blocks of the rank that has the fewest.

    Where not even one request fits the cache is what that request needs, and the margin is seen.
    """
    if one is None:
        return fixed
    held = blocks * one.block_bytes / m.MIB
    if fits:
        return replace(fixed, kv_cache_mib=float(floor(held)))
    margin = float(FIT_MARGIN_MIB)
    return replace(fixed, kv_cache_mib=float(ceil(held)), overhead_mib=fixed.overhead_mib + margin)


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
    gpus = [host.gpu(index) for index in candidate.gpus]
    e = engine(candidate, gpus[0], model, wish)
    fraction = utilization(host, candidate, wish)
    context = workload(model, wish).context
    fixed = [
        overhead_mib(gpu, e) + graphs_mib(e) + activations_mib(model, e, last=gpu is gpus[-1])
        for gpu in gpus
    ]
    budgets = [
        m.cuda_total_mib(gpu) * fraction - held for gpu, held in zip(gpus, fixed, strict=True)
    ]
    first = outer_mib(model, e.tp, first=True)
    last = outer_mib(model, e.tp, last=True)
    return partition(_units(model, e, context), budgets, first=first, last=last)


def _units(model: ModelSpec, e: Engine, context: int) -> tuple[float, ...]:
    """Weights and the cache of one request, per block."""
    key = ("vllm-units", e.tp, e.kv_bytes, e.in_flight, context)
    kept = memo(model)
    if key not in kept:
        kept[key] = tuple(
            mib / e.tp
            + m.request_mib(
                (layer,),
                context,
                kv_bytes=e.kv_bytes,
                tensor_parallel_size=e.tp,
                in_flight=e.in_flight,
            )
            for mib, layer in zip(model.layers_mib, model.layers, strict=True)
        )
    return kept[key]  # type: ignore[no-any-return]
