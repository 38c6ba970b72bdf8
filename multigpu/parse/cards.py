"""Put the cards of a host together: what the driver lists, what PCI shows, and why they differ."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from multigpu.hardware import Gpu, GpuPair, LeftOut, PcieLink
from multigpu.parse import pci
from multigpu.parse.amd.cards import amd_cards
from multigpu.parse.nvidia_smi import other_outputs, xml
from multigpu.parse.nvidia_smi.nvlink import read_nvlink_status
from multigpu.parse.nvidia_smi.nvml import with_nvml
from multigpu.parse.nvidia_smi.topo_matrix import read_topology
from multigpu.parse.shape import Tool, mapping, text, tool
from multigpu.parse.system import is_virtual_machine
from multigpu.parse.units import unit_of
from multigpu.parse.unlisted import problems, unlisted

QUERY = "nvidia-smi -q -x"
TOPOLOGY = "nvidia-smi topo -m"
NVLINK = "nvidia-smi nvlink -s"
NUMBERS = "nvidia-smi --query-gpu=index,pci.bus_id,compute_cap --format=csv,noheader"


@dataclass(frozen=True)
class Cards:
    """The GPUs of one host by index, and what stood in the way of seeing them."""

    gpus: tuple[Gpu, ...]
    driver: str | None
    cuda: str | None
    simulated: bool
    problems: tuple[str, ...]
    pairs: tuple[GpuPair, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


def read_cards(captured: dict[str, object], devices: pci.Tree, virtualization: str | None) -> Cards:
    """Every GPU that a driver lists or that PCI shows.

    A card that only PCI shows (lost, bound to another driver, no driver at all) is a row with an
    error. Indices are those of NVML; rows that NVML does not know take the ones left over, and AMD
    cards follow. `pairs` are those of AMD cards.
    """
    tools = mapping(captured.get("tools"))
    query, emulated = tool(tools, QUERY), is_virtual_machine(virtualization)
    listed, numbered = _listed(tools, query, devices)
    on_bus = tuple(d for d in pci.gpus(devices) if d.vendor == NVIDIA_ID)
    missing = unlisted(on_bus, listed, query, captured.get("partial") is True)
    numbered = with_nvml(numbered, captured.get("nvml"))
    rows = (*numbered, *_fill_indices(numbered, missing))
    processes = mapping(captured.get("processes"))
    cgroups = {pid: text(cgroup) for pid, cgroup in processes.items()}
    gpus = [_placed(_attributed(gpu, cgroups), devices, emulated) for gpu in _linked(rows, tools)]
    first = max((gpu.index for gpu in gpus), default=-1) + 1
    amd = amd_cards(captured, devices, first, emulated)
    found = amd.problems if amd.gpus and not gpus else ()
    if gpus or not amd.gpus:
        found = (*problems(query, listed, on_bus, captured), *amd.problems)
    return Cards(
        gpus=(*sorted(gpus, key=lambda gpu: gpu.index), *amd.gpus),
        driver=listed.driver,
        cuda=listed.cuda,
        simulated=listed.simulated,
        problems=found,
        pairs=amd.pairs,
        left_out=amd.left_out,
    )


def _listed(
    tools: dict[str, object], query: Tool, devices: pci.Tree
) -> tuple[xml.Query, tuple[Gpu, ...]]:
    """What the driver lists, and its cards with their NVML indices.

    The index comes from the CSV query, else from the place in the list, else (cards asked one by
    one) from the order of the cards on PCI that the nvidia driver holds.
    """
    listed = xml.read_query(query.stdout)
    order: dict[str | None, int] = {gpu.pci_bus_id: gpu.index for gpu in listed.gpus}
    if not listed.gpus:
        singles = [xml.read_query(tool(tools, c).stdout) for c in tools if c.startswith(SINGLE)]
        listed = _joined(listed, [single for single in singles if single.gpus])
        held = [d.address for d in pci.gpus(devices) if d.driver in ("nvidia", None)]
        order = {name: index for index, name in enumerate(held)}
    listed = other_outputs.completed(listed, tools)
    numbers = xml.read_numbers(tool(tools, NUMBERS).stdout)
    return listed, _numbered(listed.gpus, order, numbers)


def _linked(gpus: Iterable[Gpu], tools: dict[str, object]) -> tuple[Gpu, ...]:
    """The cards with what matrices know of each alone: NVLink rates, CPU affinity, NUMA node."""
    rates = {g.index: g.gb_s for g in read_nvlink_status(tool(tools, NVLINK).stdout).value}
    matrix = read_topology(tool(tools, TOPOLOGY).stdout)
    return tuple(
        replace(
            gpu,
            nvlinks_gb_s=rates.get(gpu.index, gpu.nvlinks_gb_s),
            cpu_affinity=matrix.cpu_affinity.get(gpu.index),
            numa_node=only_node(matrix.numa_affinity.get(gpu.index)),
        )
        for gpu in gpus
    )


def only_node(affinity: str | None) -> int | None:
    """The node of a `NUMA Affinity` cell; None for a range, which names no single one."""
    match = re.fullmatch(r"\d{1,4}", affinity or "", re.ASCII)
    return int(match[0]) if match else None


SINGLE = f"{QUERY} -i "
NVIDIA_ID = "0x10de"


def _joined(listed: xml.Query, singles: list[xml.Query]) -> xml.Query:
    """Cards that were asked one by one, as one list."""
    if not singles:
        return listed
    gpus = tuple(gpu for single in singles for gpu in single.gpus)
    return replace(singles[0], gpus=gpus, whole=False)


def _numbered(
    gpus: tuple[Gpu, ...],
    order: dict[str | None, int],
    numbers: dict[str, xml.Numbered],
) -> tuple[Gpu, ...]:
    """The cards with index and compute capability; two that claim one index are told apart."""
    taken: dict[int, Gpu] = {}
    for gpu in gpus:
        row = numbers.get(gpu.pci_bus_id or "")
        index = row.index if row else order.get(gpu.pci_bus_id, gpu.index)
        while index in taken:
            index += 1
        capability = row.compute_capability if row else None
        known = capability or gpu.compute_capability
        taken[index] = replace(gpu, index=index, compute_capability=known)
    return tuple(taken.values())


def _fill_indices(numbered: Iterable[Gpu], missing: tuple[Gpu, ...]) -> Iterable[Gpu]:
    """Cards without an NVML index take the lowest free ones, in PCI order."""
    taken = {gpu.index for gpu in numbered}
    free = (index for index in range(len(taken) + len(missing)) if index not in taken)
    return [replace(gpu, index=index) for gpu, index in zip(missing, free, strict=False)]


def _attributed(gpu: Gpu, cgroups: dict[str, str | None]) -> Gpu:
    """The card with the systemd unit of each process that holds its memory."""
    processes = tuple(replace(p, unit=unit_of(cgroups.get(str(p.pid)))) for p in gpu.processes)
    return replace(gpu, processes=processes)


def _placed(gpu: Gpu, devices: pci.Tree, emulated: bool) -> Gpu:
    """The card with what sysfs knows of its slot."""
    if gpu.pci_bus_id is None or gpu.pci_bus_id not in devices:
        return gpu
    device = devices[gpu.pci_bus_id]
    link: PcieLink = pci.link(devices, gpu.pci_bus_id, gpu.pcie, emulated)
    bar1_mib = gpu.bar1_memory_mib or device.vram_bar_mib
    known = gpu.resizable_bar
    return replace(
        gpu,
        pcie=link,
        numa_node=device.numa_node if device.numa_node is not None else gpu.numa_node,
        cpu_affinity=gpu.cpu_affinity or device.local_cpulist,
        bar1_memory_mib=bar1_mib,
        resizable_bar=pci.resizable_bar(gpu.memory_mib, bar1_mib, emulated)
        if known is None
        else known,
    )
