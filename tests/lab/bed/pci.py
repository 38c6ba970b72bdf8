"""A sysfs tree of a simulated machine's PCI devices, which lspci and readers of /sys accept.

Each card sits below a root port of its own. The files are bound over /sys/devices and /sys/bus/pci
in the guest by its unit simulated-pci.service.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from .machines import Card, Machine

ROOT = "pci0000:00"
SPEEDS_GT_S = {1: "2.5", 2: "5.0", 3: "8.0", 4: "16.0", 5: "32.0"}
BRIDGE_CLASS, VGA_CLASS = 0x060400, 0x030000


@dataclass(frozen=True)
class Function:
    """One PCI function: its place, identity and link."""

    address: str
    folder: Path
    vendor: int
    device: int
    subsystem: int
    pci_class: int
    gen: int
    gen_max: int
    width: int
    width_max: int
    numa_node: str
    cpus: str
    secondary_bus: int = 0

    @property
    def is_bridge(self) -> bool:
        return self.pci_class == BRIDGE_CLASS


def functions(card: Card) -> tuple[Function, Function]:
    """The root port and the card behind it."""
    port = Path("devices") / ROOT / card["root_port"]
    address = card["pci_bus_id"]
    gen, gen_max = int(card["pcie_gen"]), int(card["pcie_gen_max"])
    width, slot = int(card["pcie_width"]), int(card["root_port_width"])
    place = (card["numa_node"], card["cpus"])
    bus = int(address.split(":")[1], 16)
    return (
        Function(card["root_port"], port, 0x8086, 0xA70D, 0, BRIDGE_CLASS,
                 gen, gen_max, width, slot, *place, secondary_bus=bus),
        Function(address, port / address, 0x10DE, int(card["device_id"], 16),
                 int(card["subsystem_id"], 16), VGA_CLASS,
                 gen, gen_max, width, int(card["pcie_width_max"]), *place),
    )  # fmt: skip


def write(machine: Machine, root: Path) -> None:
    """Write the tree: `root`/devices/... and `root`/bus/pci/devices/ADDRESS -> the device."""
    links = root / "bus/pci/devices"
    links.mkdir(parents=True)
    for function in (function for card in machine.cards for function in functions(card)):
        folder = root / function.folder
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in attributes(function).items():
            (folder / name).write_text(f"{text}\n")
        (folder / "config").write_bytes(configuration(function))
        (links / function.address).symlink_to(Path("../../..") / function.folder)


def attributes(function: Function) -> dict[str, str]:
    """Text files of one device, as Linux names them (Documentation/ABI/testing/sysfs-bus-pci)."""
    return {
        "vendor": f"0x{function.vendor:04x}",
        "device": f"0x{function.device:04x}",
        "subsystem_vendor": f"0x{function.subsystem & 0xFFFF:04x}",
        "subsystem_device": f"0x{function.subsystem >> 16:04x}",
        "class": f"0x{function.pci_class:06x}",
        "revision": "0xa1",
        "irq": "16",
        "enable": "1",
        "resource": "\n".join(["0x0000000000000000 0x0000000000000000 0x0000000000000000"] * 7),
        "numa_node": function.numa_node,
        "local_cpulist": function.cpus,
        "current_link_speed": f"{SPEEDS_GT_S[function.gen]} GT/s PCIe",
        "max_link_speed": f"{SPEEDS_GT_S[function.gen_max]} GT/s PCIe",
        "current_link_width": str(function.width),
        "max_link_width": str(function.width_max),
    }


def configuration(function: Function) -> bytes:
    """256 bytes of configuration space with one capability, PCI Express, at 0x40.

    Offsets are those of the PCI Local Bus and PCI Express base specifications.
    """
    space = bytearray(256)
    put = struct.pack_into
    put("<HHHH", space, 0x00, function.vendor, function.device, 0x0507, 0x0010)
    put("<I", space, 0x08, function.pci_class << 8 | 0xA1)
    space[0x0E] = 1 if function.is_bridge else 0
    if function.is_bridge:
        space[0x18:0x1B] = bytes([0, function.secondary_bus, function.secondary_bus])
    else:
        put("<I", space, 0x2C, function.subsystem)
    space[0x34] = 0x40
    port_type = 4 if function.is_bridge else 0
    put("<BBH", space, 0x40, 0x10, 0, 2 | port_type << 4)
    put("<I", space, 0x4C, function.gen_max | function.width_max << 4)
    put("<H", space, 0x52, function.gen | function.width << 4)
    return bytes(space)
