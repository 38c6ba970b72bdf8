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
from multigpu.parse.nvidia_smi.topo_matrix import read_topology
from multigpu.parse.pci.cards import PCI_ONLY
from multigpu.parse.shape import Tool, mapping, text, tool
from multigpu.parse.system import is_virtual_machine
from multigpu.parse.units import unit_of

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
    partial = captured.get("partial") is True
    unlisted = _unlisted(on_bus, listed, query, partial=partial)
    rows = (*numbered, *_fill_indices(numbered, unlisted))
    processes = mapping(captured.get("processes"))
    cgroups = {pid: text(cgroup) for pid, cgroup in processes.items()}
    gpus = [_placed(_attributed(gpu, cgroups), devices, emulated) for gpu in _linked(rows, tools)]
    first = max((gpu.index for gpu in gpus), default=-1) + 1
    amd = amd_cards(captured, devices, first, emulated)
    problems = amd.problems if amd.gpus and not gpus else ()
    if gpus or not amd.gpus:
        problems = (*_problems(query, listed, on_bus, captured), *amd.problems)
    return Cards(
        gpus=(*sorted(gpus, key=lambda gpu: gpu.index), *amd.gpus),
        driver=listed.driver,
        cuda=listed.cuda,
        simulated=listed.simulated,
        problems=tuple(problems),
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
    return int(affinity) if affinity and affinity.isascii() and affinity.isdecimal() else None


SINGLE = f"{QUERY} -i "
NOT_GIVEN = f"{PCI_ONLY}: nvidia-smi's output was not given"
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


def _unlisted(
    on_bus: tuple[pci.Device, ...], listed: xml.Query, query: Tool, *, partial: bool
) -> tuple[Gpu, ...]:
    """Cards on PCI that the driver does not list, each with the reason as far as it is known."""
    seen = {gpu.pci_bus_id for gpu in listed.gpus}
    if None in seen:  # a list without addresses (nvidia-smi -L): nothing can be told apart
        return ()
    refused = xml.read_refusals(query.stdout + "\n" + query.stderr)
    return tuple(
        Gpu(
            index=0,
            name=product(device.name),
            pci_bus_id=device.address,
            error=_why_unlisted(device, listed, query, refused, partial=partial),
        )
        for device in on_bus
        if device.address not in seen
    )


def product(name: str | None) -> str | None:
    """`GeForce RTX 3090` of lspci's `NVIDIA Corporation GA102 [GeForce RTX 3090]`, else None."""
    match = re.search(r"\[([^\[\]]{2,80})\](?!.*\[)", name or "")
    named = match is not None and not re.fullmatch(r"[0-9a-f]{4}(:[0-9a-f]{4})?", match[1])
    return match[1] if match and named else None


def _why_unlisted(
    device: pci.Device, listed: xml.Query, query: Tool, refused: dict[str, str], *, partial: bool
) -> str:
    if device.address in refused:
        return f"the driver has no handle of it: {refused[device.address]}"
    if device.dead:
        return "it does not answer on PCI"
    if device.driver not in ("nvidia", None):
        return f"bound to the kernel driver {device.driver}, not to nvidia"
    if listed.gpus:
        return "on PCI, but nvidia-smi does not list it"
    if partial and query.missing:
        return NOT_GIVEN
    return f"the driver does not answer: {_short(query)}"


def _short(query: Tool) -> str:
    """Why there is no list of cards, in a few words."""
    if query.missing:
        return "nvidia-smi is not installed"
    return "nvidia-smi timed out" if query.timed_out else query.said.split(". ")[0]


def _fill_indices(numbered: Iterable[Gpu], unlisted: tuple[Gpu, ...]) -> Iterable[Gpu]:
    """Cards without an NVML index take the lowest free ones, in PCI order."""
    taken = {gpu.index for gpu in numbered}
    free = (index for index in range(len(taken) + len(unlisted)) if index not in taken)
    return [replace(gpu, index=index) for gpu, index in zip(unlisted, free, strict=False)]


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


def _problems(
    query: Tool, listed: xml.Query, on_bus: tuple[pci.Device, ...], captured: dict[str, object]
) -> Iterable[str]:
    """What keeps the driver's list of cards from being whole: found, needed, what to do."""
    cards = len(on_bus)
    if query.missing and captured.get("partial") is True:
        return
    if not on_bus and not listed.gpus and query.missing:
        yield (
            "no GPU found: PCI shows no NVIDIA or AMD card and nvidia-smi is not installed; "
            "needed: at least one card; do: check power cables and slots, then `lspci -nn`"
        )
    elif query.missing and (cards or listed.gpus):
        yield (
            f"nvidia-smi is not installed, but PCI shows {cards} NVIDIA card(s); needed: the "
            "NVIDIA driver with its tools; do: install the distribution's driver package and reboot"
        )
    elif query.timed_out:
        after = f"{query.seconds:.0f} s" if query.seconds else "its time"
        yield (
            f"nvidia-smi gave no answer within {after}; needed: a driver that answers; do: look "
            "for NVRM Xid lines in `journalctl -k`, then reboot"
        )
    elif not query.missing and not query.ok and not _asked_singly(query, listed):
        ended = "could not be started" if query.rc is None else f"ended with status {query.rc}"
        yield (
            f'nvidia-smi {ended}: "{query.said}"; needed: a driver that answers; do: {_cure(query)}'
        )
    elif query.ok and not listed.whole:
        yield (
            "nvidia-smi -q -x printed no whole document; needed: its XML; do: run it on the host "
            "and look at its end"
        )


def _asked_singly(query: Tool, listed: xml.Query) -> bool:
    """One card without a handle ended the whole query, and the others answered when asked alone.

    The row of that card says it then.
    """
    return bool(listed.gpus) and "device handle" in query.stdout + query.stderr


def _cure(query: Tool) -> str:
    """What to do about a failure that nvidia-smi names."""
    said = query.stdout + query.stderr
    if "communicate with the NVIDIA driver" in said:
        return (
            "`modprobe nvidia` and read its message; after a kernel update the module has to be "
            "built for the running kernel (`dkms status`)"
        )
    if "version mismatch" in said:
        return "reboot: the loaded module is older or newer than the libraries after an update"
    if "No devices were found" in said:
        return "look for NVRM lines in `journalctl -k`: the driver refused the cards it saw"
    if "device handle" in said:
        return "look for NVRM Xid lines in `journalctl -k` for the card that is lost, then reboot"
    return "run `nvidia-smi` on the host and look for NVRM lines in `journalctl -k`"
