"""The largest models that given cards could carry, by bits per weight."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

from multigpu import memory as m
from multigpu.hardware import Gpu, Host
from multigpu.plan import ModelSize, Plan

# Bits per weight as files and checkpoints really take them. Q4_K_M 4.8 to 4.9 (llama.cpp,
# tools/quantize/README.md, Llama 3.1 8B: 4.89), AWQ and GPTQ with groups of 128 4.25 in the linear
# layers and 16 in embedding and head; Q8_0 is 8.5 exactly.
EFFECTIVE_BITS = {4: 4.85, 8: 8.5, 16: 16.0}
KV_SHARE = 0.1
"""Left for KV cache when the largest model is computed; a request of a few thousand tokens."""
USABLE_SHARE = 0.92
"""vLLM's default for --gpu-memory-utilization (0.33.0)."""
CONTEXT_MIB = 2048
"""Activations, CUDA graphs and context where the plan does not say them of a card."""


def sizes(plan: Plan, host: Host, gpus: Sequence[Gpu]) -> tuple[ModelSize, ...]:
    """The largest models that these cards could carry instead, by bits per weight.

    One engine over all cards has their sum (a pipeline or layer split reaches it on any mix), a
    copy on every card what the smallest holds.
    """
    vendor = host.gpu(plan.chosen.gpus[0]).vendor
    alike = [gpu for gpu in gpus if gpu.vendor is vendor]
    fixed = max(
        (c.activations_mib + c.graphs_mib + c.overhead_mib for c in plan.chosen.memory),
        default=CONTEXT_MIB,
    )
    rooms = [
        max(0.0, USABLE_SHARE * m.free_mib(gpu, plan.wish) - fixed) * (1 - KV_SHARE)
        for gpu in alike
    ]
    return tuple(
        ModelSize(bits, _billions(sum(rooms), effective), _billions(min(rooms), effective))
        for bits, effective in EFFECTIVE_BITS.items()
    )


def _billions(room_mib: float, bits: float) -> float:
    """Parameters in 1e9, rounded down to a tenth."""
    return floor(room_mib * m.MIB * 8 / bits / 1e8) / 10
