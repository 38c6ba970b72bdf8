"""What vLLM holds of each card: weights, activations, graphs, overhead, and the KV cache.

vLLM takes what is left of its fraction of the card as KV cache; the rank with the fewest blocks
decides (`determine_available_memory` in `v1/worker/gpu_worker.py`, `get_kv_cache_configs` in
`v1/core/kv_cache_planning.py`). Only the sum of activations, graphs and overhead can be compared
with boot logs of releases that did not print them apart: `python -m benchmarks.kv_cache`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor

from multigpu import memory as m
from multigpu.hardware import Gpu, Host
from multigpu.memo import memo
from multigpu.placement import partition
from multigpu.plan import Candidate, Memory, ModelSpec, Wish
from multigpu.runtimes import vllm_release
from multigpu.runtimes.vllm_cache import UNBOUNDED, Layout, layout
from multigpu.runtimes.vllm_release import RENDERED, Release, batched_tokens, kv_bytes, max_num_seqs
from multigpu.runtimes.vllm_weights import outer_mib, weights_mib
from multigpu.workload import workload

# vLLM's default for --gpu-memory-utilization (0.33.0).
GPU_MEMORY_UTILIZATION = RENDERED.gpu_memory_utilization
# Vectors per token at the peak of a forward step: residual, normed, query, output and their copies;
# gate, up and their product. With them Mistral-Small-24B peaks at 2.12 GiB with 8192 tokens, as
# measured on H100 (0.11), and 30B-A3B at 0.20 with 2048 (0.23 on A100, 0.26).
HIDDEN_VECTORS, FFN_VECTORS = 8, 3
# The profiling step runs the vision encoder on images of the largest size and keeps its output:
# gemma-3-12b took 0.3 to 0.5 GiB more than models without one (four boots of R9700).
ENCODER_MIB = 350.0
# Gated delta nets: states of chunks of 64 tokens per head, and two tensors of half their size
# (96 MiB at 8192 tokens and TP=2 for 24 heads of 128 x 128: club-3090 #838).
GDN_CHUNK = 64


@dataclass(frozen=True)
class Engine:
    """What one engine is started with, as far as memory depends on it."""

    tp: int
    world: int
    max_num_seqs: int
    batched: int
    kv_bytes: float
    in_flight: int
    eager: bool
    expert_parallel: bool
    offload_mib: float
    release: Release


def engine(
    candidate: Candidate, gpu: Gpu, model: ModelSpec, wish: Wish, release: Release = RENDERED
) -> Engine:
    """The settings of an engine whose first card is `gpu`."""
    batched = batched_tokens(gpu, wish.flags)
    pp = candidate.pipeline_parallel_size
    steps = (2 if pp == 1 else pp + 1) if release.windows_in_flight else 1
    return Engine(
        tp=candidate.tensor_parallel_size,
        world=len(candidate.gpus) // candidate.replicas,
        max_num_seqs=max_num_seqs(gpu, wish, candidate.replicas),
        batched=batched,
        kv_bytes=kv_bytes(wish, model),
        in_flight=steps * batched,
        eager="--enforce-eager" in wish.flags,
        expert_parallel=candidate.expert_parallel,
        offload_mib=(wish.cpu_offload_gib or 0.0) * 1024,
        release=release,
    )


def activations_mib(model: ModelSpec, e: Engine, *, last: bool = True) -> float:
    """Peak of the profiling step: the larger of a full forward step and sampling.

    The last pipeline stage samples; what sampling keeps all the time is added.
    """
    forward = e.batched * _forward_elements(model, e.tp) * 2 + _state_scratch(model, e)
    logits = e.max_num_seqs * model.vocab_size if last else 0
    peak = max(forward, logits * e.release.sampler_bytes) + logits * e.release.sampler_state_bytes
    return peak / m.MIB + (ENCODER_MIB if model.vision_mib else 0.0)


def _forward_elements(model: ModelSpec, tp: int) -> float:
    """Elements per token of one forward step on one rank."""
    hidden = HIDDEN_VECTORS * model.hidden_size
    dense = FFN_VECTORS * (model.intermediate_size or 4 * model.hidden_size) / tp
    if not model.num_experts or not model.moe_intermediate_size:
        return hidden + dense
    routed = model.num_experts_per_tok or 8
    return hidden + routed * (FFN_VECTORS * model.moe_intermediate_size / tp + model.hidden_size)


def _state_scratch(model: ModelSpec, e: Engine) -> float:
    """Bytes of a prefill over a gated delta net; 0 for models without recurrent states."""
    largest = max((x.elements for x in model.layers if x.kind == "state"), default=0)
    return 2 * (e.batched / GDN_CHUNK) * largest / e.tp * 2


def graphs_mib(e: Engine) -> float:
    """What captured CUDA graphs take; before 0.21 that is outside of the fraction."""
    if e.eager:
        return 0.0
    return vllm_release.GRAPH_MIB * vllm_release.captured_graphs(e.max_num_seqs)


def overhead_mib(gpu: Gpu, e: Engine) -> float:
    """Context, libraries and communicators of one rank."""
    spans = vllm_release.NCCL_MIB[gpu.vendor] if e.world > 1 else 0.0
    return vllm_release.CONTEXT_MIB[gpu.vendor] + spans


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
    """The candidate with memory per card, KV tokens of one engine and the utilization."""
    spans = stages(candidate, model)
    if spans is None:
        return candidate
    gpus = [host.gpu(index) for index in candidate.gpus]
    e = engine(candidate, gpus[0], model, wish, release)
    fraction = utilization(host, candidate, wish)
    ranks = _ranks(gpus, spans, e, model, wish, fraction)
    layouts = [layout(model, span, e.tp, e.kv_bytes) for span in spans]
    context = workload(model, wish).context
    blocks = _blocks(ranks, layouts)
    request, longest = _request(layouts, context, blocks, e)
    needed = request + _null_blocks(e)
    rows = tuple(
        _filled(fixed, one, blocks, needed) for fixed, one in zip(ranks, layouts, strict=True)
    )
    concurrency = blocks / request if request else float(e.max_num_seqs)
    offloaded = sum(min(e.offload_mib, r.weights_mib + e.offload_mib) for r in ranks)
    return replace(
        candidate,
        memory=rows,
        kv_tokens=max(0, floor(concurrency * context)),
        kv_sequences=max(0, floor(concurrency)),
        max_model_len=context,
        context_limit=min(longest, model.max_position_embeddings or longest),
        max_num_seqs=e.max_num_seqs,
        gpu_memory_utilization=fraction,
        cpu_offload_mib=offloaded if e.offload_mib else 0.0,
    )


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


def _blocks(ranks: Sequence[Memory], layouts: Sequence[Layout | None]) -> int:
    """Blocks of the rank with the fewest."""
    found = [
        floor((fixed.capacity_mib - fixed.total_mib) * m.MIB / one.block_bytes)
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


def _filled(fixed: Memory, one: Layout | None, blocks: int, needed: int) -> Memory:
    """vLLM takes what is left as KV cache, cut to the blocks of the rank that has the fewest.

    Where not even one request fits the cache is what that request needs, so that it is seen.
    """
    if one is None:
        return fixed
    held = max(blocks, needed) * one.block_bytes / m.MIB
    return replace(fixed, kv_cache_mib=float(floor(held) if blocks >= needed else ceil(held)))


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
