"""What the machines of the tests are put together from. Values are chosen, not measured.

Memory sizes, power limits and link rates are those that the cards report (nvidia-smi captures and
data sheets); addresses, process ids and affinities are made up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

from multigpu.hardware import (
    Gpu,
    GpuPair,
    GpuProcess,
    HopKind,
    Host,
    P2p,
    Path,
    PcieHop,
    PcieLink,
    Vendor,
)


def clocks(sm_mhz: int, memory_mhz: int, bits: int, multiprocessors: int) -> dict[str, int]:
    """The largest clocks and the width that the driver tells of a card."""
    return {
        "sm_clock_max_mhz": sm_mhz,
        "memory_clock_max_mhz": memory_mhz,
        "memory_bus_width_bits": bits,
        "multiprocessors": multiprocessors,
    }


def card(
    name: str,
    architecture: str,
    compute_capability: tuple[int, int],
    memory_mib: int,
    reserved_mib: int,
    power_w: float,
    gen: int = 4,
    **changes: Any,
) -> Gpu:
    """An idle card with its link trained down to generation 1."""
    values: dict[str, Any] = {
        "name": name,
        "architecture": architecture,
        "compute_capability": compute_capability,
        "memory_mib": memory_mib,
        "memory_reserved_mib": reserved_mib,
        "memory_free_mib": memory_mib - reserved_mib - 2,
        "memory_used_mib": 2,
        "power_limit_w": power_w,
        "power_limit_default_w": power_w,
        "power_limit_max_w": power_w,
        "power_draw_w": 24.5,
        "temperature_c": 38,
        "performance_state": "P8",
        "persistence_mode": True,
        "compute_mode": "Default",
        "display_attached": False,
        "bar1_memory_mib": 256,
        "pcie": PcieLink(gen_current=1, gen_max=gen, width_current=16, width_max=16, replays=0),
    }
    return Gpu(0, **{**values, **changes})


RTX_3090 = card(
    "NVIDIA GeForce RTX 3090", "Ampere", (8, 6), 24576, 325, 350.0, **clocks(2100, 9751, 384, 82)
)
RTX_4090 = card(
    "NVIDIA GeForce RTX 4090",
    "Ada Lovelace",
    (8, 9),
    24564,
    364,
    450.0,
    ecc=False,
    **clocks(3105, 10501, 384, 128),
)
RTX_5090 = card(
    "NVIDIA GeForce RTX 5090",
    "Blackwell",
    (12, 0),
    32607,
    518,
    575.0,
    5,
    **clocks(3090, 14001, 512, 170),
)
A6000 = card(
    "NVIDIA RTX A6000",
    "Ampere",
    (8, 6),
    49140,
    600,
    300.0,
    ecc=False,
    **clocks(2100, 8001, 384, 84),
)
A100 = card(
    "NVIDIA A100 80GB PCIe",
    "Ampere",
    (8, 0),
    81920,
    640,
    300.0,
    ecc=True,
    mig=False,
    **clocks(1410, 1512, 5120, 108),
)
H100 = card(
    "NVIDIA H100 80GB HBM3",
    "Hopper",
    (9, 0),
    81559,
    480,
    700.0,
    5,
    ecc=True,
    mig=False,
    **clocks(1980, 2619, 5120, 132),
)
RX_7900_XTX = Gpu(
    0,
    name="AMD Radeon RX 7900 XTX",
    vendor=Vendor.AMD,
    gfx="gfx1100",
    **clocks(2371, 1249, 384, 96),
    memory_mib=24560,
    memory_free_mib=24480,
    memory_used_mib=80,
    bar1_memory_mib=24560,
    power_limit_max_w=327.0,
    power_draw_w=19.0,
    power_limit_w=327.0,
    power_limit_default_w=327.0,
    temperature_c=41,
    vbios_version="113-31XTXG-001",
    pcie=PcieLink(gen_current=4, gen_max=4, width_current=16, width_max=16),
)
MI210 = Gpu(
    0,
    name="AMD Instinct MI210",
    vendor=Vendor.AMD,
    gfx="gfx90a",
    **clocks(1700, 1600, 4096, 104),
    memory_mib=65520,
    memory_free_mib=65500,
    memory_used_mib=20,
    bar1_memory_mib=65520,
    power_limit_max_w=300.0,
    power_draw_w=41.0,
    ecc_corrected=0,
    ecc_uncorrected=0,
    power_limit_w=300.0,
    power_limit_default_w=300.0,
    temperature_c=36,
    vbios_version="113-D67301-063",
    pcie=PcieLink(gen_current=4, gen_max=4, width_current=16, width_max=16),
)


def port(address: str, **changes: Any) -> PcieHop:
    """A root port of the processor that can carry sixteen lanes."""
    values: dict[str, Any] = {
        "kind": HopKind.ROOT_PORT,
        "vendor": "0x1022",
        "device": "0x1483",
        "gen_current": 1,
        "gen_max": 4,
        "width_current": 16,
        "width_max": 16,
    }
    return PcieHop(address, **{**values, **changes})


def at(gpu: Gpu, bus: str, *hops: PcieHop, width: int = 16, **changes: Any) -> Gpu:
    """The card at an address below these ports, nearest first."""
    gen = gpu.pcie.gen_max or 4
    above = tuple(
        replace(hop, width_current=min(hop.width_current or width, width)) for hop in hops
    )
    above = tuple(replace(hop, gen_max=max(hop.gen_max or 4, gen)) for hop in above)
    link = replace(gpu.pcie, width_current=width, hops=above)
    held = sum(process.used_memory_mib or 0 for process in changes.get("processes", ()))
    free, used = (gpu.memory_free_mib or 0) - held, (gpu.memory_used_mib or 0) + held
    gpu = replace(gpu, memory_free_mib=free, memory_used_mib=used)
    return replace(gpu, pci_bus_id=bus, pcie=link, numa_node=changes.pop("numa", 0), **changes)


def host(
    name: str, *gpus: Gpu, link: Callable[[int, int], GpuPair] | None = None, **facts: Any
) -> Host:
    """The machine with its cards numbered, and every pair as `link` says."""
    numbered = tuple(
        replace(gpu, index=i, uuid=gpu.uuid or f"GPU-{uuid5(NAMESPACE_DNS, f'{i}.{name}.test')}")
        for i, gpu in enumerate(gpus)
    )
    pairs = [(a, b) for a in range(len(gpus)) for b in range(a + 1, len(gpus))] if link else []
    values: dict[str, Any] = {
        "driver": "580.105.08",
        "cuda": "13.0",
        "cpus": 32,
        "numa_nodes": 1,
        "memory_mib": 128_000,
        "virtualization": "none",
        "iommu": "passthrough",
        "product": "System Product Name",
        "os": "Ubuntu 24.04.3 LTS",
        "simulated": True,
    }
    return Host(
        name,
        gpus=numbered,
        pairs=tuple(link(a, b) for a, b in pairs) if link else (),
        **{**values, **facts},
    )


def pcie(path: Path, p2p: P2p) -> Callable[[int, int], GpuPair]:
    """All pairs alike, over PCIe."""
    return lambda a, b: GpuPair(a, b, path, 0, p2p, p2p_write=p2p)


def nvlink(
    links: int, rate: float, path: Callable[[int, int], Path]
) -> Callable[[int, int], GpuPair]:
    """All pairs over NVLink."""
    total = round(links * rate, 1)
    return lambda a, b: GpuPair(a, b, path(a, b), links, P2p.OK, total, p2p_write=P2p.OK)


def bridged(a: int, b: int) -> GpuPair:
    """NVLink within 0-1 and 2-3, the processors' interconnect between them."""
    if a // 2 == b // 2:
        return nvlink(4, 14.062, lambda a, b: Path.NODE)(a, b)
    return pcie(Path.SYS, P2p.CHIPSET_NOT_SUPPORTED)(a, b)


def hives(a: int, b: int) -> GpuPair:
    """Two XGMI hives of four cards."""
    if a // 4 == b // 4:
        links, rate = 1, 50.0
        return GpuPair(a, b, Path.NODE, None, P2p.OK, xgmi_links=links, xgmi_gb_s=rate)
    return GpuPair(a, b, Path.SYS, None, P2p.OK, xgmi_links=0)


REFUSED = pcie(Path.PHB, P2p.CHIPSET_NOT_SUPPORTED)
BRIDGE = nvlink(4, 14.062, lambda a, b: Path.PHB)
SWITCH = nvlink(18, 26.562, lambda a, b: Path.NODE if a // 4 == b // 4 else Path.SYS)
NVLINKS_3090 = {"nvlinks_gb_s": (14.062,) * 4}

# An Intel chipset slot (root port 00:1c.4) and an AMD one (bridges of the chipset, 1022:43f5).
PCH_SLOT = (
    port("0000:00:1c.4", kind=HopKind.CHIPSET, vendor="0x8086", device="0x7a3c", width_max=4),
)
PROMONTORY_SLOT = (
    port("0000:03:04.0", kind=HopKind.CHIPSET, device="0x43f5", width_max=4),
    port("0000:02:00.0", kind=HopKind.CHIPSET, device="0x43f4", width_max=4),
    port("0000:00:02.1", device="0x14db", width_max=4),
)
SLOTS = ("0000:00:01.1", "0000:20:01.1", "0000:40:01.1", "0000:80:01.1", "0000:a0:01.1")
FIRST, SECOND, THIRD, FOURTH, FIFTH = map(port, SLOTS)

XORG = GpuProcess(1893, "/usr/lib/xorg/Xorg", 310, "gdm.service")
DESKTOP = GpuProcess(2110, "/usr/bin/gnome-shell", 187, "session-2.scope")
OLLAMA = GpuProcess(4711, "/usr/local/bin/ollama", 6412, "ollama.service")
TENANTS = (XORG, DESKTOP, OLLAMA)


def h100(index: int) -> Gpu:
    """One of eight, each behind its own port of a PCIe switch."""
    bus = 0x1A + 0x11 * index
    switch = port(f"0000:{bus - 2:02x}:00.0", kind=HopKind.SWITCH, vendor="0x1000", device="0xc030")
    root = port(f"0000:{bus - 4:02x}:01.0", vendor="0x8086", device="0x352a")
    return at(
        H100,
        f"0000:{bus:02x}:00.0",
        switch,
        root,
        numa=index // 4,
        nvlinks_gb_s=(26.562,) * 18,
        fabric_state="Completed",
    )


def mi210(index: int) -> Gpu:
    """One of eight in two hives, one per socket."""
    bus = 0x29 + 0x10 * index
    above = port(f"0000:{bus - 2:02x}:01.1")
    unique = f"0x{0x1A2B3C4D5E6F7000 + index:016x}"
    return at(
        MI210,
        f"0000:{bus:02x}:00.0",
        above,
        numa=index // 4,
        uuid=unique,
        hip_index=index,
        render_node=f"/dev/dri/renderD{128 + index}",
    )


def rx_7900_xtx(index: int) -> Gpu:
    """One of two, each below the switch that such a card carries."""
    bus = (0x03, 0x0D)[index]
    inner = port(f"0000:{bus - 1:02x}:00.0", kind=HopKind.ON_CARD, vendor="0x1002", device="0x1479")
    outer = port(f"0000:{bus - 2:02x}:00.0", kind=HopKind.ON_CARD, vendor="0x1002", device="0x1478")
    root = port(f"0000:00:0{index + 1}.1")
    unique = f"0x{0x9F3A5C7D11220000 + index:016x}"
    return at(
        RX_7900_XTX,
        f"0000:{bus:02x}:00.0",
        inner,
        outer,
        root,
        uuid=unique,
        hip_index=index,
        render_node=f"/dev/dri/renderD{128 + index}",
    )
