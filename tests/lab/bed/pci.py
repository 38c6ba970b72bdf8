"""A sysfs tree of a simulated machine's PCI devices, which lspci and readers of /sys accept.

Each card sits below a root port of its own. The attributes come from the generator of the tests'
machines; what only libpci asks for is added here. The guest's unit simulated-pci.service binds the
tree over /sys/devices and /sys/bus/pci.
"""

from __future__ import annotations

import struct
from pathlib import Path

from multigpu.hardware import Gpu, HopKind, Host, PcieHop, PcieLink
from tests.rigs import sysfs
from tests.rigs.dialect import Dialect

from .machines import Card, Machine

DEVICES = Path("sys/devices/pci0000:00")
BUS = Path("sys/bus/pci")
# Intel's port for graphics cards on Raptor Lake (pci.ids), where the table names no other.
INTEL, GRAPHICS_PORT = "0x8086", "0xa70d"
BAR1_MIB = 256  # what the simulated NVML says
NO_REGIONS = "\n".join(["0x0000000000000000 0x0000000000000000 0x0000000000000000"] * 7)


def host(machine: Machine) -> Host:
    """The machine as far as PCI shows it."""
    return Host(machine.name, tuple(gpu(card) for card in machine.cards), simulated=True)


def gpu(card: Card) -> Gpu:
    """One card and the root port above it, both ends of one link."""
    gen, gen_max = int(card["pcie_gen"]), int(card["pcie_gen_max"])
    width = int(card["pcie_width"])
    port = PcieHop(
        card["root_port"],
        HopKind.ROOT_PORT,
        vendor=INTEL,
        device=card.values.get("root_port_device", GRAPHICS_PORT),
        gen_current=gen,
        gen_max=gen_max,
        width_current=width,
        width_max=int(card["root_port_width"]),
    )
    return Gpu(
        card.index,
        name=card["name"],
        pci_bus_id=card["pci_bus_id"],
        pcie=PcieLink(gen, gen_max, width, int(card["pcie_width_max"]), hops=(port,)),
        numa_node=int(card["numa_node"]),
        cpu_affinity=card["cpus"],
        bar1_memory_mib=BAR1_MIB,
    )


def write(machine: Machine, root: Path) -> None:
    """Write the tree: `root`/sys/devices/... and `root`/sys/bus/pci with its links and drivers."""
    found = host(machine)
    section = sysfs.pci_section(found, Dialect())
    by_address = {f"{entry['address']}": entry for entry in section}
    for card in machine.cards:
        by_address[card["pci_bus_id"]].update(own_ids(card))
    for entry in section:
        entry.update({"revision": "0xa1", "irq": "16", "enable": "1"})
        entry.setdefault("resource", NO_REGIONS)
        (root / BUS / "drivers" / f"{entry['driver']}").mkdir(parents=True, exist_ok=True)
    sysfs.write(section, root)
    (root / BUS / "devices").mkdir(parents=True)
    for each in found.gpus:
        complete(root, each, by_address)


def own_ids(card: Card) -> dict[str, str]:
    """Identity as the machine's table has it."""
    subsystem = int(card["subsystem_id"], 16)
    return {
        "device": card["device_id"],
        "subsystem_vendor": f"0x{subsystem & 0xFFFF:04x}",
        "subsystem_device": f"0x{subsystem >> 16:04x}",
    }


def complete(root: Path, gpu: Gpu, entries: dict[str, dict[str, str | None]]) -> None:
    """Configuration space of the card and of its port, and their links below bus/pci/devices."""
    (port,), address = gpu.pcie.hops, f"{gpu.pci_bus_id}"
    place = Path(port.address)
    spaces = {
        place: bridge(port, entries[port.address], int(address.split(":")[1], 16)),
        place / address: endpoint(gpu, entries[address]),
    }
    for where, space in spaces.items():
        (root / DEVICES / where / "config").write_bytes(space)
        (root / BUS / "devices" / where.name).symlink_to(f"../../../devices/{DEVICES.name}/{where}")


def bind(root: Path, bound: bool = True) -> None:
    """Let the nvidia driver hold the cards of the tree, or let them go."""
    for vendor in root.glob(f"{DEVICES}/**/vendor"):
        if vendor.read_text().strip() == "0x10de":
            (vendor.parent / "driver").unlink(missing_ok=True)
            if bound:
                (vendor.parent / "driver").symlink_to("../../../../bus/pci/drivers/nvidia")


# --- configuration space -------------------------------------------------------------------------

# Offsets below are those of the PCI Local Bus and PCI Express base specifications.
EXPRESS = 0x40
ENDPOINT, ROOT_PORT = 0, 4


def endpoint(gpu: Gpu, entry: dict[str, str | None]) -> bytes:
    """The card's 256 bytes; its regions lie where `resource` has them."""
    link = gpu.pcie
    space = header(entry)
    struct.pack_into("<IQQI", space, 0x10, 0xF5000000, 0x600000000C, 0x680000000C, 0xF001)
    ids = (int(f"{entry[name]}", 16) for name in ("subsystem_vendor", "subsystem_device"))
    struct.pack_into("<HH", space, 0x2C, *ids)
    ends = (link.gen_max, link.width_max, link.gen_current, link.width_current)
    return express(space, ENDPOINT, *ends)


def bridge(port: PcieHop, entry: dict[str, str | None], bus_below: int) -> bytes:
    """The root port's 256 bytes."""
    space = header(entry)
    space[0x0E] = 1
    space[0x18:0x1B] = bytes([0, bus_below, bus_below])
    ends = (port.gen_max, port.width_max, port.gen_current, port.width_current)
    return express(space, ROOT_PORT, *ends)


def header(entry: dict[str, str | None]) -> bytearray:
    """Identity, class, and the pointer to the only capability."""
    space = bytearray(256)
    vendor, device, kind = (int(f"{entry[name]}", 16) for name in ("vendor", "device", "class"))
    struct.pack_into("<HHHH", space, 0x00, vendor, device, 0x0507, 0x0010)
    struct.pack_into("<I", space, 0x08, kind << 8 | 0xA1)
    space[0x34] = EXPRESS
    return space


def express(space: bytearray, port_type: int, *ends: int | None) -> bytes:
    """With the PCI Express capability; `ends` are largest and current generation and width."""
    gen_max, width_max, gen, width = (end or 0 for end in ends)
    struct.pack_into("<BBH", space, EXPRESS, 0x10, 0, 2 | port_type << 4)
    struct.pack_into("<I", space, EXPRESS + 0x0C, gen_max | width_max << 4)
    struct.pack_into("<H", space, EXPRESS + 0x12, gen | width << 4)
    return bytes(space)
