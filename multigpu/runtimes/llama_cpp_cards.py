"""One card of llama-server: what it may hold, what its part takes, the longest context in it."""

from __future__ import annotations

from math import floor

from multigpu import memory as m
from multigpu.hardware import Gpu
from multigpu.plan import Memory, Wish
from multigpu.runtimes import llama_cpp_tensor as tensor
from multigpu.runtimes.llama_cpp_profile import Part
from multigpu.runtimes.llama_cpp_settings import KV_PAD, Slots
from multigpu.runtimes.llama_cpp_shares import Shares

# CUDA context, modules and cuBLAS of one process on one card, outside of llama.cpp's buffers. Ours
# on an H200 (driver 580.159.04): 597 to 607 MiB over 16 loads of four models, before any request;
# 700 leaves room for what kernels take from CUDA's pool while they run. On consumer cards 300 to
# 600 is reported; we have not measured one. HIP is taken to need as much as CUDA, and Vulkan, which
# has no such context and library, no more: both are inferred.
CONTEXT_MIB, LARGE_CONTEXT_MIB, LARGE_CARD_MIB = 512, 700, 65536
# Cache and compute buffer grow evenly with the context from NEAR on, where windows are full.
NEAR, FAR, UNLIMITED = 2**16, 2**17, 2**31
# Four terms are rounded up to whole MiB.
ROUNDING_MIB = 4


def context_mib(gpu: Gpu) -> int:
    """What a process takes of a card beside llama.cpp's buffers."""
    return LARGE_CONTEXT_MIB if (gpu.memory_mib or 0) >= LARGE_CARD_MIB else CONTEXT_MIB


def capacity_mib(gpu: Gpu, wish: Wish) -> float:
    """What llama-server may take of a card: what is free, less a margin."""
    return m.free_mib(gpu, wish) - m.FREE_MARGIN_MIB


class Card:
    """One card of a candidate: what it holds for a given share of the context."""

    def __init__(self, part: Part, gpu: Gpu, wish: Wish, streamed: float = 0.0) -> None:
        self.part, self.streamed = part, streamed
        room = m.room(gpu, wish)
        self.capacity = room.free_mib - m.FREE_MARGIN_MIB
        self.other = room.other_mib
        self.context = context_mib(gpu)

    def terms(self, share: Slots) -> tuple[float, float, float]:
        """Weights, cache and compute buffer in MiB."""
        cache, compute = self.part.held(share)
        return self.part.weights, cache, compute + self.streamed

    def total(self, share: Slots) -> float:
        """Everything in MiB, with what rounding up to whole MiB may add."""
        weights, cache, compute = self.terms(share)
        return weights + cache + compute + self.context + ROUNDING_MIB

    def fits(self, share: Slots) -> bool:
        return self.total(share) <= self.capacity

    def longest(self, count: int) -> int:
        """Tokens in all that fit this card when `count` slots share one cache."""
        near, far = Slots(NEAR, count, count > 1), Slots(FAR, count, count > 1)
        base = self.total(near)
        rate = (self.total(far) - base) / (FAR - NEAR)
        spare = self.capacity - base
        if rate <= 0:
            return UNLIMITED if spare >= 0 else 0
        return max(0, NEAR + floor(spare / rate)) // KV_PAD * KV_PAD

    def memory(self, share: Slots) -> Memory:
        weights, cache, compute = self.terms(share)
        return m.memory(weights, cache, compute, self.context, self.capacity, other=self.other)


class TensorCard(Card):
    """One of several cards that divide every layer."""

    def __init__(self, part: Part, gpu: Gpu, wish: Wish, share: Shares) -> None:
        super().__init__(part, gpu, wish)
        self.share = share

    def terms(self, share: Slots) -> tuple[float, float, float]:
        part, model = self.part, self.part.profile.model
        return (
            tensor.weights_mib(part, model, self.share),
            tensor.cache_mib(part, share, self.share),
            tensor.compute_mib(part, share),
        )
