"""Which attention llama.cpp's CUDA and ROCm devices take themselves.

Facts of 0.5.0-dev (0c1e57098): kernels from ggml_cuda_get_best_fattn_kernel in
ggml/src/ggml-cuda/fattn.cu, what `--flash-attn auto` comes to and which cache types are refused
from src/llama-context.cpp.
"""

from __future__ import annotations

from multigpu.model_spec import GgufFacts

# Head sizes with keys as wide as values; others by (key, value) and what their query heads per KV
# head must be a multiple of.
EVEN = {40, 64, 72, 80, 96, 112, 128, 256}
UNEVEN = {(192, 128): 8, (320, 256): 32, (512, 512): 1, (576, 512): 1}
TYPES = {"f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"}
# Elements that are quantized together; a head must be a multiple of it.
QUANTUM = 32
PLAIN = {"f32", "f16", "bf16"}


def taken(facts: GgufFacts, k_type: str, v_type: str) -> bool:
    """True when the card does flash attention of all blocks; heads that are not known pass."""
    return {k_type, v_type} <= TYPES and not misfits(facts)


def misfits(facts: GgufFacts) -> list[tuple[int, int]]:
    """(Key, value) sizes of the heads that no kernel is for."""
    return [(k, v) for k, v, ratio in facts.head_sizes if not _kernel(k, v, ratio)]


def _kernel(key: int, value: int, ratio: int) -> bool:
    if key in EVEN:
        return value == key
    multiple = UNEVEN.get((key, value))
    return multiple is not None and ratio > 1 and ratio % multiple == 0


def indivisible(facts: GgufFacts, k_type: str, v_type: str) -> tuple[str, int] | None:
    """A cache type and a head size that it does not divide; llama-server refuses it and ends."""
    for key, value, _ in facts.head_sizes:
        for kind, size in ((k_type, key), (v_type, value)):
            if kind not in PLAIN and size % QUANTUM:
                return kind, size
    return None
