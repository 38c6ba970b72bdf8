"""What is known of GPU models: memory bandwidth, arithmetic per type, links; with sources.

The table is `multigpu/data/gpus.toml`. What a real host says of its own cards (clocks, bus width,
memory, compute capability) wins over it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from multigpu.gpus import gpu_names
from multigpu.gpus.gpu_models import GpuData, by_key, has_size, matches, models, named, near
from multigpu.hardware import Gpu, Vendor

__all__ = ["GpuData", "consumer", "gpu_data", "matches", "models", "named", "near"]

BELIEVED = (0.5, 1.5)
"""Clock times bus width is taken for the bandwidth within this range of the table's figure: beyond
it the driver counts clocks in another way."""


class Card(NamedTuple):
    """What a driver says of a card, as far as its data follow from it."""

    name: str
    vendor: Vendor
    memory_mib: int | None
    gfx: str | None
    compute_capability: tuple[int, int] | None
    memory_clock_max_mhz: int | None
    memory_bus_width_bits: int | None
    multiprocessors: int | None


def gpu_data(gpu: Gpu) -> GpuData | None:
    """The data of a card, its own clocks and bus width applied; None for a model not known.

    A card of an unknown model is known as far as it matters when its clocks, bus width and
    compute capability are: bandwidth from them, arithmetic per multiprocessor from its generation.
    """
    return _of_card(
        Card(
            gpu.name or "",
            gpu.vendor,
            gpu.memory_mib,
            gpu.gfx,
            gpu.compute_capability,
            gpu.memory_clock_max_mhz,
            gpu.memory_bus_width_bits,
            gpu.multiprocessors,
        )
    )


@lru_cache(maxsize=4096)
def _of_card(card: Card) -> GpuData | None:
    model = _by_name(card)
    if model is None:
        return _by_generation(card)
    width = card.memory_bus_width_bits or model.memory_bus_width_bits
    observed = None if model.unified_memory else _bandwidth_gb_s(card, width)
    known = model.memory_bandwidth_gb_s
    if observed is None or not BELIEVED[0] * known <= observed <= BELIEVED[1] * known:
        observed = known
    return replace(
        model,
        memory_mib=card.memory_mib or model.memory_mib,
        memory_bandwidth_gb_s=observed,
        compute_capability=card.compute_capability or model.compute_capability,
        gfx=card.gfx or model.gfx,
    )


def _by_name(card: Card) -> GpuData | None:
    """The model of a driver's name; where several share it, the one of that memory and gfx."""
    found: dict[str, GpuData] = {}
    for text in gpu_names.alternatives(card.name):
        found |= {each.name: each for each in by_key(text) if each.vendor is card.vendor}
    alike = [each for each in found.values() if card.gfx is None or each.gfx == card.gfx]
    sized = [each for each in alike if card.memory_mib and has_size(each, card.memory_mib)]
    rest = [each for each in sized or alike if not each.needs_size] or sized
    return min(rest, key=_slowest) if _same_bandwidth(rest) else None


def _slowest(each: GpuData) -> tuple[float, float]:
    """A name that stands for several models promises no more than the slowest of them."""
    return each.memory_bandwidth_gb_s, each.fp16_tflops


def _same_bandwidth(found: list[GpuData]) -> bool:
    rates = [each.memory_bandwidth_gb_s for each in found]
    return bool(rates) and max(rates) <= 1.1 * min(rates)


HBM2, HBM3 = ("gfx900", "gfx906", "gfx908", "gfx90a"), ("gfx942", "gfx950")
GDDR6 = ("gfx101", "gfx1030", "gfx1031", "gfx1032", "gfx1100", "gfx1101", "gfx1102", "gfx12")


def _transfers_per_clock(card: Card) -> int | None:
    """Bits of one pin in one memory clock as the driver counts it; None for AMD's processors.

    NVML's memory clock is half of the data rate for every memory type (RTX 3090: 9751 MHz, 19.5
    Gbit/s; A100: 1215 MHz, 2.43 Gbit/s). KFD's mem_clk_max is the clock of amdgpu: HBM2 twice, HBM3
    four times, GDDR6 sixteen times (RX 7900 XTX: 1249 MHz, 20 Gbit/s).
    """
    if card.vendor is Vendor.NVIDIA:
        return 2
    if card.gfx in HBM3:
        return 4
    if card.gfx in HBM2:
        return 2
    return 16 if (card.gfx or "").startswith(GDDR6) else None


def _bandwidth_gb_s(card: Card, width_bits: int | None) -> float | None:
    """Clock times width times transfers, in GB/s; None where one of them is unknown."""
    factor = _transfers_per_clock(card)
    if not (card.memory_clock_max_mhz and width_bits and factor):
        return None
    return round(card.memory_clock_max_mhz * factor * width_bits / 8 / 1000, 1)


def _by_generation(card: Card) -> GpuData | None:
    """A model that the table does not have, by what the driver says and a sibling's arithmetic."""
    bandwidth = _bandwidth_gb_s(card, card.memory_bus_width_bits)
    sibling = _sibling(card)
    if not (bandwidth and card.memory_mib and card.multiprocessors and sibling):
        return None
    share = card.multiprocessors / (sibling.multiprocessors or 1)
    return GpuData(
        name=card.name or "unnamed card",
        vendor=card.vendor,
        memory_mib=card.memory_mib,
        memory_bandwidth_gb_s=bandwidth,
        fp16_tflops=sibling.fp16_tflops * share,
        fp8_tflops=_scaled(sibling.fp8_tflops, share),
        int8_tops=_scaled(sibling.int8_tops, share),
        fp4_tflops=_scaled(sibling.fp4_tflops, share),
        compute_capability=card.compute_capability,
        gfx=card.gfx,
        pcie_gen=sibling.pcie_gen,
        multiprocessors=card.multiprocessors,
        memory_bus_width_bits=card.memory_bus_width_bits,
        source=f"the driver's clocks and bus width; arithmetic per multiprocessor: {sibling.name}",
    )


def _sibling(card: Card) -> GpuData | None:
    """The card of the same generation and market with the nearest count of multiprocessors."""
    if card.multiprocessors is None or (card.compute_capability is None and card.gfx is None):
        return None
    wanted = card.multiprocessors
    alike = [
        each
        for each in models()
        if each.vendor is card.vendor
        and (each.compute_capability, each.gfx) == (card.compute_capability, card.gfx)
        and consumer(each.name) == consumer(card.name)
    ]
    return min(alike, key=lambda each: abs((each.multiprocessors or 0) - wanted), default=None)


def consumer(name: str) -> bool:
    """True for a GeForce or Radeon RX: half rate with float32 sums, no peer access over PCIe."""
    return any(word in name.lower() for word in ("geforce", "radeon rx"))


def _scaled(value: float | None, share: float) -> float | None:
    return None if value is None else value * share
