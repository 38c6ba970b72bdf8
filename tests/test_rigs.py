"""What every tool of a random machine prints, read together, is the machine again."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from multigpu.hardware import Gpu, HopKind, Host, PcieLink
from multigpu.parse.capture import read
from tests.rigs import strategies
from tests.rigs.capture import text_of
from tests.rigs.dialect import Dialect
from tests.rigs.nvidia_strategies import in_query, rigs
from tests.rigs.rig import Rig
from tests.rigs.slots import slotted

RELEASES = strategies.dialects().map(lambda dialect: replace(dialect, pasted=False))


@st.composite
def machines(draw: st.DrawFn) -> Host:
    """NVIDIA, AMD or both in one host, with all that belongs to the host itself."""
    nvidia = draw(rigs(max_cards=3) | st.just(Host("none")))
    amd = draw(strategies.amd_hosts(max_cards=3) | st.just(Host("none")))
    gpus = [*nvidia.gpus, *amd.gpus]
    first = len(nvidia.gpus)
    cards = tuple(
        placed(draw(slotted(draw(clocked(gpu)), 9 * index + 1)), index)
        for index, gpu in enumerate(gpus)
    )
    moved = (replace(pair, a=pair.a + first, b=pair.b + first) for pair in amd.pairs)
    return Host(
        "rig",
        gpus=with_one_unit_per_process(cards),
        pairs=(*nvidia.pairs, *moved),
        driver="580.105.08" if nvidia.gpus else None,
        rocm="6.4.1" if amd.gpus else None,
        nics=nvidia.nics,
        cpus=draw(st.integers(1, 256)),
        numa_nodes=2,
        memory_mib=draw(st.integers(8_000, 2_000_000)),
        virtualization="none",
        iommu=draw(st.sampled_from(["off", "passthrough", "translating"])),
        os="Ubuntu 24.04.3 LTS",
        product=draw(st.sampled_from(["PowerEdge XE9680", "X670-P WIFI"])),
        module_license=draw(st.sampled_from(["NVIDIA", "Dual MIT/GPL"])) if nvidia.gpus else None,
        registry_dwords=draw(st.sampled_from([None, "RMForceStaticBar1=1;PeerMappingOverride=1"]))
        if nvidia.gpus
        else None,
        simulated=True,
    )


@st.composite
def clocked(draw: st.DrawFn, gpu: Gpu) -> Gpu:
    """The card with what NVML and KFD know beside the tools: bus width, multiprocessors, clocks."""
    counts, clocks = st.none() | st.integers(1, 304), st.none() | st.integers(1, 15_000)
    known = replace(
        gpu,
        memory_bus_width_bits=draw(st.sampled_from([None, 192, 384, 8192])),
        multiprocessors=draw(counts),
    )
    if gpu.vendor == "nvidia":
        return known
    return replace(known, memory_clock_max_mhz=draw(clocks), sm_clock_max_mhz=draw(clocks))


def placed(gpu: Gpu, index: int) -> Gpu:
    """The card in its slot, as a whole: slices hide the NVLinks.

    The lanes of a card with a switch of its own are those of the switch.
    """
    own = [hop for hop in gpu.pcie.hops if hop.kind is HopKind.ON_CARD]
    link = replace(gpu.pcie, width_max=own[-1].width_max) if own else gpu.pcie
    mig = False if gpu.mig else gpu.mig
    return replace(gpu, index=index, numa_node=index % 2, pcie=link, mig=mig, mig_devices=())


def with_one_unit_per_process(gpus: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    """A process that works on two cards belongs to one unit, and has one name."""
    units = {process.pid: process for gpu in gpus for process in gpu.processes}

    def same(gpu: Gpu) -> Gpu:
        held = (replace(p, unit=units[p.pid].unit, name=units[p.pid].name) for p in gpu.processes)
        return replace(gpu, processes=tuple(held))

    return tuple(same(gpu) for gpu in gpus)


def printed(gpu: Gpu, dialect: Dialect) -> Gpu:
    """The card as far as these releases print it."""
    told = in_query(gpu, dialect) if gpu.vendor == "nvidia" else gpu
    return replace(told, processes=gpu.processes, nvlinks_gb_s=gpu.nvlinks_gb_s)


def plain(gpu: Gpu) -> Gpu:
    """Without what a reader concludes, which tests of their own look at, and without the ports."""
    link = PcieLink(
        **{k: v for k, v in vars(gpu.pcie).items() if k in ("width_current", "width_max")}
    )
    return replace(gpu, pcie=link, resizable_bar=None, unified_memory=None, cpu_affinity=None)


def ports(gpu: Gpu) -> list[tuple[str, object, object, object]]:
    return [(hop.address, hop.kind, hop.width_current, hop.width_max) for hop in gpu.pcie.hops]


@given(machines().filter(lambda host: host.gpus != ()), RELEASES)
def test_a_random_machine_reads_back(host: Host, dialect: Dialect) -> None:
    found = read(text_of(Rig(host, dialect)), "rig")
    assert [plain(g) for g in found.gpus] == [plain(printed(g, dialect)) for g in host.gpus]
    assert [ports(g) for g in found.gpus] == [ports(g) for g in host.gpus]


@given(machines().filter(lambda host: host.gpus != ()), RELEASES)
def test_the_pairs_of_a_random_machine_read_back(host: Host, dialect: Dialect) -> None:
    found = read(text_of(Rig(host, dialect)), "rig")
    known = [replace(pair, path=None) for pair in host.pairs]
    assert [replace(pair, path=None) for pair in found.pairs] == known


@given(machines().filter(lambda host: host.gpus != ()), RELEASES)
def test_a_random_host_around_the_cards_reads_back(host: Host, dialect: Dialect) -> None:
    found = read(text_of(Rig(host, dialect)), "rig")
    for name in ("rocm", "cpus", "numa_nodes", "memory_mib", "virtualization", "iommu", "os"):
        assert getattr(found, name) == getattr(host, name)
    for name in ("product", "module_license", "registry_dwords", "simulated"):
        assert getattr(found, name) == getattr(host, name)
    assert found.problems == () and found.unseen == ()
