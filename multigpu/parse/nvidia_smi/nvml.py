"""What the probe asked NVML for: memory bus width, multiprocessors, largest clocks by card.

NVML counts cores (nvmlDeviceGetNumGpuCores); a multiprocessor has 64 of them on P100, V100, Turing
and A100, 128 on all others since Maxwell (CUDA C++ Programming Guide, arithmetic throughput).
"""

from __future__ import annotations

from dataclasses import replace

from multigpu.hardware import Gpu
from multigpu.parse import pci
from multigpu.parse.shape import integer, mapping

CORES = {(6, 0): 64, (7, 0): 64, (7, 2): 64, (7, 5): 64, (8, 0): 64}
CORES_SINCE_MAXWELL = 128
WIDEST_BITS, FASTEST_MHZ, MOST_CORES = 1 << 16, 100_000, 1 << 20


def with_nvml(gpus: tuple[Gpu, ...], section: object) -> tuple[Gpu, ...]:
    """The cards with what NVML says of those of the same PCI address."""
    told = {pci.address(name): mapping(values) for name, values in mapping(section).items()}
    return tuple(_with(gpu, told.get(gpu.pci_bus_id)) for gpu in gpus)


def _with(gpu: Gpu, values: dict[str, object] | None) -> Gpu:
    if not values or gpu.error is not None:
        return gpu
    cores = _number(values, "num_gpu_cores", MOST_CORES)
    each = CORES.get(gpu.compute_capability or (0, 0), CORES_SINCE_MAXWELL)
    known = gpu.compute_capability is not None and cores is not None
    return replace(
        gpu,
        memory_bus_width_bits=_number(values, "memory_bus_width", WIDEST_BITS),
        memory_clock_max_mhz=gpu.memory_clock_max_mhz
        or _number(values, "max_mem_clock", FASTEST_MHZ),
        sm_clock_max_mhz=gpu.sm_clock_max_mhz or _number(values, "max_sm_clock", FASTEST_MHZ),
        multiprocessors=cores // each if known and cores else None,
    )


def _number(values: dict[str, object], name: str, most: int) -> int | None:
    """A count above 0 and below what can be."""
    value = integer(values.get(name))
    return value if value is not None and 0 < value <= most else None
