"""How two AMD cards reach each other: XGMI and peer links from KFD, the PCIe class from PCI."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from multigpu.hardware import Gpu, GpuPair, P2p, Path
from multigpu.parse import pci
from multigpu.parse.amd.kfd import PCIE_LINK, XGMI_LINK, KfdLink, KfdNode, KfdTopology
from multigpu.parse.pci.link import way


def pairs_between(
    gpus: tuple[Gpu, ...],
    nodes: Sequence[KfdNode | None],
    kfd: KfdTopology | None,
    devices: pci.Tree,
    numa_nodes: int | None,
) -> tuple[GpuPair, ...]:
    """Every unordered pair; `nodes` are KFD's, aligned with the cards."""
    rows = list(zip(gpus, nodes, strict=True))
    return tuple(
        _pair(a, b, _links(kfd, node_a, node_b), _listed(node_a), devices, numa_nodes)
        for (a, node_a), (b, node_b) in combinations(rows, 2)
    )


def _listed(node: KfdNode | None) -> bool | None:
    """Whether KFD would name a peer link if there were one; None when it does not know the card."""
    return None if node is None else node.p2p_listed


def _links(
    kfd: KfdTopology | None, a: KfdNode | None, b: KfdNode | None
) -> tuple[KfdLink, ...] | None:
    if kfd is None or a is None or b is None:
        return None
    return kfd.between(a.node, b.node)


def _pair(
    a: Gpu,
    b: Gpu,
    links: tuple[KfdLink, ...] | None,
    listed: bool | None,
    devices: pci.Tree,
    numa_nodes: int | None,
) -> GpuPair:
    grant = _grant(links, listed)
    count, rate = _xgmi(links)
    return GpuPair(
        a.index,
        b.index,
        path=path_between(devices, a.pci_bus_id, b.pci_bus_id, numa_nodes),
        nvlinks=0,
        p2p_read=grant,
        p2p_write=grant,
        xgmi_links=count,
        xgmi_gb_s=rate,
    )


def _grant(links: tuple[KfdLink, ...] | None, listed: bool | None) -> P2p | None:
    """KFD names a link between two GPUs only where the one can address the other's memory."""
    if links is None:
        return None
    if any(link.type in (XGMI_LINK, PCIE_LINK) for link in links):
        return P2p.OK
    return P2p.NOT_SUPPORTED if listed else None


def _xgmi(links: tuple[KfdLink, ...] | None) -> tuple[int | None, float | None]:
    """(links, GB/s of all of them in one direction).

    KFD gives the rate of one link as the smallest and that of all as the largest bandwidth.
    """
    if links is None:
        return None, None
    found = [link for link in links if link.type == XGMI_LINK and not link.peer]
    if not found:
        return 0, None
    one = max((link.min_bandwidth_mb_s or 0) for link in found)
    all_links = max((link.max_bandwidth_mb_s or 0) for link in found)
    count = max(1, all_links // one) if one else 1
    return count, all_links / 1000 if all_links else None


def path_between(
    devices: pci.Tree, a: str | None, b: str | None, numa_nodes: int | None
) -> Path | None:
    """The class as `nvidia-smi topo -m` would name it; None when PCI does not tell.

    Bridges on the cards themselves do not count. Two partitions of one card share its link: PIX.
    """
    if a is None or b is None or a not in devices or b not in devices:
        return None
    if a == b:
        return Path.PIX
    ways = [[port.address for port in way(devices, name).ports] for name in (a, b)]
    shared = [port for port in ways[0] if port in ways[1]]
    if shared:
        below = max(route.index(shared[0]) for route in ways)
        return Path.PIX if below <= 1 else Path.PXB
    roots = [route[-1] if route else name for route, name in zip(ways, (a, b), strict=True)]
    if roots[0][:-5] == roots[1][:-5]:
        return Path.PHB
    numa = [devices[name].numa_node for name in (a, b)]
    if None in numa:
        return Path.NODE if numa_nodes == 1 else None
    return Path.NODE if numa[0] == numa[1] else Path.SYS
