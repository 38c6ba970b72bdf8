"""How much of each card a runtime will hold: weights, KV cache, activations, overhead.

The KV rule is one for all runtimes: every engine must hold `context` tokens for each of its share
of `concurrency` requests. vLLM then takes the whole rest of its fraction as KV cache; llama.cpp
takes exactly what it was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import ceil, floor

from multigpu.hardware import Gpu, Host
from multigpu.plan import Candidate, LayerCache, Memory, ModelSpec, Wish

MIB = 1024 * 1024

# CUDA reports less than nvidia-smi: about 23.5 of 24.0 GiB on a 24 GB card, 79.18 of 79.65 GiB on
# an H100 (llm-d-planner). NVML's own `reserved` is used instead when it is known.
CUDA_RESERVED_MIB = 512
# A share of free memory that other programs may take between the plan and the start.
FREE_MARGIN_MIB = 256
# vLLM's default for --gpu-memory-utilization (0.33.0).
GPU_MEMORY_UTILIZATION = 0.92
# Norms, routers and replicated KV heads are not sharded: weights at TP=2 measured at 1.01 to 1.05
# times one half (46 boot logs of vLLM 0.11 to 0.13).
TP_REPLICATED = 1.03
# Memory outside of torch, measured with vLLM 0.11 on H100: 0.13 GiB alone, 0.55 GiB with NCCL.
VLLM_CONTEXT_MIB, NCCL_MIB = 150, 420
# 50 to 100 MB per captured CUDA graph (vLLM boot logs), and never more than 1.8 GiB printed.
GRAPH_MIB, GRAPHS_MAX_MIB = 80, 1024
# vLLM keeps several float32 copies of the logits of one step while it samples; three fit the logs.
LOGIT_COPIES = 3
BLOCK_TOKENS = 16
# llama.cpp: CUDA context and cuBLAS of one process on one card, outside of its own buffers.
GGML_CONTEXT_MIB = 512
GGML_UBATCH = 512
# `pipeline parallelism enabled (n_copies=4)`: inputs of a step are kept once per copy.
GGML_COPIES = 4
GGML_KV_PAD = 256

CACHE_TYPE_BYTES = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}


def cuda_total_mib(gpu: Gpu) -> float:
    """The card's memory as CUDA reports it."""
    reserved = gpu.memory_reserved_mib
    lost = CUDA_RESERVED_MIB if reserved is None else reserved
    return float(max(1, (gpu.memory_mib or 0) - lost))


def free_mib(gpu: Gpu, wish: Wish) -> float:
    """Free memory, as if this service's own running processes were gone."""
    if gpu.memory_free_mib is None:
        return cuda_total_mib(gpu)
    own = re.compile(rf"multigpu-{re.escape(wish.name)}(-\d+)?\.service")
    ours = sum(
        process.used_memory_mib or 0
        for process in gpu.processes
        if process.unit is not None and own.fullmatch(process.unit)
    )
    return min(float(gpu.memory_free_mib + ours), cuda_total_mib(gpu))


def engine_concurrency(candidate: Candidate, wish: Wish) -> int:
    """Requests that one engine serves at a time: replicas share them."""
    return ceil(wish.concurrency / candidate.replicas)


def vllm_kv_bytes(flags: Mapping[str, str | None]) -> float:
    """Bytes per cached element under `--kv-cache-dtype` (auto: 2)."""
    dtype = flags.get("--kv-cache-dtype") or "auto"
    if dtype.startswith(("fp8", "int8")):
        return 1.02
    return 0.5625 if dtype.startswith("nvfp4") else 2.0


def llama_cpp_kv_bytes(flags: Mapping[str, str | None]) -> float:
    """Bytes per cached element, the mean of `--cache-type-k` and `--cache-type-v` (f16: 2)."""
    k, v = (flags.get(f"--cache-type-{x}") or "f16" for x in "kv")
    return (CACHE_TYPE_BYTES.get(k, 2.0) + CACHE_TYPE_BYTES.get(v, 2.0)) / 2


def request_mib(
    layers: Iterable[LayerCache],
    context: int,
    *,
    kv_bytes: float,
    tensor_parallel_size: int = 1,
    in_flight: int = 0,
    pad: int = BLOCK_TOKENS,
) -> float:
    """KV cache and state of one request of `context` tokens on one card.

    `in_flight` tokens of a prefill step widen a sliding window, `pad` is the block of tokens.
    KV heads are divided by tensor parallel down to one per card; MLA is not divided at all.
    """
    return (
        sum(
            _request_bytes(layer, context, kv_bytes, tensor_parallel_size, in_flight, pad)
            for layer in layers
        )
        / MIB
    )


def _request_bytes(
    layer: LayerCache, context: int, kv_bytes: float, tp: int, in_flight: int, pad: int
) -> float:
    width = layer.element_bytes or kv_bytes
    if layer.kind == "none":
        return 0.0
    if layer.kind == "state":
        return ceil(layer.elements / tp) * width
    tokens = context
    if layer.kind == "sliding":
        tokens = min((layer.window or context) + in_flight, context)
    tokens = ceil(tokens / pad) * pad
    if layer.kind == "mla":
        return tokens * layer.elements * width
    return tokens * 2 * max(1, ceil(layer.num_key_value_heads / tp)) * layer.head_dim * width


def batched_tokens(gpu: Gpu, flags: Mapping[str, str | None]) -> int:
    """`--max-num-batched-tokens`: vLLM's server default is 2048, and 8192 from 70 GiB."""
    given = flags.get("--max-num-batched-tokens")
    if given is not None and given.isdigit():
        return int(given)
    return 8192 if (gpu.memory_mib or 0) >= 70 * 1024 else 2048


def ffn_size(model: ModelSpec) -> int:
    """Intermediate elements of one token: of the experts it is routed to, or the dense ones."""
    routed = (model.num_experts_per_tok or 8) * (model.moe_intermediate_size or 0)
    return max(routed, model.intermediate_size or 4 * model.hidden_size)


def vllm_activations_mib(model: ModelSpec, tp: int, batched: int, max_num_seqs: int) -> float:
    """Peak of the profiling step: the larger of a full forward step and sampling.

    Eight hidden and four intermediate vectors per token. With VLLM_CONTEXT_MIB the KV pools of ten
    boot logs (vLLM 0.12, 24 to 40 GB cards, max_num_seqs 256) come out between 0.41 GiB too small
    and 0.03 GiB too large; not calibrated on 0.33.
    """
    forward = batched * (8 * model.hidden_size + 4 * ceil(ffn_size(model) / tp)) * 2
    return max(forward, max_num_seqs * model.vocab_size * 4 * LOGIT_COPIES) / MIB


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
        (free_mib(gpu, wish) - FREE_MARGIN_MIB) / cuda_total_mib(gpu)
        for gpu in (host.gpu(i) for i in candidate.gpus)
    )
    return max(0.01, min(GPU_MEMORY_UTILIZATION, floor(free * 100) / 100))


def vllm_weights_mib(model: ModelSpec, layers: tuple[int, int], tp: int) -> float:
    """Weights of one rank that holds the blocks [start, end) of `layers`."""
    start, end = layers
    held = sum(model.layers_mib[start:end])
    last = end == model.num_hidden_layers
    if start == 0 or (last and model.tie_word_embeddings):
        held += model.embedding_mib
    if last:
        held += model.output_mib
    return held / tp * (TP_REPLICATED if tp > 1 else 1.0)


def memory(
    weights: float, kv: float, activations: float, overhead: float, capacity: float
) -> Memory:
    """Whole MiB, so that sums are exact: what is held rounded up, what there is rounded down."""
    held = [float(ceil(value)) for value in (weights, kv, activations, overhead)]
    return Memory(held[0], held[1], held[2], held[3], float(floor(capacity)))


def headroom_tokens(candidate: Candidate) -> int:
    """Tokens that one engine could cache if the spare memory of its cards were used as well."""
    if candidate.kv_tokens is None or not candidate.memory:
        return 0
    factors = [
        (m.capacity_mib - m.total_mib + m.kv_cache_mib) / m.kv_cache_mib
        for m in candidate.memory
        if m.kv_cache_mib > 0
    ]
    return max(0, floor(candidate.kv_tokens * min(factors, default=1.0)))
