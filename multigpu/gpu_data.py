"""What is known of GPU models: memory bandwidth, arithmetic per type, links; with sources.

The table is `multigpu/data/gpus.toml`. What a real host says of its own cards (clocks, bus width,
memory, compute capability) wins over it.
"""

from __future__ import annotations

from dataclasses import dataclass

from multigpu.hardware import Gpu, Vendor


@dataclass(frozen=True)
class GpuData:
    """One GPU model. Dense arithmetic in TFLOP/s (INT8: TOP/s), None where the card has none.

    `fp16_tflops` is what matrix units do in float16 or bfloat16 with float32 sums (GeForce: half of
    the figure with float16 sums). `nvlink_gb_s` is the sum of both directions over all links of one
    card; 0 where it has none. `pcie_gen` and `pcie_lanes` are the card's own best.
    """

    name: str
    vendor: Vendor
    memory_mib: int
    memory_bandwidth_gb_s: float
    fp16_tflops: float
    fp8_tflops: float | None = None
    int8_tops: float | None = None
    fp4_tflops: float | None = None
    compute_capability: tuple[int, int] | None = None
    gfx: str | None = None
    pcie_gen: int | None = None
    pcie_lanes: int = 16
    nvlink_gb_s: float = 0.0
    power_w: float | None = None
    source: str = ""


def gpu_data(gpu: Gpu) -> GpuData | None:
    """The data of a card, its own clocks and bus width applied; None for a model not known."""
    return None


def named(text: str) -> GpuData | None:
    """The model that a person or a driver calls so (`RTX 3090`, `NVIDIA GeForce RTX 3090`)."""
    return None
