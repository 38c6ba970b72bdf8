"""One PCI device, its address in every tool's spelling, and the ports between it and the CPU."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace

GT_PER_S_TO_GEN = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6}

FULL = re.compile(
    r"^(?:PCI:)?(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})(?:\.([0-7]))?$", re.IGNORECASE
)
NCCL_BUS_ID = re.compile(r"^[0-9a-f]{4,12}$", re.IGNORECASE)


def address(written: str) -> str | None:
    """Any tool's spelling as `dddd:bb:dd.f`; None when it is none.

    `00000000:01:00.0` (NVML), `0000:01:00.0` (sysfs), `01:00.0` (lspci), `0000:01:00` and
    `PCI:0000:01:00` (kernel), `17000` (NCCL: domain, bus, device and function in one hex number).
    """
    written = written.strip()
    if match := FULL.match(written):
        domain, bus, device, function = match.groups()
        return f"{int(domain or '0', 16):04x}:{bus.lower()}:{device.lower()}.{function or '0'}"
    if NCCL_BUS_ID.match(written):
        value = int(written, 16)
        return f"{value >> 20:04x}:{value >> 12 & 255:02x}:{value >> 4 & 255:02x}.{value & 15:x}"
    return None


@dataclass(frozen=True)
class ResizableBar:
    """One BAR of the capability "Physical Resizable BAR": its size, and the sizes it can have."""

    bar: int
    current_mib: int | None = None
    supported_mib: tuple[int, ...] = ()


@dataclass(frozen=True)
class Device:
    """One PCI device as sysfs or lspci shows it; `parent` is the address of the port above.

    `vendor`, `device`, `pci_class` and the subsystem's ids are spelled as in sysfs (`0x10de`,
    `0x030000`). `name` is lspci's: vendor and device. `port` is what the Express capability calls
    the device ("Root Port", "Upstream Port", "Legacy Endpoint"); `secondary` the number of the bus
    below a bridge. A `dead` device answers with ones only (`rev ff`). `region_bytes` are the sizes
    of the regions 0 to 5. `aer_correctable`, `aer_nonfatal` and `aer_fatal` count since boot
    (sysfs); `aer_correctable_seen` names the bits that stand in CESta (lspci), None when not shown.
    """

    address: str
    parent: str | None = None
    vendor: str | None = None
    device: str | None = None
    pci_class: str | None = None
    driver: str | None = None
    numa_node: int | None = None
    gen_current: int | None = None
    gen_max: int | None = None
    width_current: int | None = None
    width_max: int | None = None
    name: str | None = None
    revision: str | None = None
    subsystem_vendor: str | None = None
    subsystem_device: str | None = None
    port: str | None = None
    secondary: int | None = None
    dead: bool = False
    aspm: str | None = None
    acs_redirect: bool | None = None
    aer_correctable: int | None = None
    aer_nonfatal: int | None = None
    aer_fatal: int | None = None
    aer_correctable_seen: tuple[str, ...] | None = None
    region_bytes: tuple[int | None, ...] = ()
    resizable_bars: tuple[ResizableBar, ...] = ()
    iommu_group: int | None = None
    local_cpulist: str | None = None

    @property
    def is_bridge(self) -> bool:
        """True for a PCI-to-PCI bridge, which every PCIe port is."""
        return (self.pci_class or "").startswith("0x0604") or self.secondary is not None

    @property
    def vram_bars(self) -> tuple[int, ...]:
        """Regions that can be the one through which peers reach the memory (NVML: BAR1).

        0 on AMD, 1 on NVIDIA, 2 on NVIDIA cards whose region 0 has 64 bits and takes two places
        (H100).
        """
        return (0,) if self.vendor == "0x1002" else (1, 2)

    @property
    def vram_bar_mib(self) -> int | None:
        """Size of that region, None when no size was seen."""
        sizes = dict(enumerate(self.region_bytes))
        found = [size >> 20 for bar in self.vram_bars if (size := sizes.get(bar))]
        found += [
            bar.current_mib
            for bar in self.resizable_bars
            if bar.bar in self.vram_bars and bar.current_mib
        ]
        return found[0] if found else None


Tree = dict[str, Device]


def ports_above(devices: Tree, name: str) -> tuple[Device, ...]:
    """The ports from the card up to the root port, nearest first."""
    found: list[Device] = []
    device = devices.get(name)
    while device is not None and device.parent is not None:
        device = devices.get(device.parent)
        if device is None or device in found or device.address == name:
            break
        found.append(device)
    return tuple(found)


def merged(devices: Tree, others: Tree) -> Tree:
    """Both trees as one; what both know stays as `devices` (sysfs) has it."""
    together = {name: _filled(device, others.get(name)) for name, device in devices.items()}
    return {**others, **together}


def _filled(device: Device, other: Device | None) -> Device:
    if other is None:
        return device
    gaps = {
        field.name: getattr(other, field.name)
        for field in fields(Device)
        if getattr(device, field.name) in (None, (), False)
    }
    return replace(device, **gaps)


def generation(gt_per_s: float | None) -> int | None:
    """PCIe generation of a transfer rate, None for one that no generation has."""
    return GT_PER_S_TO_GEN.get(gt_per_s or 0.0)


def lanes(count: int | None) -> int | None:
    """Lanes of a link; 0 and 255 are what is read of a link that is down or of a dead device."""
    return count if count is not None and 1 <= count <= 32 else None
