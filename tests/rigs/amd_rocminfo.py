"""What rocminfo prints about a simulated host: processors, then the GPUs as HIP counts them."""

from __future__ import annotations

from multigpu.hardware import Gpu, Host
from tests.rigs.amd_ids import device_id, release
from tests.rigs.dialect import Dialect

HEAD = """\
\x1b[37mROCk module is loaded\x1b[0m
=====================
HSA System Attributes
=====================
Runtime Version:         1.1
System Timestamp Freq.:  1000.000000MHz
Machine Model:           LARGE
System Endianness:       LITTLE

==========
HSA Agents
=========="""


def rocminfo(host: Host, dialect: Dialect) -> str:
    """Every agent. The PCI domain is never printed."""
    new = release(dialect.rocm) >= (5, 0)
    lines, count = HEAD.split("\n"), host.numa_nodes or 1
    for node in range(count):
        lines += agent(node + 1, cpu(node, new))
    gpus = sorted(host.gpus, key=lambda gpu: gpu.hip_index or 0)
    for place, gpu in enumerate(gpus):
        lines += agent(count + place + 1, card(gpu, count + place, new))
    # Fields are padded to a fixed width with blanks at the end.
    padded = [line.ljust(69) if line.startswith(" ") else line for line in lines]
    return "\n".join([*padded, *(["*** Done ***"] if new else []), ""])


def agent(number: int, fields: list[str]) -> list[str]:
    return ["*******", f"Agent {number}", "*******", *fields]


def field(key: str, value: object, depth: int = 1) -> str:
    return "  " * depth + f"{key}:".ljust(25) + str(value)


def pool(number: int, segment: str, kib: int) -> list[str]:
    return [
        "    Pool " + str(number),
        field("Segment", segment, 3),
        field("Size", f"{kib}({kib:#x}) KB", 3),
        field("Allocatable", "TRUE", 3),
    ]


def cpu(node: int, new: bool) -> list[str]:
    name = "Simulated Processor 16-Core"
    return [
        field("Name", name),
        *([field("Uuid", "CPU-XX")] if new else []),
        field("Marketing Name", name),
        field("Vendor Name", "CPU"),
        field("Node", node),
        field("Device Type", "CPU"),
        field("Chip ID", "0(0x0)"),
        field("BDFID", 0),
        field("Compute Unit", 16),
        "  WatchPts on Addr. Ranges:1",
        "  Pool Info:",
        *pool(1, "GLOBAL; FLAGS: KERNARG, FINE GRAINED", 65839100),
        "  ISA Info:",
        *(["    N/A"] if not new else []),
    ]


def card(gpu: Gpu, node: int, new: bool) -> list[str]:
    _, bus, rest = (gpu.pci_bus_id or "0000:00:00.0").split(":")
    place = int(bus, 16) << 8 | int(rest[:2], 16) << 3 | int(rest[3])
    device = device_id(gpu)
    return [
        field("Name", gpu.gfx),
        *([field("Uuid", f"GPU-{int(gpu.uuid or '0', 16):016x}")] if new else []),
        field("Marketing Name", gpu.name),
        field("Vendor Name", "AMD"),
        field("Node", node),
        field("Device Type", "GPU"),
        "  Cache Info:",
        field("L1", "16(0x10) KB", 2),
        field("Chip ID", f"{device}({device:#x})"),
        field("BDFID", place),
        field("Internal Node ID", node),
        field("Compute Unit", 104),
        *([field("Memory Properties", "")] if new else []),
        "  Workgroup Max Size per Dimension:",
        "    x                        1024(0x400)",
        "  Pool Info:",
        *pool(1, "GLOBAL; FLAGS: COARSE GRAINED", (gpu.memory_mib or 0) << 10),
        *pool(2, "GROUP", 64),
        "  ISA Info:",
        "    ISA 1",
        field("Name", f"amdgcn-amd-amdhsa--{gpu.gfx}", 3),
    ]
