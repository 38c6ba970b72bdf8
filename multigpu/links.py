"""How a GPU is connected: its PCIe link, the ports above it, and its way to another GPU.

Current and maximum values are never mixed, because an idle link is trained down: width is judged at
idle, speed only under load.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Path(StrEnum):
    """PCIe class of the way between two GPUs, nearest first (`nvidia-smi topo -m`)."""

    PIX = "PIX"
    PXB = "PXB"
    PHB = "PHB"
    NODE = "NODE"
    SYS = "SYS"


class P2p(StrEnum):
    """Cell of `nvidia-smi topo -p2p`: a grant by the driver, not a proof that bytes arrive."""

    OK = "OK"
    CHIPSET_NOT_SUPPORTED = "CNS"
    GPU_NOT_SUPPORTED = "GNS"
    TOPOLOGY_NOT_SUPPORTED = "TNS"
    NOT_SUPPORTED = "NS"
    DISABLED_BY_REGISTRY = "DR"
    UNKNOWN = "U"


class HopKind(StrEnum):
    """What a port above a card belongs to."""

    ROOT_PORT = "root port"
    CHIPSET = "chipset"
    SWITCH = "switch"
    ON_CARD = "card"


class Limit(StrEnum):
    """Why a card has fewer lanes than it could use.

    SLOT: the port is wired with fewer; RISER: both ends could carry more but trained down (riser,
    seating, bifurcation, shared M.2 lanes); BRIDGE: a switch further up is narrower; CHIPSET: the
    way to the processor leads through the chipset's uplink.
    """

    SLOT = "slot"
    RISER = "riser"
    BRIDGE = "bridge"
    CHIPSET = "chipset"


@dataclass(frozen=True)
class PcieHop:
    """One port above a card; its link values are those of the link below it, towards the card.

    `acs_redirect` is True when the port sends peer traffic up to the root (ACSCtl ReqRedir or
    CmpltRedir, `lspci -vvv`). `aer_correctable` counts since boot (sysfs aer_dev_correctable).
    """

    address: str
    kind: HopKind | None = None
    vendor: str | None = None
    device: str | None = None
    gen_current: int | None = None
    gen_max: int | None = None
    width_current: int | None = None
    width_max: int | None = None
    acs_redirect: bool | None = None
    aer_correctable: int | None = None


@dataclass(frozen=True)
class PcieLink:
    """One GPU's link. `limited_at` is the PCI address of the narrowest hop above the card.

    `gen_max` is what card and slot can reach together; `gen_gpu_max` and `gen_host_max` are the two
    ends apart (nvidia-smi 525 and newer). `limited_at_width_max` is what that hop could carry:
    fewer lanes than the card means a slot wired that way, as many mean a link that trained down.
    `width_path` is the narrowest width between the card and the CPU, which a switch or a chipset
    can make smaller than `width_current`; `behind_chipset` tells whether the way leads through one.
    `hops` are the ports from the card up to the root port, nearest first; empty in a guest.
    """

    gen_current: int | None = None
    gen_max: int | None = None
    width_current: int | None = None
    width_max: int | None = None
    limited_at: str | None = None
    limited_at_width_max: int | None = None
    width_path: int | None = None
    behind_chipset: bool | None = None
    gen_gpu_max: int | None = None
    gen_host_max: int | None = None
    limited_by: Limit | None = None
    hops: tuple[PcieHop, ...] = ()
    aer_correctable: int | None = None
    replays: int | None = None

    @property
    def narrowed(self) -> bool:
        """True when fewer lanes are trained than the card has; speed says nothing while idle."""
        if self.width_current is None or self.width_max is None:
            return False
        return self.width_current < self.width_max


@dataclass(frozen=True)
class PcieBandwidth:
    """What the kernel says of a device whose way to memory is slower than the device itself.

    The line `N Gb/s available PCIe bandwidth, limited by ...` (Linux drivers/pci/pci.c,
    `__pcie_print_link_status`). Rates are Gbit/s after encoding; `at` is the PCI address of the
    limiting link, None in the line of a device that nothing limits.
    """

    gen: int | None = None
    width: int | None = None
    available_gbit_s: float | None = None
    at: str | None = None
    gen_capable: int | None = None
    width_capable: int | None = None
    capable_gbit_s: float | None = None


@dataclass(frozen=True)
class GpuPair:
    """One unordered pair, `a < b`. `nvlinks` counts NVLink links, 0 when there are none.

    `nvlink_gb_s` is the rate of these links together in one direction (`nvidia-smi nvlink -s`).
    `xgmi_links` and `xgmi_gb_s` are the same for AMD (KFD io_links of type 11).
    """

    a: int
    b: int
    path: Path | None = None
    nvlinks: int | None = None
    p2p_read: P2p | None = None
    nvlink_gb_s: float | None = None
    p2p_write: P2p | None = None
    xgmi_links: int | None = None
    xgmi_gb_s: float | None = None

    @property
    def bonded(self) -> bool:
        """True when the two have a way of their own beside PCIe: NVLink or XGMI."""
        return bool(self.nvlinks or self.xgmi_links)
