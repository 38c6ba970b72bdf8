"""Which way NCCL takes between two cards of a host, by its defaults.

NCCL (src/graph/paths.cc, ncclTopoCheckP2p, since 2.21 at the latest): P2P where the driver grants
it and the way is NVLink or stays below a host bridge (PIX, PXB); across host bridges or sockets
(PHB, NODE, SYS) only in a group of two on an AMD processor. `NCCL_P2P_LEVEL` overrides; only the
channel lines of its log prove what was used. RCCL takes P2P wherever it is granted (its paths.cc).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from multigpu.grants import granted
from multigpu.hardware import GpuPair, HopKind, Host, Path, Vendor

PCI_VENDORS = {"1022": "AMD", "1d94": "AMD", "8086": "Intel"}


class Transport(StrEnum):
    """How NCCL or RCCL moves data between two cards of a host."""

    NVLINK = "P2P over NVLink"
    XGMI = "P2P over XGMI"
    PCIE = "P2P over PCIe"
    SHM = "shared memory"
    UNKNOWN = "?"


def processor_vendor(host: Host) -> str | None:
    """AMD or Intel, by the root ports above the cards; None in a guest, which shows none."""
    found = {
        PCI_VENDORS.get((hop.vendor or "").removeprefix("0x"))
        for gpu in host.gpus
        for hop in gpu.pcie.hops
        if hop.kind is HopKind.ROOT_PORT
    }
    return found.pop() if len(found) == 1 else None


def transport(host: Host, pair: GpuPair | None, group: Sequence[int]) -> Transport:
    """What NCCL (RCCL on AMD) chooses by default for this pair within this group of cards."""
    grant = granted(pair)
    if pair is None or (grant is None and not pair.xgmi_links):
        return Transport.UNKNOWN
    if grant is False:
        return Transport.SHM
    if pair.xgmi_links:
        return Transport.XGMI
    if pair.nvlinks or _by_neighbour(host, pair, group):
        return Transport.NVLINK
    if host.gpu(pair.a).vendor is Vendor.AMD:
        return Transport.PCIE
    return _over_pcie(host, pair.path, len(group))


def _over_pcie(host: Host, path: Path | None, size: int) -> Transport:
    if path is None:
        return Transport.UNKNOWN
    if path in (Path.PIX, Path.PXB):
        return Transport.PCIE
    if size > 2:
        return Transport.SHM
    by_processor = {"AMD": Transport.PCIE, "Intel": Transport.SHM}
    return by_processor.get(processor_vendor(host) or "", Transport.UNKNOWN)


def _by_neighbour(host: Host, pair: GpuPair, group: Sequence[int]) -> bool:
    """True when a third card of the group has NVLink to both (PATH_NVB)."""
    for other in group:
        if other in (pair.a, pair.b):
            continue
        first, second = host.pair(pair.a, other), host.pair(other, pair.b)
        if first and second and first.nvlinks and second.nvlinks:
            return True
    return False
