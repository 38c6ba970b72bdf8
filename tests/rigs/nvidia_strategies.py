"""Random hosts with everything that nvidia-smi tells, and what of it survives each release."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from multigpu.hardware import Gpu, GpuProcess, Host, MigDevice, PcieLink
from tests.rigs.dialect import Dialect
from tests.rigs.nvidia_health import REASONS
from tests.rigs.strategies import mig_devices, nvidia_hosts, remapped_rows

BEFORE_AMPERE = ("Pascal", "Volta", "Turing")
FABRICS = ("Completed", "In Progress", "Not Started")
THROTTLING = [name for name, _ in REASONS if name != "gpu_idle"]


@st.composite
def rigs(draw: st.DrawFn, max_cards: int = 4) -> Host:
    """Hosts whose cards have all that any release of nvidia-smi prints."""
    host = draw(nvidia_hosts(max_cards))
    return replace(host, gpus=tuple(draw(reporting(gpu)) for gpu in host.gpus))


@st.composite
def reporting(draw: st.DrawFn, gpu: Gpu) -> Gpu:
    """The card with health, limits of both ends of its link, and MIG devices where MIG is on."""
    old, counts = gpu.architecture in BEFORE_AMPERE, st.integers(0, 9)
    datacentre, gen = gpu.ecc is not None, gpu.pcie.gen_max
    active = draw(st.sets(st.sampled_from(THROTTLING)))
    slices = draw(st.lists(mig_devices, max_size=3)) if gpu.mig else []
    ends = replace(gpu.pcie, gen_gpu_max=gen, gen_host_max=draw(st.sampled_from([None, 3, 5])))
    return replace(
        gpu,
        pcie=ends,
        memory_used_mib=draw(st.integers(0, 4000)),
        throttle_reasons=tuple(name for name in THROTTLING if name in active),
        ecc_corrected=draw(counts) if gpu.ecc else None,
        ecc_uncorrected=draw(counts) if gpu.ecc else None,
        remapped_rows=draw(remapped_rows) if datacentre and not old else None,
        retired_pages=draw(counts) if datacentre and old else None,
        retired_pages_pending=draw(st.booleans()) if datacentre and old else None,
        recovery_action="None",
        fabric_state=draw(st.sampled_from(FABRICS)) if gen == 5 else None,
        memory_clock_max_mhz=draw(st.sampled_from([None, 1215, 9751])),
        sm_clock_max_mhz=draw(st.sampled_from([None, 2100])),
        mig_devices=tuple(replace(device, index=i) for i, device in enumerate(slices)),
    )


def in_query(gpu: Gpu, dialect: Dialect) -> Gpu:
    """What `-q` and `-q -x` of that release print of a card."""
    branch = dialect.branch
    ends = branch >= 525
    slices = tuple(MigDevice(d.index, memory_mib=d.memory_mib) for d in gpu.mig_devices)
    return replace(
        gpu,
        pcie=link(gpu, ends),
        memory_reserved_mib=gpu.memory_reserved_mib if branch >= 510 else None,
        architecture=gpu.architecture if branch >= 510 else None,
        mig=gpu.mig if branch >= 450 else None,
        mig_devices=slices if branch >= 450 else (),
        remapped_rows=gpu.remapped_rows if branch >= 450 else None,
        recovery_action=gpu.recovery_action if branch >= 570 else None,
        fabric_state=gpu.fabric_state if branch >= 525 else None,
        resizable_bar=(gpu.bar1_memory_mib or 0) >= (gpu.memory_mib or 0),
        # Addressing modes are printed since 535; HMM and None are those of discrete cards.
        unified_memory=False if branch >= 535 else None,
        processes=without_units(gpu.processes),
        nvlinks_gb_s=(),
    )


def link(gpu: Gpu, ends: bool) -> PcieLink:
    """A link as nvidia-smi sees it: no ports above the card."""
    return replace(
        gpu.pcie,
        hops=(),
        gen_gpu_max=gpu.pcie.gen_gpu_max if ends else None,
        gen_host_max=gpu.pcie.gen_host_max if ends else None,
    )


def without_units(processes: tuple[GpuProcess, ...]) -> tuple[GpuProcess, ...]:
    """nvidia-smi knows nothing of systemd."""
    return tuple(replace(process, unit=None) for process in processes)
