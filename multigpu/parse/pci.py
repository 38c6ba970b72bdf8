"""PCI addresses and the tree of ports above each GPU, from sysfs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from multigpu.hardware import PcieLink, Vendor
from multigpu.parse.shape import items, mapping, number, text, whole

VENDORS = {"0x10de": Vendor.NVIDIA, "0x1002": Vendor.AMD}

# Graphics inside AMD processors (device ids of pci.ids): no card to plan with.
AMD_INTEGRATED = {
    *("0x13c0", "0x1506", "0x150e", "0x15bf", "0x15c8", "0x15d8", "0x15dd", "0x15e7", "0x1636"),
    *("0x1638", "0x163f", "0x164c", "0x164d", "0x164e", "0x1681", "0x1900", "0x1901", "0x1114"),
    "0x1586",
}

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
class Device:
    """One PCI device as sysfs shows it; `parent` is the address of the port above."""

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


Tree = dict[str, Device]


def tree(section: object) -> Tree:
    """The `pci` section of a capture by address."""
    devices = (_device(mapping(entry)) for entry in items(section))
    return {device.address: device for device in devices if device is not None}


def _device(entry: dict[str, object]) -> Device | None:
    known = {key: text(value) for key, value in entry.items()}
    name = address(known.get("address") or "")
    if name is None:
        return None
    numa = whole(known.get("numa_node"))
    return Device(
        address=name,
        parent=address(known.get("parent") or ""),
        vendor=known.get("vendor"),
        device=known.get("device"),
        pci_class=known.get("class"),
        driver=known.get("driver"),
        # sysfs writes -1 where the firmware names no node.
        numa_node=numa if numa is not None and numa >= 0 else None,
        gen_current=_gen(known.get("current_link_speed")),
        gen_max=_gen(known.get("max_link_speed")),
        width_current=_width(known.get("current_link_width")),
        width_max=_width(known.get("max_link_width")),
    )


def _gen(speed: str | None) -> int | None:
    """`8 GT/s` (old kernels), `8.0 GT/s PCIe` (new), `Unknown`."""
    return GT_PER_S_TO_GEN.get(number(speed) or 0.0)


def _width(lanes: str | None) -> int | None:
    """Lanes; 0 and 255 are what the kernel writes for a link that is down or a dead device."""
    value = whole(lanes)
    return value if value is not None and 1 <= value <= 32 else None


def gpus(devices: Tree) -> tuple[Device, ...]:
    """Cards by address: NVIDIA and AMD display or accelerator functions, none integrated."""
    return tuple(
        devices[name]
        for name in sorted(devices)
        if (devices[name].pci_class or "").startswith(("0x0300", "0x0302", "0x0380", "0x1200"))
        and devices[name].vendor in VENDORS
        and devices[name].device not in AMD_INTEGRATED
    )


def ports_above(devices: Tree, name: str) -> tuple[Device, ...]:
    """The ports from the card up to the root port, nearest first."""
    found: list[Device] = []
    device = devices.get(name)
    while device is not None and device.parent is not None:
        device = devices.get(device.parent)
        if device is None or device in found:
            break
        found.append(device)
    return tuple(found)


def link(devices: Tree, name: str, card: PcieLink, emulated_ports: bool = False) -> PcieLink:
    """The card's link with what sysfs adds: missing values, and the hop that limits it.

    The driver's values of `card` win over those of sysfs. In a virtual machine the ports are
    emulated and say nothing of the slot (a QEMU root port may show x1 or x32).
    """
    device = devices.get(name, Device(name))
    width_current = _first(card.width_current, device.width_current)
    width_max = _first(card.width_max, device.width_max)
    ports = () if emulated_ports else ports_above(devices, name)
    limit = limiting_port(ports, width_current, width_max)
    widths = [w for w in (width_current, *(p.width_current for p in ports)) if w is not None]
    return PcieLink(
        gen_current=_first(card.gen_current, device.gen_current),
        gen_max=_first(card.gen_max, device.gen_max),
        width_current=width_current,
        width_max=width_max,
        limited_at=limit.address if limit else None,
        limited_at_width_max=limit.width_max if limit else None,
        width_path=min(widths, default=None) if ports else None,
        behind_chipset=any(_is_chipset(port) for port in ports),
    )


def limiting_port(
    ports: tuple[Device, ...], width_current: int | None, width_max: int | None
) -> Device | None:
    """The port that keeps a card from its full width, None when nothing does.

    Both ends of a link report its width; of the narrowest ones the port that cannot carry more is
    the cause.
    """
    known = [(p.width_current, p) for p in ports if p.width_current is not None]
    if not known or width_max is None:
        return None
    narrowest = min(width for width, _ in known)
    if min(narrowest, width_current or narrowest) >= width_max:
        return None
    return min((p for w, p in known if w == narrowest), key=lambda port: port.width_max or 99)


def _is_chipset(port: Device) -> bool:
    """Intel PCH root ports sit at 00:1b to 00:1d; AMD chipsets are bridges 1022:43xx (pci.ids)."""
    if port.vendor == "0x1022":
        return (port.device or "").startswith("0x43")
    return port.vendor == "0x8086" and port.address[:10] in {
        "0000:00:1b",
        "0000:00:1c",
        "0000:00:1d",
    }


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
