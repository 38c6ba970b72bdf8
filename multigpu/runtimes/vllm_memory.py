"""What vLLM 0.33.0 holds of each card: weights, activations, graphs, overhead, and the KV cache.

vLLM takes what is left of its fraction of the card as KV cache; the rank with the fewest blocks
decides (`v1/core/kv_cache_utils.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil, floor

from multigpu import memory as m
from multigpu.hardware import Gpu, Host
from multigpu.placement import partition
from multigpu.plan import Candidate, Memory, ModelSpec, Wish, Workload
from multigpu.workload import workload

# vLLM's default for --gpu-memory-utilization (0.33.0).
GPU_MEMORY_UTILIZATION = 0.92
# Norms, routers and replicated KV heads are not sharded: weights at TP=2 measured at 1.01 to 1.05
# times one half (46 boot logs of vLLM 0.11 to 0.13).
TP_REPLICATED = 1.03
# Memory outside of torch, measured with vLLM 0.11 on H100: 0.13 GiB alone, 0.55 GiB with NCCL.
CONTEXT_MIB, NCCL_MIB = 150, 420
# 50 to 100 MB per captured CUDA graph (vLLM boot logs), and never more than 1.8 GiB printed.
GRAPH_MIB, GRAPHS_MAX_MIB = 80, 1024
# vLLM keeps several float32 copies of the logits of one step while it samples; three fit the logs.
LOGIT_COPIES = 3


def kv_bytes(wish: Wish) -> float:
    """Bytes per cached element under `--kv-cache-dtype` (auto: 2)."""
    dtype = wish.kv_cache_dtype or wish.flags.get("--kv-cache-dtype") or "auto"
    if dtype.startswith(("fp8", "int8")):
        return 1.02
    return 0.5625 if dtype.startswith("nvfp4") else 2.0


def batched_tokens(gpu: Gpu, flags: Mapping[str, str | None]) -> int:
    """`--max-num-batched-tokens`: vLLM's server default is 2048, and 8192 from 70 GiB."""
    given = flags.get("--max-num-batched-tokens")
    if given is not None and given.isdigit():
        return int(given)
    return 8192 if (gpu.memory_mib or 0) >= 70 * 1024 else 2048


def activations_mib(model: ModelSpec, tp: int, batched: int, max_num_seqs: int) -> float:
    """Peak of the profiling step: the larger of a full forward step and sampling.

    Eight hidden and four intermediate vectors per token. With CONTEXT_MIB the KV pools of ten
    boot logs (vLLM 0.12, 24 to 40 GB cards, max_num_seqs 256) come out between 0.41 GiB too small
    and 0.03 GiB too large; not calibrated on 0.33.
    """
    forward = batched * (8 * model.hidden_size + 4 * ceil(m.ffn_size(model) / tp)) * 2
    return max(forward, max_num_seqs * model.vocab_size * 4 * LOGIT_COPIES) / m.MIB


def graphs_mib(max_num_seqs: int) -> float:
    """CUDA graphs: sizes 1, 2, 4, then every 8 up to twice the requests, at most 512."""
    largest = min(2 * max_num_seqs, 512)
    return float(min(GRAPHS_MAX_MIB, GRAPH_MIB * (3 + largest // 8)))


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


def weights_mib(model: ModelSpec, layers: tuple[int, int], tp: int) -> float:
    """Weights of one rank that holds the blocks [start, end) of `layers`."""
    start, end = layers
    held = sum(model.layers_mib[start:end])
    last = end == model.num_hidden_layers
    if start == 0 or (last and model.tie_word_embeddings):
        held += model.embedding_mib
    if last:
        held += model.output_mib
    return held / tp * (TP_REPLICATED if tp > 1 else 1.0)


def partitioned(
    candidate: Candidate, host: Host, model: ModelSpec, wish: Wish
) -> tuple[int, ...] | None:
    """Counts that keep the worst share of a card's budget smallest."""
    load = workload(model, wish)
    wanted = m.engine_concurrency(candidate, load)
    gpus = [host.gpu(index) for index in candidate.gpus]
    fraction = utilization(host, candidate, wish)
    units = [
        weights + wanted * _request(model, (i, i + 1), candidate, gpus[0], wish, load)
        for i, weights in enumerate(model.layers_mib)
    ]
    budgets = [
        m.cuda_total_mib(gpu) * fraction - sum(_fixed(candidate, model, gpu, wish, load))
        for gpu in gpus
    ]
    tail = model.output_mib + (model.embedding_mib if model.tie_word_embeddings else 0.0)
    return partition(units, budgets, first=model.embedding_mib, last=tail)


def sized(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> Candidate:
    """The candidate with memory per card, KV tokens of one engine and the utilization."""
    stages = _stages(candidate, model)
    if stages is None:
        return candidate
    load = workload(model, wish)
    fraction = utilization(host, candidate, wish)
    gpus = [host.gpu(index) for index in candidate.gpus]
    wanted = m.engine_concurrency(candidate, load)
    rows = []
    for gpu, stage in zip(gpus, stages, strict=True):
        held = ceil(weights_mib(model, stage, candidate.tensor_parallel_size))
        activations, graphs, overhead = _fixed(candidate, model, gpu, wish, load)
        capacity = floor(m.cuda_total_mib(gpu) * fraction)
        request = _request(model, stage, candidate, gpu, wish, load)
        fixed = m.memory(held, 0, activations, overhead, capacity, graphs, m.other_mib(gpu, wish))
        rows.append((fixed, request))
    pools = [(fixed.capacity_mib - fixed.total_mib) / need for fixed, need in rows if need > 0]
    requests = min(pools, default=float(wanted))
    return replace(
        candidate,
        memory=tuple(_filled(fixed, need, max(requests, 1.0)) for fixed, need in rows),
        kv_tokens=max(0, floor(requests * load.context)),
        kv_sequences=max(0, floor(requests)),
        max_model_len=load.context,
        max_num_seqs=_max_num_seqs(candidate, load, requests),
        gpu_memory_utilization=fraction,
    )


def _max_num_seqs(candidate: Candidate, load: Workload, requests: float) -> int:
    """A replica's share of the requests, or more where its cache holds more of full length."""
    return max(m.engine_concurrency(candidate, load), min(load.concurrency, floor(requests)))


def _filled(fixed: Memory, request: float, requests: float) -> Memory:
    """vLLM takes what is left as KV cache, cut to the blocks of the rank that has the fewest."""
    return replace(fixed, kv_cache_mib=float(floor(requests * request)))


def _stages(candidate: Candidate, model: ModelSpec) -> list[tuple[int, int]] | None:
    """The blocks [start, end) of every rank, aligned with `gpus`; None when they do not add up."""
    whole_model = [(0, model.num_hidden_layers)]
    if candidate.pipeline_parallel_size == 1:
        return whole_model * len(candidate.gpus)
    layers = candidate.layers or ()
    if sum(layers) != model.num_hidden_layers or min(layers, default=0) < 1:
        return None
    ends = [sum(layers[: i + 1]) for i in range(len(layers))]
    stages = zip([0, *ends], ends, strict=False)
    return [stage for stage in stages for _ in range(candidate.tensor_parallel_size)]


def _request(
    model: ModelSpec,
    stage: tuple[int, int],
    candidate: Candidate,
    gpu: Gpu,
    wish: Wish,
    load: Workload,
) -> float:
    return m.request_mib(
        model.layers[stage[0] : stage[1]],
        load.context,
        kv_bytes=kv_bytes(wish),
        tensor_parallel_size=candidate.tensor_parallel_size,
        in_flight=batched_tokens(gpu, wish.flags),
    )


def _fixed(
    candidate: Candidate, model: ModelSpec, gpu: Gpu, wish: Wish, load: Workload
) -> tuple[int, int, int]:
    """(activations, graphs, overhead) of one rank."""
    seqs = load.concurrency
    tp, world = candidate.tensor_parallel_size, len(candidate.gpus) // candidate.replicas
    activations = activations_mib(model, tp, batched_tokens(gpu, wish.flags), seqs)
    overhead = CONTEXT_MIB + (NCCL_MIB if world > 1 else 0)
    graphs = 0.0 if "--enforce-eager" in wish.flags else graphs_mib(seqs)
    return ceil(activations), ceil(graphs), ceil(overhead)
