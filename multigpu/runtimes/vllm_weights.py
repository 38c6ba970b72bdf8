"""Weights of one rank as vLLM 0.33.0 shards them.

Column and row parallel matrices are divided by the tensor parallel size; norms, routers and latent
projections are kept whole by every rank, KV heads are repeated where there are fewer than ranks
(`QKVParallelLinear`), a vision tower is not divided, the embedding and lm_head are divided by
vocabulary, padded to 64 (`VocabParallelEmbedding`). Experts are divided by tensor parallel or dealt
out whole by expert parallel. What a kernel keeps resident may be more than the file holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from math import ceil

from multigpu.hardware import Gpu, Vendor
from multigpu.memo import memo
from multigpu.plan import ModelSpec

VOCAB_PADDING = 64
# Where the shapes do not say what is kept whole: weights at TP=2 were 1.01 to 1.05 halves (30B-A3B
# GPTQ, 14B FP8, gemma-3-12b with its tower; boot logs of 0.11 to 0.13).
UNKNOWN_REPLICATED = 0.01
# torch's allocator gives a large matrix whole blocks of 2 MiB (14B FP8: 3 MiB lost per layer, 8B in
# bfloat16: nothing).
ALLOCATION = 2 * 1024 * 1024
# What a matrix takes on the card against the checkpoint, where kernels repack it: ROCm keeps rows
# of FP8 padded, and what its kernels of 4-bit weights unpack (boot logs of R9700: 14B FP8 1.005,
# 30B-A3B GPTQ 1.026, Qwen3-Next-80B 1.05).
RESIDENT = {
    (Vendor.AMD, "fp8"): 1.005,
    (Vendor.AMD, "gptq"): 1.026,
    (Vendor.AMD, "w4a16"): 1.05,
    (Vendor.AMD, "awq"): 1.05,
}
# Of a tied embedding below a vision tower an FP8 checkpoint of compressed-tensors keeps a second,
# quantized lm_head (gemma-3-12b: 0.94 GiB more at TP=1, half of it at TP=2).
SECOND_LM_HEAD = 0.5
# Marlin and the TensorRT-LLM kernels take MXFP4 experts with the hidden size padded to 256; Marlin
# pads the expert size to 128 as well (`mxfp4_round_up_hidden_size_and_intermediate_size`).
# gpt-oss-20b: 13.72 GiB on cards without native FP4, gpt-oss-120b: 64.38 GiB on H100.
MXFP4_HIDDEN, MXFP4_EXPERT = 256, 128


@dataclass(frozen=True)
class Sums:
    """Running sums over the blocks, beginning with 0: all weights, experts, what is kept whole."""

    layers: tuple[float, ...]
    experts: tuple[float, ...]
    replicated: tuple[float, ...]
    key_value: tuple[float, ...]


def sums(model: ModelSpec) -> Sums:
    """Made once per model."""
    kept = memo(model)
    found = kept.get("vllm-weight-sums")
    if found is None:
        found = kept["vllm-weight-sums"] = _sums(model)
    return found


def _sums(model: ModelSpec) -> Sums:
    nothing = (0.0,) * len(model.layers_mib)
    replicated = model.replicated_mib or tuple(x * UNKNOWN_REPLICATED for x in model.layers_mib)
    width = _element_bytes(model)
    key_value = tuple(
        2 * model.hidden_size * layer.num_key_value_heads * layer.head_dim * width / 1024**2
        for layer in model.layers
    )
    return Sums(
        layers=(0.0, *accumulate(model.layers_mib)),
        experts=(0.0, *accumulate(model.experts_mib or nothing)),
        replicated=(0.0, *accumulate(replicated)),
        key_value=(0.0, *accumulate(key_value)),
    )


def _element_bytes(model: ModelSpec) -> float:
    """Bytes per weight of a matrix inside the blocks, from the whole where the count is known."""
    return {None: 2.0, "fp8": 1.0, "w8a8": 1.0, "w8a16": 1.0}.get(model.quantization, 0.56)


def weights_mib(
    model: ModelSpec,
    layers: tuple[int, int],
    tp: int,
    gpu: Gpu | None = None,
    *,
    expert_parallel: bool = False,
) -> float:
    """Weights of one rank that holds the blocks [start, end) of `layers`, in MiB."""
    start, end = layers
    s = sums(model)
    whole = s.replicated[end] - s.replicated[start]
    experts = s.experts[end] - s.experts[start]
    divided = s.layers[end] - s.layers[start] - whole - experts
    repeated = (s.key_value[end] - s.key_value[start]) * _repeats(model, tp)
    per_rank = _dealt(model, tp) if expert_parallel else 1 / tp
    held = (divided + repeated) / tp + whole
    held += experts * per_rank * experts_factor(model, tp, gpu, expert_parallel=expert_parallel)
    if gpu is not None:
        held *= resident(model, gpu)
    held += (end - start) * rounded_mib(model, tp)
    return held + outer_mib(model, tp, first=start == 0, last=end == model.num_hidden_layers)


def outer_mib(model: ModelSpec, tp: int, *, first: bool = False, last: bool = False) -> float:
    """Embedding and tower of the first stage, lm_head of the last (tied: the embedding again)."""
    padded = ceil(model.vocab_size / VOCAB_PADDING) * VOCAB_PADDING / model.vocab_size / tp
    held = 0.0
    if first or (last and model.tie_word_embeddings):
        held += model.embedding_mib * padded
    if last:
        held += model.output_mib * padded
        if model.tie_word_embeddings and model.vision_mib and model.quantization == "fp8":
            held += model.embedding_mib * padded * SECOND_LM_HEAD
    return held + (model.vision_mib if first else 0.0)


def resident(model: ModelSpec, gpu: Gpu) -> float:
    """What the blocks take on this card against the checkpoint."""
    if gpu.vendor is Vendor.NVIDIA and model.quantization == "gptq":
        # Marlin drops the zero points of a symmetric checkpoint, 4 bits a group.
        group = model.group_size if model.group_size and model.group_size > 0 else 128
        return 1 - 0.5 / group / (0.5 + 2.5 / group)
    return RESIDENT.get((gpu.vendor, model.quantization or ""), 1.0)


def rounded_mib(model: ModelSpec, tp: int) -> float:
    """What one dense block loses to whole allocations; 0 where matrices are packed or experts."""
    kept = memo(model)
    key = ("vllm-rounded", tp)
    if key not in kept:
        kept[key] = _rounded_mib(model, tp)
    return kept[key]  # type: ignore[no-any-return]


def _rounded_mib(model: ModelSpec, tp: int) -> float:
    width = {None: 2, "fp8": 1, "w8a8": 1}.get(model.quantization)
    if width is None or model.num_experts or not model.intermediate_size:
        return 0.0
    queries = model.num_attention_heads * model.head_dim
    keys = 2 * model.num_key_value_heads * model.head_dim
    rows = (queries + keys, queries, 2 * model.intermediate_size, model.intermediate_size)
    sizes = (n * model.hidden_size * width // tp for n in rows)
    return sum(-size % ALLOCATION for size in sizes) / 1024**2


def _repeats(model: ModelSpec, tp: int) -> float:
    """How many times more often KV heads are held over all ranks than once."""
    heads = max(1, model.num_key_value_heads)
    return max(0.0, tp / heads - 1.0)


def _dealt(model: ModelSpec, tp: int) -> float:
    """The share of the experts on the fullest rank of expert parallel."""
    experts = model.num_experts or tp
    return ceil(experts / tp) / experts


def experts_factor(
    model: ModelSpec, tp: int, gpu: Gpu | None, *, expert_parallel: bool = False
) -> float:
    """What the experts take on this card against the checkpoint: MXFP4 kernels pad them."""
    if model.quantization != "mxfp4" or not model.moe_intermediate_size:
        return 1.0
    hidden = _rounded(model.hidden_size, MXFP4_HIDDEN)
    if gpu is not None and (gpu.compute_capability or (0, 0))[0] in (9, 10):
        return hidden
    share = model.moe_intermediate_size // (1 if expert_parallel else tp)
    return hidden * _rounded(max(1, share), MXFP4_EXPERT)


def _rounded(size: int, multiple: int) -> float:
    return ceil(size / multiple) * multiple / size
