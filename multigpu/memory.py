"""What a card has: memory as CUDA reports it, what is free of it, and what a request caches.

How much of it a runtime takes is in `multigpu/runtimes/*_memory.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from math import ceil, floor
from typing import NamedTuple

from multigpu.hardware import Gpu, Vendor
from multigpu.memo import memo
from multigpu.plan import Candidate, LayerCache, Memory, ModelSpec, Wish, Workload

MIB = 1024 * 1024

# CUDA reports less than nvidia-smi: the driver keeps some of it (NVML's `reserved`, which is used
# where it is known). MiB kept, by what nvidia-smi reports; from the "total capacity" of PyTorch's
# out of memory messages: 23.69 GiB of an RTX 3090, 23.64 of an RTX 4090, 31.36 of an RTX 5090,
# 39.49 of an A100 40GB, 79.25 of an A100 80GB, 79.18 of an H100, 47.53 of an RTX A6000.
CUDA_RESERVED_MIB = {
    11264: 250,
    12288: 248,
    15360: 440,
    16384: 235,
    16380: 400,
    23028: 300,
    23034: 470,
    24564: 357,
    24576: 317,
    32607: 494,
    32760: 504,
    32768: 266,
    40960: 523,
    46068: 590,
    49140: 470,
    81559: 479,
    81920: 768,
    97887: 640,
    143771: 620,
}
# Of a card that is not listed: between 1.3 % (RTX 3090) and 2 % (RTX 4060 Ti), at most 640 MiB.
CUDA_RESERVED_SHARE, CUDA_RESERVED_MOST_MIB = 0.015, 640
# A share of free memory that other programs may take between the plan and the start.
FREE_MARGIN_MIB = 256
BLOCK_TOKENS = 16


def cuda_total_mib(gpu: Gpu) -> float:
    """The card's memory as CUDA reports it; HIP reports all of it."""
    total = gpu.memory_mib or 0
    lost = gpu.memory_reserved_mib
    if lost is None:
        lost = 0 if gpu.vendor is Vendor.AMD or gpu.unified_memory else reserved_mib(total)
    return float(max(1, total - lost))


def reserved_mib(total: int) -> int:
    """What the NVIDIA driver keeps of a card of that size."""
    known = CUDA_RESERVED_MIB.get(total)
    if known is not None:
        return known
    return round(min(CUDA_RESERVED_MOST_MIB, CUDA_RESERVED_SHARE * total))


class Room(NamedTuple):
    """Memory of one card in MiB: as CUDA reports it, free for this service, held by others."""

    total_mib: float
    free_mib: float
    other_mib: float


def room(gpu: Gpu, wish: Wish) -> Room:
    """Kept with the card; free is counted as if this service's own running processes were gone."""
    known = memo(gpu)
    # Only what runs on a card makes the name of the service matter.
    key = ("room", wish.name if gpu.processes else None)
    found: Room | None = known.get(key)
    if found is None:
        found = known[key] = _room(gpu, wish)
    return found


def _room(gpu: Gpu, wish: Wish) -> Room:
    total = cuda_total_mib(gpu)
    if gpu.memory_free_mib is None:
        return Room(total, total, 0.0)
    ours = _own_mib(gpu, wish) if gpu.processes else 0
    free = min(float(gpu.memory_free_mib + ours), total)
    return Room(total, free, total - free)


def free_mib(gpu: Gpu, wish: Wish) -> float:
    """Free memory, as if this service's own running processes were gone."""
    return room(gpu, wish).free_mib


def _own_mib(gpu: Gpu, wish: Wish) -> int:
    own = re.compile(rf"multigpu-{re.escape(wish.name)}(-\d+)?\.service")
    return sum(
        process.used_memory_mib or 0
        for process in gpu.processes
        if process.unit is not None and own.fullmatch(process.unit)
    )


def other_mib(gpu: Gpu, wish: Wish) -> float:
    """What other programs hold of the card already."""
    return room(gpu, wish).other_mib


def engine_concurrency(candidate: Candidate, load: Workload) -> int:
    """Requests that one engine serves at a time: replicas share them."""
    return ceil(load.concurrency / candidate.replicas)


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
    if layer.sequence_bytes:
        divided = 1 if layer.kind == "mla" else tp
        rest = replace(layer, sequence_bytes=0)
        return layer.sequence_bytes / divided + _request_bytes(
            rest, context, kv_bytes, tp, in_flight, pad
        )
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


def ffn_size(model: ModelSpec) -> int:
    """Intermediate elements of one token: of the experts it is routed to, or the dense ones."""
    routed = (model.num_experts_per_tok or 8) * (model.moe_intermediate_size or 0)
    return max(routed, model.intermediate_size or 4 * model.hidden_size)


def memory(
    weights: float,
    kv: float,
    activations: float,
    overhead: float,
    capacity: float,
    graphs: float = 0.0,
    other: float = 0.0,
) -> Memory:
    """Whole MiB, so that sums are exact: what is held rounded up, what there is rounded down."""
    held = [float(ceil(value)) for value in (weights, kv, activations, overhead)]
    whole = (float(floor(capacity)), float(ceil(graphs)), float(ceil(other)))
    return Memory(held[0], held[1], held[2], held[3], *whole)


def all_fit(cards: Iterable[Memory]) -> bool:
    """True where each card holds its share; like cards of an engine are one object, asked once."""
    last = None
    for memory in cards:
        if memory is not last and not memory.fits:
            return False
        last = memory
    return True


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
