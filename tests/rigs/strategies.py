"""Random machines for property tests: hosts that could stand in a rack, never a contradiction.

A field that a tool does not print is for the test of that tool to leave out.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from uuid import UUID

from hypothesis import strategies as st

from multigpu.hardware import (
    Gpu,
    GpuPair,
    GpuProcess,
    HopKind,
    Host,
    MigDevice,
    P2p,
    Path,
    PcieHop,
    PcieLink,
    RemappedRows,
    Vendor,
)
from tests.rigs.dialect import DRIVERS, KERNELS, PCIUTILS, ROCM, Dialect

WIDTHS = (1, 2, 4, 8, 16)
# Name, architecture, compute capability, total and reserved MiB, default and largest W, generation.
NVIDIA_CARDS = (
    ("Tesla P100-PCIE-16GB", "Pascal", (6, 0), 16384, 120, 250, 250, 3),
    ("Tesla V100-SXM2-32GB", "Volta", (7, 0), 32768, 130, 300, 300, 3),
    ("Tesla T4", "Turing", (7, 5), 15360, 450, 70, 70, 3),
    ("NVIDIA GeForce RTX 2080 Ti", "Turing", (7, 5), 11264, 250, 250, 300, 3),
    ("NVIDIA GeForce RTX 3090", "Ampere", (8, 6), 24576, 325, 350, 400, 4),
    ("NVIDIA RTX A6000", "Ampere", (8, 6), 49140, 600, 300, 300, 4),
    ("NVIDIA A100-SXM4-80GB", "Ampere", (8, 0), 81920, 640, 400, 400, 4),
    ("NVIDIA GeForce RTX 4090", "Ada Lovelace", (8, 9), 24564, 364, 450, 600, 4),
    ("NVIDIA L40S", "Ada Lovelace", (8, 9), 46068, 609, 350, 350, 4),
    ("NVIDIA H100 80GB HBM3", "Hopper", (9, 0), 81559, 480, 700, 700, 5),
    ("NVIDIA GeForce RTX 5090", "Blackwell", (12, 0), 32607, 518, 575, 600, 5),
    ("NVIDIA RTX PRO 6000 Blackwell Edition", "Blackwell", (12, 0), 97887, 650, 600, 600, 5),
)
# Name, gfx, total MiB, default W, generation.
AMD_CARDS = (
    ("AMD Instinct MI100", "gfx908", 32752, 290, 4),
    ("AMD Instinct MI210", "gfx90a", 65520, 300, 4),
    ("AMD Instinct MI300X", "gfx942", 196592, 750, 5),
    ("AMD Radeon RX 7900 XTX", "gfx1100", 24560, 327, 4),
    ("AMD Radeon AI PRO R9700", "gfx1201", 32624, 300, 5),
)
PROGRAMS = ("/usr/lib/xorg/Xorg", "python3", "/opt/llama/llama-server", "VLLM::EngineCore")
UNITS = (None, "ollama.service", "session-2.scope")


def dialects() -> st.SearchStrategy[Dialect]:
    """Every release of every tool."""
    return st.builds(
        Dialect,
        driver=st.sampled_from(DRIVERS),
        pciutils=st.sampled_from(PCIUTILS),
        kernel=st.sampled_from(KERNELS),
        rocm=st.sampled_from(ROCM),
        pasted=st.booleans(),
    )


@st.composite
def nvidia_gpus(draw: st.DrawFn, index: int = 0, bus: int = 1) -> Gpu:
    """One NVIDIA card that answers."""
    card = draw(st.sampled_from(NVIDIA_CARDS))
    name, architecture, capability, memory, reserved, default, largest, gen = card
    busy = draw(st.integers(0, 4000))
    datacentre = "GeForce" not in name and "RTX" not in name
    return Gpu(
        index=index,
        uuid=f"GPU-{UUID(int=draw(st.integers(1, 2**128 - 1)))}",
        name=name,
        memory_mib=memory,
        memory_free_mib=memory - reserved - busy,
        memory_reserved_mib=reserved,
        pci_bus_id=f"0000:{bus:02x}:00.0",
        pcie=draw(links(gen, bus)),
        compute_capability=capability,
        architecture=architecture,
        power_limit_w=draw(st.sampled_from([float(default), default * 0.75])),
        power_limit_default_w=float(default),
        power_limit_max_w=float(largest),
        power_draw_w=draw(st.integers(10, default)) + 0.25,
        temperature_c=draw(st.integers(20, 90)),
        performance_state=draw(st.sampled_from(["P0", "P2", "P8"])),
        persistence_mode=draw(st.booleans()),
        compute_mode=draw(st.sampled_from(["Default", "Exclusive_Process"])),
        display_attached=draw(st.booleans()),
        ecc=draw(st.booleans()) if datacentre else None,
        mig=draw(st.booleans()) if capability in ((8, 0), (9, 0)) else None,
        bar1_memory_mib=draw(st.sampled_from([256, 32768, 131072])),
        vbios_version="94.02.42.80.11",
        processes=draw(processes()),
    )


@st.composite
def processes(draw: st.DrawFn) -> tuple[GpuProcess, ...]:
    """Up to three processes with distinct pids, in their order."""
    pids = sorted(draw(st.sets(st.integers(2, 4_000_000), max_size=3)))
    programs, units = st.sampled_from(PROGRAMS), st.sampled_from(UNITS)
    sizes = st.integers(1, 1000)
    return tuple(GpuProcess(pid, draw(programs), draw(sizes), draw(units)) for pid in pids)


@st.composite
def links(draw: st.DrawFn, gen: int, bus: int) -> PcieLink:
    """A link with the ports above it; what limits it is for the reader to find."""
    slot = draw(st.sampled_from(WIDTHS))
    trained = draw(st.sampled_from([w for w in WIDTHS if w <= slot]))
    current = draw(st.integers(1, gen))
    root = PcieHop(
        f"0000:00:{bus % 31 + 1:02x}.{bus % 7}",
        HopKind.ROOT_PORT,
        vendor="0x8086",
        device="0x352a",
        gen_current=current,
        gen_max=max(gen, 4),
        width_current=trained,
        width_max=slot,
    )
    return PcieLink(
        gen_current=current,
        gen_max=gen,
        width_current=trained,
        width_max=16,
        hops=(root,),
        replays=draw(st.integers(0, 9)),
    )


@st.composite
def nvidia_hosts(draw: st.DrawFn, max_cards: int = 8) -> Host:
    """A host with 1 to `max_cards` NVIDIA cards and every pair of them."""
    count = draw(st.integers(1, max_cards))
    gpus = tuple(draw(nvidia_gpus(index, 1 + 9 * index)) for index in range(count))
    nvlinks = draw(st.sampled_from([0, 0, 2, 4, 12, 18]))
    rate = draw(st.sampled_from([14.062, 25.0, 26.562, 50.0]))
    gpus = tuple(replace(gpu, nvlinks_gb_s=(rate,) * nvlinks) for gpu in gpus)
    pairs = tuple(draw(pairs_of(a, b, nvlinks, rate)) for a, b in combinations(range(count), 2))
    return Host(
        "rig",
        gpus=gpus,
        pairs=pairs,
        driver="580.105.08",
        nics=tuple(f"NIC{i}" for i in range(draw(st.integers(0, 3)))),
    )


@st.composite
def pairs_of(draw: st.DrawFn, a: int, b: int, nvlinks: int, rate: float) -> GpuPair:
    """One pair, with the PCIe class that `topo -mp` would print under an NVLink."""
    verdict = draw(st.sampled_from(P2p))
    return GpuPair(
        a,
        b,
        path=draw(st.sampled_from(Path)),
        nvlinks=nvlinks,
        nvlink_gb_s=round(nvlinks * rate, 1) if nvlinks else None,
        p2p_read=verdict,
        p2p_write=verdict,
    )


@st.composite
def amd_gpus(draw: st.DrawFn, index: int = 0, bus: int = 3) -> Gpu:
    """One AMD card that answers."""
    name, gfx, memory, power, gen = draw(st.sampled_from(AMD_CARDS))
    instinct = "Instinct" in name
    return Gpu(
        index=index,
        uuid=f"{draw(st.integers(1, 2**64 - 1)):#018x}",
        name=name,
        vendor=Vendor.AMD,
        gfx=gfx,
        memory_mib=memory,
        memory_free_mib=memory - draw(st.integers(10, 4000)),
        pci_bus_id=f"0000:{bus:02x}:00.0",
        pcie=draw(links(gen, bus)),
        power_limit_w=float(power),
        power_limit_default_w=float(power),
        temperature_c=draw(st.integers(20, 90)),
        compute_partition="SPX" if instinct else None,
        memory_partition="NPS1" if instinct else None,
        render_node=f"/dev/dri/renderD{128 + index}",
        vbios_version="113-D3431401-101",
    )


@st.composite
def amd_hosts(draw: st.DrawFn, max_cards: int = 8) -> Host:
    """A host with 1 to `max_cards` AMD cards, in hives of XGMI where they are Instinct cards.

    HIP counts the cards in an order of its own.
    """
    count = draw(st.integers(1, max_cards))
    order = draw(st.permutations(range(count)))
    gpus = tuple(
        draw(busy_amd_gpus(index, 3 + 9 * index, hip_index=order[index])) for index in range(count)
    )
    hive = draw(st.sampled_from([1, 2, 4, 8]))
    pairs = tuple(draw(amd_pairs_of(a, b, hive)) for a, b in combinations(gpus, 2))
    return Host("rig", gpus=gpus, pairs=pairs, rocm="6.4.1", numa_nodes=draw(st.integers(2, 4)))


@st.composite
def busy_amd_gpus(draw: st.DrawFn, index: int, bus: int, hip_index: int) -> Gpu:
    """One AMD card with what changes while it works."""
    gpu = draw(amd_gpus(index, bus))
    memory, default = gpu.memory_mib or 0, gpu.power_limit_default_w or 0.0
    holders = draw(processes())
    return replace(
        gpu,
        hip_index=hip_index,
        memory_used_mib=memory - (gpu.memory_free_mib or 0),
        numa_node=draw(st.sampled_from([None, 0, 1])),
        power_limit_w=draw(st.sampled_from([default, default - 50])),
        power_limit_max_w=default,
        power_draw_w=float(draw(st.integers(5, int(default)))),
        bar1_memory_mib=draw(st.sampled_from([256, memory])),
        ecc_corrected=draw(st.integers(0, 99)),
        ecc_uncorrected=draw(st.integers(0, 9)),
        processes=tuple(replace(p, name=(p.name or "")[:15]) for p in holders),
    )


@st.composite
def amd_pairs_of(draw: st.DrawFn, a: Gpu, b: Gpu, hive: int) -> GpuPair:
    """Two AMD cards: XGMI inside a hive, else PCIe with or without access to the peer."""
    together = a.index // hive == b.index // hive
    if together and "Instinct" in f"{a.name}" and "Instinct" in f"{b.name}":
        links, grant = draw(st.integers(1, 4)), P2p.OK
    else:
        links, grant = 0, draw(st.sampled_from([P2p.OK, P2p.NOT_SUPPORTED]))
    return GpuPair(
        a.index,
        b.index,
        nvlinks=0,
        p2p_read=grant,
        p2p_write=grant,
        xgmi_links=links,
        xgmi_gb_s=links * draw(st.sampled_from([32.0, 50.0, 64.0])) if links else None,
    )


mig_devices = st.builds(
    MigDevice,
    index=st.integers(0, 6),
    profile=st.sampled_from(["1g.10gb", "2g.20gb", "3g.40gb", "1c.3g.40gb"]),
    memory_mib=st.sampled_from([9728, 19968, 40448]),
)
remapped_rows = st.builds(
    RemappedRows,
    correctable=st.integers(0, 9),
    uncorrectable=st.integers(0, 9),
    pending=st.booleans(),
    failure=st.booleans(),
)
