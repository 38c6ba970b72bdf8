"""What the simulated NVML says, asked through the real nvidia-ml-py, as a `Host`.

Nothing is invented here: what that NVML does not know stays None. A card that is lost cannot say
its own address; that comes from the machine's table.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pynvml as nvml

from multigpu.hardware import Gpu, GpuPair, GpuProcess, Host, P2p, PcieLink
from multigpu.hardware import Path as PciPath
from tests.rigs.nvidia_nodes import LOST

TABLE = Path(os.environ.get("SIMULATED_GPU_TABLE", "/etc/simulated-gpu/table.ini"))
# nvmlGpuTopologyLevel_t, nvmlGpuP2PStatus_t and nvmlDeviceArchitecture_t of nvml.h.
PATHS = {10: PciPath.PIX, 20: PciPath.PXB, 30: PciPath.PHB, 40: PciPath.NODE, 50: PciPath.SYS}
GRANTS = dict(enumerate(P2p(word) for word in ("OK", "CNS", "GNS", "TNS", "DR", "NS", "U")))
ARCHITECTURES = {6: "Turing", 7: "Ampere", 8: "Ada Lovelace", 9: "Hopper"}
COMPUTE_MODES = {0: "Default", 2: "Prohibited", 3: "Exclusive_Process"}
# pynvml's own constants are tuples by mistake in 13.615.71.
P2P_READ, P2P_WRITE = 0, 1
MOST_LINKS = 18
# One link in one direction by NVLink version; third-generation bridges run at this rate.
LINK_GB_S = {3: 14.062}

Handle = Any


def versions() -> tuple[str, str]:
    """Driver and CUDA."""
    cuda = nvml.nvmlSystemGetCudaDriverVersion()
    return nvml.nvmlSystemGetDriverVersion(), f"{cuda // 1000}.{cuda % 1000 // 10}"


def host() -> Host:
    """Every card and every pair of cards that answer. Raises NVMLError without a driver."""
    handles = dict(answering())
    found = [
        told(card, index, handles[index]) if index in handles else None
        for index in range(nvml.nvmlDeviceGetCount())
    ]
    gpus = tuple(gpu or lost(index) for index, gpu in enumerate(found))
    alive = [gpu.index for gpu in gpus if gpu.error is None]
    pairs = tuple(pair(a, b, handles[a], handles[b]) for a, b in combinations(alive, 2))
    return Host("simulated", gpus, pairs, simulated=True)


def answering() -> Iterator[tuple[int, Handle]]:
    """Index and handle of the cards that are not lost."""
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = told(nvml.nvmlDeviceGetHandleByIndex, index)
        if handle is not None:
            yield index, handle


def utilization() -> dict[int, int | None]:
    """Percent by index. The first question takes the time of one sample."""
    rates = {i: told(nvml.nvmlDeviceGetUtilizationRates, handle) for i, handle in answering()}
    return {index: rate and rate.gpu for index, rate in rates.items()}


def told(function: Callable[..., Any], *arguments: object) -> Any:
    """The answer, None where there is none."""
    try:
        return function(*arguments)
    except nvml.NVMLError:
        return None


# --- one card ------------------------------------------------------------------------------------


def lost(index: int) -> Gpu:
    """The row of a card that has fallen off the bus."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    places = [line.split("=")[1].strip() for line in lines if line.startswith("pci_bus_id")]
    return Gpu(index, pci_bus_id=places[index], error=LOST)


def card(index: int, handle: Handle) -> Gpu:
    """One card that answers."""
    ecc, mig = told(nvml.nvmlDeviceGetEccMode, handle), told(nvml.nvmlDeviceGetMigMode, handle)
    display = told(nvml.nvmlDeviceGetDisplayActive, handle)
    persistence = told(nvml.nvmlDeviceGetPersistenceMode, handle)
    state = told(nvml.nvmlDeviceGetPerformanceState, handle)
    return Gpu(
        index=index,
        uuid=told(nvml.nvmlDeviceGetUUID, handle),
        name=told(nvml.nvmlDeviceGetName, handle),
        pci_bus_id=address(handle),
        pcie=link(handle),
        numa_node=told(nvml.nvmlDeviceGetNumaNodeId, handle),
        compute_capability=told(nvml.nvmlDeviceGetCudaComputeCapability, handle),
        architecture=ARCHITECTURES.get(told(nvml.nvmlDeviceGetArchitecture, handle)),
        ecc=None if ecc is None else bool(ecc[0]),
        mig=None if mig is None else bool(mig[0]),
        display_attached=None if display is None else bool(display),
        persistence_mode=None if persistence is None else bool(persistence),
        performance_state=None if state is None else f"P{state}",
        compute_mode=COMPUTE_MODES.get(told(nvml.nvmlDeviceGetComputeMode, handle)),
        temperature_c=told(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
        cpu_affinity=cpus(handle),
        nvlinks_gb_s=nvlinks(handle),
        processes=processes(handle),
        unified_memory=False,
        **memory(handle),
        **power(handle),
    )


def address(handle: Handle) -> str:
    """`0000:01:00.0`, as the kernel spells it."""
    pci = nvml.nvmlDeviceGetPciInfo(handle)
    return f"{pci.domain:04x}:{pci.bus:02x}:{pci.device:02x}.0"


def link(handle: Handle) -> PcieLink:
    """The card's own link; NVML tells nothing of the port above it."""
    return PcieLink(
        gen_current=told(nvml.nvmlDeviceGetCurrPcieLinkGeneration, handle),
        gen_max=told(nvml.nvmlDeviceGetMaxPcieLinkGeneration, handle),
        width_current=told(nvml.nvmlDeviceGetCurrPcieLinkWidth, handle),
        width_max=told(nvml.nvmlDeviceGetMaxPcieLinkWidth, handle),
        gen_gpu_max=told(nvml.nvmlDeviceGetGpuMaxPcieLinkGeneration, handle),
    )


def memory(handle: Handle) -> dict[str, Any]:
    """VRAM and the window on it."""
    vram = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    window = nvml.nvmlDeviceGetBAR1MemoryInfo(handle)
    return {
        "memory_mib": vram.total >> 20,
        "memory_reserved_mib": vram.reserved >> 20,
        "memory_used_mib": vram.used >> 20,
        "memory_free_mib": vram.free >> 20,
        "bar1_memory_mib": window.bar1Total >> 20,
    }


def power(handle: Handle) -> dict[str, Any]:
    """Draw and limits."""
    limits = told(nvml.nvmlDeviceGetPowerManagementLimitConstraints, handle)
    milliwatts = {
        "power_draw_w": told(nvml.nvmlDeviceGetPowerUsage, handle),
        "power_limit_w": told(nvml.nvmlDeviceGetEnforcedPowerLimit, handle),
        "power_limit_default_w": told(nvml.nvmlDeviceGetPowerManagementDefaultLimit, handle),
        "power_limit_max_w": limits and limits[1],
    }
    return {name: None if found is None else found / 1000 for name, found in milliwatts.items()}


def cpus(handle: Handle) -> str | None:
    """First and last CPU of the card's affinity, as `0-7`."""
    mask = (told(nvml.nvmlDeviceGetCpuAffinity, handle, 1) or [0])[0]
    if not mask:
        return None
    first, last = (mask & -mask).bit_length() - 1, mask.bit_length() - 1
    return str(first) if first == last else f"{first}-{last}"


def processes(handle: Handle) -> tuple[GpuProcess, ...]:
    """Who holds memory of the card."""
    running = told(nvml.nvmlDeviceGetComputeRunningProcesses, handle) or []
    return tuple(
        GpuProcess(each.pid, command_name(each.pid), (each.usedGpuMemory or 0) >> 20)
        for each in running
    )


def command_name(pid: int) -> str:
    """The program, in nvidia-smi's words when it is gone."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "[Not Found]"
    return words[0].decode("ascii", "replace")


# --- links and pairs -----------------------------------------------------------------------------


def nvlinks(handle: Handle) -> tuple[float | None, ...]:
    """Rate of every NVLink that is up."""
    return tuple(
        LINK_GB_S.get(told(nvml.nvmlDeviceGetNvLinkVersion, handle, number))
        for number in range(MOST_LINKS)
        if told(nvml.nvmlDeviceGetNvLinkState, handle, number)
    )


def pair(a: int, b: int, first: Handle, second: Handle) -> GpuPair:
    """Two cards that answer."""
    there = told(nvml.nvmlDeviceGetPciInfo, second)
    ends = [
        told(nvml.nvmlDeviceGetNvLinkRemotePciInfo, first, number)
        for number in range(MOST_LINKS)
        if told(nvml.nvmlDeviceGetNvLinkState, first, number)
    ]
    return GpuPair(
        a,
        b,
        path=PATHS.get(told(nvml.nvmlDeviceGetTopologyCommonAncestor, first, second)),
        nvlinks=sum(bool(end and there and end.busId == there.busId) for end in ends),
        p2p_read=GRANTS.get(told(nvml.nvmlDeviceGetP2PStatus, first, second, P2P_READ)),
        p2p_write=GRANTS.get(told(nvml.nvmlDeviceGetP2PStatus, first, second, P2P_WRITE)),
    )
