"""What a Linux kernel shows of simulated GPUs and their ports under /sys/bus/pci/devices.

Kernels before 5.7 write `8 GT/s`, later ones `8.0 GT/s PCIe` (drivers/pci/probe.c).
"""

from __future__ import annotations

from pathlib import Path

from multigpu.hardware import Gpu, HopKind, Host, PcieHop, Vendor
from tests.rigs.dialect import Dialect

GT_PER_S = {1: 2.5, 2: 5.0, 3: 8.0, 4: 16.0, 5: 32.0, 6: 64.0}
CARD_IDS = {Vendor.NVIDIA: ("0x10de", "0x2204"), Vendor.AMD: ("0x1002", "0x744c")}
# pci.ids; other cards pass for an RTX 3090 or an RX 7900 XTX.
DEVICE_IDS = {"NVIDIA GeForce RTX 4090": "0x2684"}
MEMORY_BAR, PORT_BAR = "0x000000000014220c", "0x0000000000040101"

Section = list[dict[str, str | None]]


def pci_section(host: Host, dialect: Dialect) -> Section:
    """The probe's `pci` list: every card and every port above it, by address."""
    entries = {f"{gpu.pci_bus_id}": card(gpu, dialect) for gpu in host.gpus}
    for gpu in host.gpus:
        hops = gpu.pcie.hops
        for hop, above in zip(hops, (*hops[1:], None), strict=True):
            entries[hop.address] = port(hop, above, dialect)
    return [entries[name] for name in sorted(entries)]


def pci_ids(gpu: Gpu) -> tuple[str, str]:
    """Vendor and device."""
    vendor, device = CARD_IDS[gpu.vendor]
    return vendor, DEVICE_IDS.get(gpu.name or "", device)


def card(gpu: Gpu, dialect: Dialect) -> dict[str, str | None]:
    """The graphics function; behind a switch of its own its link is internal and always full."""
    vendor, device = pci_ids(gpu)
    link, hops = gpu.pcie, gpu.pcie.hops
    inside = bool(hops) and hops[0].kind is HopKind.ON_CARD
    gen_max = link.gen_gpu_max or link.gen_max
    return {
        "address": gpu.pci_bus_id,
        "parent": hops[0].address if hops else None,
        "driver": "nvidia" if gpu.vendor is Vendor.NVIDIA else "amdgpu",
        "vendor": vendor,
        "device": device,
        "class": "0x030000",
        "numa_node": "-1" if gpu.numa_node is None else str(gpu.numa_node),
        "current_link_speed": speed(gen_max if inside else link.gen_current, dialect),
        "max_link_speed": speed(gen_max, dialect),
        "current_link_width": width(16 if inside else link.width_current),
        "max_link_width": width(16 if inside else link.width_max),
        "local_cpulist": gpu.cpu_affinity,
        "subsystem_vendor": "0x1458",
        "subsystem_device": "0x0001",
        "resource": resource(gpu),
        "aer_dev_correctable": counts(link.aer_correctable),
    }


def port(hop: PcieHop, above: PcieHop | None, dialect: Dialect) -> dict[str, str | None]:
    """One bridge."""
    return {
        "address": hop.address,
        "parent": above.address if above else None,
        "driver": "pcieport",
        "vendor": hop.vendor,
        "device": hop.device,
        "class": "0x060400",
        "numa_node": "-1",
        "current_link_speed": speed(hop.gen_current, dialect),
        "max_link_speed": speed(hop.gen_max, dialect),
        "current_link_width": width(hop.width_current),
        "max_link_width": width(hop.width_max),
        "aer_dev_correctable": counts(hop.aer_correctable),
    }


def speed(gen: int | None, dialect: Dialect) -> str | None:
    """A link's transfer rate in the kernel's spelling."""
    if gen is None:
        return "Unknown"
    major, minor = (int(part) for part in dialect.kernel.split(".")[:2])
    if (major, minor) >= (5, 7):
        return f"{GT_PER_S[gen]:.1f} GT/s PCIe"
    return f"{GT_PER_S[gen]:g} GT/s"


def width(lanes: int | None) -> str:
    """Lanes; 0 is what the kernel writes of a link that is down."""
    return str(lanes or 0)


def counts(total: int | None) -> str | None:
    """`aer_dev_correctable`, absent where the kernel does not own AER."""
    if total is None:
        return None
    return (
        f"RxErr {total // 2}\nBadTLP {total - total // 2}\nBadDLLP 0\nRollover 0\nTimeout 0\n"
        f"NonFatalErr 0\nCorrIntErr 0\nHeaderOF 0\nTOTAL_ERR_COR {total}"
    )


def resource(gpu: Gpu) -> str:
    """Start, end and flags of the regions; a 64-bit region takes two lines."""
    empty = "0x0000000000000000 0x0000000000000000 0x0000000000000000"
    size = gpu.bar1_memory_mib
    memory = empty if size is None else region(0x6000000000, size << 20)
    nvidia = [region(0xF5000000, 16 << 20), memory, empty, region(0x6800000000, 32 << 20), empty]
    amd = [memory, empty, region(0x6800000000, 2 << 20), empty, empty]
    lines = nvidia if gpu.vendor is Vendor.NVIDIA else amd
    return "\n".join([*lines, f"0x000000000000f000 0x000000000000f07f {PORT_BAR}", empty])


def region(start: int, size: int) -> str:
    """One line of `resource`."""
    return f"0x{start:016x} 0x{start + size - 1:016x} {MEMORY_BAR}"


def write(section: Section, root: Path) -> None:
    """The section as a tree of directories below `root`, as a copy of sysfs has it."""
    parents = {entry["address"]: entry["parent"] for entry in section}
    for entry in section:
        way: list[str] = []
        name = entry["address"]
        while name is not None:
            way, name = [name, *way], parents.get(name)
        folder = root.joinpath("sys/devices/pci0000:00", *way)
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in entry.items():
            if file == "driver" and text:
                ups = "../" * (len(way) + 2)
                (folder / "driver").symlink_to(f"{ups}bus/pci/drivers/{text}")
            elif file not in ("address", "parent") and text is not None:
                (folder / file).write_text(text + "\n", encoding="utf-8")
