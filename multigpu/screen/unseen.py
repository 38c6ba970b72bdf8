"""What the survey did not see: said in one line, never left out in silence."""

from __future__ import annotations

from collections.abc import Callable

from multigpu.hardware import Gpu, GpuPair, Host, Vendor
from multigpu.islands import members
from multigpu.parse.system import is_virtual_machine


def unseen(host: Host) -> tuple[str, ...]:
    """Facts that the screen would show and that are unknown, and what the probe says itself.

    Facts that a machine cannot have (ports in a guest, the P2P of a single card) are not missed.
    """
    found = (*_host(host), *_cards(host), *_pairs(host), *host.unseen)
    return tuple(dict.fromkeys(found))


def _host(host: Host) -> list[str]:
    known = {
        "operating system": host.os,
        "processors": host.cpus,
        "RAM": host.memory_mib,
        "free disk": host.disk_free_mib,
        "virtualization": host.virtualization,
        "IOMMU": host.iommu,
        "NUMA nodes": host.numa_nodes,
    }
    return [name for name, value in known.items() if value is None]


def _cards(host: Host) -> list[str]:
    """Per fact the cards that do not tell it; cards with an error say so in their row."""
    cards = [gpu for gpu in host.gpus if gpu.error is None]
    found = []
    for name, fact in FACTS.items():
        blind = tuple(gpu.index for gpu in cards if not fact(gpu, host))
        if blind:
            of = "" if len(blind) == len(cards) else f" of GPU {members(blind)}"
            found.append(f"{name}{of}")
    return found


def _has_ports(gpu: Gpu, host: Host) -> bool:
    ports = gpu.pcie.hops or gpu.pcie.width_path is not None
    return bool(ports) or bool(gpu.unified_memory) or is_virtual_machine(host.virtualization)


def _has_architecture(gpu: Gpu, host: Host) -> bool:
    return bool(gpu.gfx if gpu.vendor is Vendor.AMD else gpu.compute_capability)


FACTS: dict[str, Callable[[Gpu, Host], bool]] = {
    "VRAM": lambda gpu, host: gpu.memory_mib is not None,
    "free VRAM": lambda gpu, host: gpu.memory_free_mib is not None or bool(gpu.mig),
    "PCI address": lambda gpu, host: gpu.pci_bus_id is not None,
    "PCIe lanes": lambda gpu, host: gpu.pcie.width_current is not None or bool(gpu.unified_memory),
    "ports above the cards": _has_ports,
    "power limit": lambda gpu, host: gpu.power_limit_w is not None,
    "architecture": _has_architecture,
}


def _has_link(pair: GpuPair) -> bool:
    return pair.nvlinks is not None or pair.xgmi_links is not None


def _pairs(host: Host) -> list[str]:
    cards = host.usable
    pairs = [
        host.pair(a.index, b.index)
        for i, a in enumerate(cards)
        for b in cards[i + 1 :]
        if a.vendor is b.vendor  # two vendors share nothing that could be seen
    ]
    amd = cards and all(gpu.vendor is Vendor.AMD for gpu in cards)
    facts: dict[str, Callable[[GpuPair], bool]] = {
        "way between cards": lambda pair: pair.path is not None or pair.bonded,
        "XGMI" if amd else "NVLink": _has_link,
        "P2P": lambda pair: pair.p2p_read is not None or pair.bonded,
    }
    return [
        name
        for name, fact in facts.items()
        if not all(pair is not None and fact(pair) for pair in pairs)
    ]
