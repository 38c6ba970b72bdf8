"""What llama.cpp could serve, but not with memory that is known beforehand."""

from __future__ import annotations

from collections.abc import Iterator

from multigpu.plan import Candidate, ModelSpec, Reason, Strategy
from multigpu.runtimes import llama_cpp_attention as attention
from multigpu.runtimes.llama_cpp_facts import facts_of
from multigpu.runtimes.llama_cpp_settings import Settings


def shared_cache(candidate: Candidate, model: ModelSpec) -> Iterator[Reason]:
    """Blocks that read the cache of earlier ones have it copied to their card, step by step.

    Seen with gemma3n over two devices: up to 2.5 GiB beyond the other compute buffers at 131,072
    tokens (llama-server 0.5.0-dev).
    """
    shared = model.gguf is not None and model.gguf.shared_cache
    if shared and candidate.strategy is Strategy.LAYER_SPLIT:
        found = f"the last blocks of {model.model_type} read the KV cache of earlier ones"
        hint = "serve it on one card, it is small; or as replicas"
        yield Reason("shared-cache", found, "all of them on one card", hint)


def cache_types(model: ModelSpec, settings: Settings) -> Iterator[Reason]:
    """A quantized cache needs flash attention, heads that its blocks divide, and a kernel."""
    facts, kinds = facts_of(model), (settings.k_type, settings.v_type)
    quantized = [kind for kind in kinds if kind not in attention.PLAIN]
    if not quantized:
        return
    plain = "take kv_cache_dtype f16"
    v_type = settings.v_type
    if settings.flash_attn is False and v_type in quantized:
        hint = "leave --flash-attn out, or take f16 for V"
        yield Reason("kv-cache-flash", f"V in {v_type}, --flash-attn off", "flash attention", hint)
    uneven = attention.indivisible(facts, *kinds)
    if uneven is not None:
        kind, size = uneven
        needed = f"a multiple of {attention.QUANTUM}"
        yield Reason("kv-cache-heads", f"heads of {size} elements, cache {kind}", needed, plain)
    elif v_type in quantized and not attention.taken(facts, *kinds):
        sizes = attention.misfits(facts)
        what = f"heads of {sizes[0][0]} elements" if sizes else f"a cache in {'/'.join(kinds)}"
        found = f"{what}: the CPU would do the attention"
        yield Reason("kv-cache-heads", found, "a CUDA kernel of flash attention", plain)
