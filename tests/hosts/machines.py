"""The machines of the tests, one literal each. Values are chosen, not measured on one host.

Memory sizes, power limits and link rates are those that the cards report (nvidia-smi captures and
data sheets); addresses, process ids and affinities are made up.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Port:
    """One PCIe port above a card; `width` is the link below it."""

    address: str
    vendor: str = "0x1022"
    device: str = "0x1483"
    width: int = 16
    width_max: int = 16
    gen_max: int = 4


@dataclass(frozen=True)
class Process:
    """A process that holds VRAM, and its cgroup."""

    pid: int
    name: str
    used_mib: int
    cgroup: str


@dataclass(frozen=True)
class Card:
    """One card and its place. `listed` False: the driver has no handle of it."""

    name: str
    architecture: str
    compute_cap: str
    device: str
    memory_mib: int
    reserved_mib: int
    power_w: int
    gen_max: int = 4
    bus: str = "0000:01:00.0"
    ports: tuple[Port, ...] = ()
    width: int = 16
    numa: int = 0
    limit_w: int | None = None
    ecc: str = "N/A"
    mig: str = "N/A"
    brand: str = "GeForce"
    processes: tuple[Process, ...] = ()
    listed: bool = True


@dataclass(frozen=True)
class Machine:
    """One host. `topo`, `pcie` and `p2p` give the cell of a pair, `rates` GB/s per NVLink."""

    name: str
    cards: tuple[Card, ...] = ()
    topo: dict[tuple[int, int], str] = field(default_factory=dict)
    pcie: dict[tuple[int, int], str] = field(default_factory=dict)
    p2p: dict[tuple[int, int], str] = field(default_factory=dict)
    rates: tuple[float, ...] = ()
    nics: int = 0
    driver: str = "580.105.08"
    cuda: str = "13.0"
    refusal: tuple[int, str] | None = None
    amd: tuple[tuple[str, str], ...] = ()
    virtualization: str = "none"
    iommu: dict[str, int] = field(default_factory=lambda: {"identity": 38})
    cpus: int = 32
    numa_nodes: int = 1
    memory_mib: int = 128_000
    product: str = "System Product Name"


RTX_3090 = Card("NVIDIA GeForce RTX 3090", "Ampere", "8.6", "0x2204", 24576, 325, 350)
RTX_4090 = Card(
    "NVIDIA GeForce RTX 4090", "Ada Lovelace", "8.9", "0x2684", 24564, 364, 450, ecc="Disabled"
)
RTX_5090 = Card("NVIDIA GeForce RTX 5090", "Blackwell", "12.0", "0x2b85", 32607, 518, 575, 5)
A6000 = Card(
    "NVIDIA RTX A6000", "Ampere", "8.6", "0x2230", 49140, 600, 300, ecc="Disabled", brand="RTX"
)
A100 = Card(
    *("NVIDIA A100 80GB PCIe", "Ampere", "8.0", "0x20b5", 81920, 640, 300),
    ecc="Enabled",
    mig="Disabled",
    brand="NVIDIA",
)
H100 = Card(
    *("NVIDIA H100 80GB HBM3", "Hopper", "9.0", "0x2330", 81559, 480, 700, 5),
    ecc="Enabled",
    mig="Disabled",
    brand="NVIDIA",
)


def at(card: Card, bus: str, port: str, **changes: object) -> Card:
    """The card in a full-width slot of the processor."""
    above = (Port(port, gen_max=card.gen_max),)
    return replace(card, **{"bus": bus, "ports": above, **changes})  # type: ignore[arg-type]


def every(count: int, cell: str) -> dict[tuple[int, int], str]:
    """The same cell for all pairs."""
    return {(a, b): cell for a in range(count) for b in range(a + 1, count)}


def islands(size: int, count: int, inside: str, across: str) -> dict[tuple[int, int], str]:
    """One cell within groups of consecutive cards, another between the groups."""
    pairs = every(count, across)
    return {(a, b): inside if a // size == b // size else across for a, b in pairs}


# An Intel chipset slot (root port 00:1c.4) and an AMD one (a bridge of the chipset, 1022:43f5).
PCH_SLOT = (Port("0000:00:1c.4", "0x8086", "0x7a3c", width=4, width_max=4),)
PROMONTORY_SLOT = (
    Port("0000:03:04.0", "0x1022", "0x43f5", width=4, width_max=4),
    Port("0000:02:00.0", "0x1022", "0x43f4", width=4, width_max=4),
    Port("0000:00:02.1", "0x1022", "0x14db", width=4, width_max=4),
)
INTEL_CPU_SLOT = (Port("0000:00:01.0", "0x8086", "0xa70d", gen_max=5),)

XORG = Process(1893, "/usr/lib/xorg/Xorg", 310, "0::/system.slice/gdm.service")
DESKTOP = Process(
    2110, "/usr/bin/gnome-shell", 187, "0::/user.slice/user-1000.slice/session-2.scope"
)
OLLAMA = Process(4711, "/usr/local/bin/ollama", 6412, "0::/system.slice/ollama.service")


def h100(index: int) -> Card:
    """One of eight, each behind its own port of a PCIe switch."""
    bus = 0x1A + 0x11 * index
    switch = Port(f"0000:{bus - 2:02x}:00.0", "0x1000", "0xc030", gen_max=5)
    root = Port(f"0000:{bus - 4:02x}:01.0", "0x8086", "0x352a", gen_max=5)
    return replace(H100, bus=f"0000:{bus:02x}:00.0", ports=(switch, root), numa=index // 4)


MACHINES = (
    Machine(
        "2x4090-no-p2p",
        (
            at(RTX_4090, "0000:01:00.0", "0000:00:01.1"),
            at(RTX_4090, "0000:41:00.0", "0000:40:01.1"),
        ),
        topo=every(2, "PHB"),
        p2p=every(2, "CNS"),
        cpus=48,
    ),
    Machine(
        "4090+3090",
        (
            replace(RTX_4090, ports=INTEL_CPU_SLOT),
            replace(RTX_3090, bus="0000:04:00.0", ports=PCH_SLOT, width=4, limit_w=300),
        ),
        topo=every(2, "PHB"),
        p2p=every(2, "CNS"),
        driver="595.71.05",
        cuda="13.2",
        memory_mib=64_000,
    ),
    Machine(
        "2x3090-nvlink",
        (
            at(RTX_3090, "0000:01:00.0", "0000:00:01.1"),
            at(RTX_3090, "0000:41:00.0", "0000:40:01.1"),
        ),
        topo=every(2, "NV4"),
        pcie=every(2, "PHB"),
        p2p=every(2, "OK"),
        rates=(14.062,) * 4,
    ),
    Machine(
        "2x3090-x4",
        (
            at(RTX_3090, "0000:01:00.0", "0000:00:01.1"),
            replace(RTX_3090, bus="0000:08:00.0", ports=PROMONTORY_SLOT, width=4),
        ),
        topo=every(2, "PHB"),
        p2p=every(2, "CNS"),
        memory_mib=64_000,
    ),
    Machine(
        "4x3090-two-bridges",
        (
            at(RTX_3090, "0000:01:00.0", "0000:00:01.1"),
            at(RTX_3090, "0000:21:00.0", "0000:20:01.1"),
            at(RTX_3090, "0000:81:00.0", "0000:80:01.1", numa=1),
            at(RTX_3090, "0000:a1:00.0", "0000:a0:01.1", numa=1),
        ),
        topo=islands(2, 4, "NV4", "SYS"),
        pcie=islands(2, 4, "NODE", "SYS"),
        p2p=islands(2, 4, "OK", "CNS"),
        rates=(14.062,) * 4,
        cpus=64,
        numa_nodes=2,
        memory_mib=256_000,
    ),
    Machine(
        "8xH100-nvswitch",
        tuple(h100(index) for index in range(8)),
        topo=every(8, "NV18"),
        pcie=islands(4, 8, "NODE", "SYS"),
        p2p=every(8, "OK"),
        rates=(26.562,) * 18,
        nics=2,
        cpus=208,
        numa_nodes=2,
        memory_mib=2_048_000,
        product="PowerEdge XE9680",
    ),
    Machine("1x4090", (at(RTX_4090, "0000:01:00.0", "0000:00:01.1"),), topo={}, memory_mib=64_000),
    Machine(
        "no-gpu-driver-broken",
        (
            at(RTX_3090, "0000:01:00.0", "0000:00:01.1"),
            at(RTX_3090, "0000:02:00.0", "0000:00:01.2"),
        ),
        refusal=(
            9,
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make "
            "sure that the latest NVIDIA driver is installed and running.",
        ),
    ),
    Machine(
        "2x3090-one-lost",
        (
            at(RTX_3090, "0000:01:00.0", "0000:00:01.1"),
            at(RTX_3090, "0000:41:00.0", "0000:40:01.1", listed=False),
        ),
        refusal=(15, "Unable to determine the device handle for GPU0000:41:00.0: Unknown Error"),
    ),
    Machine(
        "5090+3090",
        (
            at(RTX_5090, "0000:01:00.0", "0000:00:01.1", processes=(XORG, DESKTOP, OLLAMA)),
            at(RTX_3090, "0000:41:00.0", "0000:40:01.1"),
        ),
        topo=every(2, "PHB"),
        p2p=every(2, "CNS"),
        driver="595.71.05",
        cuda="13.2",
    ),
    Machine(
        "3x3090",
        (
            at(RTX_3090, "0000:01:00.0", "0000:00:01.1"),
            at(RTX_3090, "0000:21:00.0", "0000:20:01.1"),
            at(RTX_3090, "0000:41:00.0", "0000:40:01.1"),
        ),
        topo=every(3, "PHB"),
        p2p=every(3, "CNS"),
        iommu={"DMA-FQ": 61},
        cpus=48,
    ),
    Machine(
        "a6000+3090",
        (at(A6000, "0000:01:00.0", "0000:00:01.1"), at(RTX_3090, "0000:41:00.0", "0000:40:01.1")),
        topo=every(2, "PHB"),
        p2p=every(2, "CNS"),
    ),
    Machine(
        "2x4090-vm",
        (
            at(RTX_4090, "0000:01:00.0", "0000:00:1c.0", width=8),
            at(RTX_4090, "0000:02:00.0", "0000:00:1c.1", width=8),
        ),
        topo=every(2, "PHB"),
        p2p=every(2, "CNS"),
        virtualization="kvm",
        iommu={},
        product="Standard PC (Q35 + ICH9, 2009)",
    ),
    Machine(
        "2xA100-mig",
        (
            at(A100, "0000:17:00.0", "0000:16:01.0"),
            at(A100, "0000:65:00.0", "0000:64:01.0", mig="Enabled"),
        ),
        topo=every(2, "NODE"),
        p2p=every(2, "OK"),
        cpus=64,
    ),
    Machine("2x7900xtx", amd=(("0000:03:00.0", "0x744c"), ("0000:0d:00.0", "0x744c"))),
)
