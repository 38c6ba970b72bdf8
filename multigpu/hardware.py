"""What a machine is: GPUs, their links, and the host around them.

Names are those of NVML, nvidia-smi, sysfs and systemd, with the unit in the name. Unknown is
`None`, never 0, "" or "N/A"; current and maximum link values are never mixed, because a link is
trained down while it is idle.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from multigpu.links import GpuPair, HopKind, Limit, P2p, Path, PcieBandwidth, PcieHop, PcieLink
from multigpu.managed import Generation, ManagedFile, UnitState
from multigpu.memo import memo
from multigpu.toolchain import Toolchain

__all__ = [
    "Generation",
    "Gpu",
    "GpuPair",
    "GpuProcess",
    "HopKind",
    "Host",
    "KernelEvent",
    "LeftOut",
    "Limit",
    "ManagedFile",
    "MigDevice",
    "P2p",
    "Path",
    "PcieBandwidth",
    "PcieHop",
    "PcieLink",
    "RemappedRows",
    "Toolchain",
    "UnitState",
    "Vendor",
]


class Vendor(StrEnum):
    """PCI vendor of a GPU."""

    NVIDIA = "nvidia"
    AMD = "amd"


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds VRAM; `unit` is the systemd unit its cgroup belongs to."""

    pid: int
    name: str | None = None
    used_memory_mib: int | None = None
    unit: str | None = None


@dataclass(frozen=True)
class MigDevice:
    """A MIG slice: a device of its own, without NVLink and P2P. `profile` reads `1g.10gb`."""

    index: int
    profile: str | None = None
    uuid: str | None = None
    memory_mib: int | None = None


@dataclass(frozen=True)
class RemappedRows:
    """Rows of VRAM that were replaced (data-centre cards since Ampere); pending ones at a reset."""

    correctable: int | None = None
    uncorrectable: int | None = None
    pending: bool | None = None
    failure: bool | None = None


@dataclass(frozen=True)
class KernelEvent:
    """One event of the kernel log; lines of the same card, code and second are one event.

    `kind` is xid, sxid, aer, dpc, pcie-bandwidth, off-the-bus, init-failed, device-handle,
    no-answer (nvidia-smi found no driver or no card), api-mismatch, d3cold, oom, segfault,
    amdgpu-reset, amdgpu-timeout or amdgpu-ras. `code` is the Xid or SXid number. `address` is a PCI
    address (for an SXid that of the NVSwitch). `time` is as printed. `text` is the driver's message
    without prefix; `lines` counts what was grouped. `fatal` is what the line says of itself (SXid,
    AER, NVLink 5 Xids). `uuid` is the GPU's when the log names it. `pcie` belongs to
    pcie-bandwidth.
    """

    kind: str
    address: str | None = None
    code: int | None = None
    text: str | None = None
    time: str | None = None
    pid: int | None = None
    process: str | None = None
    fatal: bool | None = None
    lines: int = 1
    uuid: str | None = None
    pcie: PcieBandwidth | None = None


@dataclass(frozen=True)
class LeftOut:
    """A display function that no plan counts on, and why (integrated graphics, BMC)."""

    pci_bus_id: str | None
    name: str | None
    reason: str


@dataclass(frozen=True)
class Gpu:
    """One card. `uuid` is the key, `index` is the NVML index (PCI bus order).

    A card that answers with an error keeps its row: `error` says what it said. `bar1_memory_mib` is
    the window through which peers reach the card; `resizable_bar` is True when it covers all VRAM.
    `nvlinks_gb_s` has one entry per NVLink, None for one that is inactive. ECC counts are volatile
    (since the driver was loaded). `retired_pages` counts VRAM pages taken out for good (data-centre
    cards before Ampere); pending ones go at the next reset. `compute_partition` (SPX, CPX ...) and
    `memory_partition` (NPS1 ...) are AMD's. `unified_memory`: the GPU shares the processor's memory
    (GB10, GH200, MI300A). `hip_index` is the number that HIP knows an AMD card by, its place among
    the GPUs of KFD (integrated ones count); HIP_VISIBLE_DEVICES takes it.
    `memory_bus_width_bits` and the largest clocks are the card's own (NVML, KFD); NVML's memory
    clock is half of the data rate. `multiprocessors` counts SMs (NVIDIA) or compute units (AMD).
    """

    index: int
    uuid: str | None = None
    name: str | None = None
    vendor: Vendor = Vendor.NVIDIA
    memory_mib: int | None = None
    memory_free_mib: int | None = None
    memory_reserved_mib: int | None = None
    pci_bus_id: str | None = None
    pcie: PcieLink = field(default_factory=PcieLink)
    numa_node: int | None = None
    compute_capability: tuple[int, int] | None = None
    gfx: str | None = None
    power_limit_w: float | None = None
    power_limit_default_w: float | None = None
    ecc: bool | None = None
    mig: bool | None = None
    display_attached: bool | None = None
    processes: tuple[GpuProcess, ...] = ()
    error: str | None = None
    architecture: str | None = None
    vbios_version: str | None = None
    power_limit_max_w: float | None = None
    power_draw_w: float | None = None
    temperature_c: int | None = None
    performance_state: str | None = None
    throttle_reasons: tuple[str, ...] = ()
    persistence_mode: bool | None = None
    compute_mode: str | None = None
    bar1_memory_mib: int | None = None
    resizable_bar: bool | None = None
    cpu_affinity: str | None = None
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    remapped_rows: RemappedRows | None = None
    recovery_action: str | None = None
    fabric_state: str | None = None
    mig_devices: tuple[MigDevice, ...] = ()
    nvlinks_gb_s: tuple[float | None, ...] = ()
    compute_partition: str | None = None
    memory_partition: str | None = None
    unified_memory: bool | None = None
    render_node: str | None = None
    hip_index: int | None = None
    memory_used_mib: int | None = None
    retired_pages: int | None = None
    retired_pages_pending: bool | None = None
    memory_bus_width_bits: int | None = None
    memory_clock_max_mhz: int | None = None
    sm_clock_max_mhz: int | None = None
    multiprocessors: int | None = None


@dataclass(frozen=True)
class Host:
    """One captured machine.

    `problems` lists, one sentence each, what the probe could not see and why; `unseen` what it did
    not look at or may not see ("kernel log: needs root"), which is no fault of the machine.
    `simulated` is True when a tool on the host says that its GPUs are simulated; every screen
    repeats it. `partial` is True for a machine put together from saved outputs: a tool without
    output was not given, which says nothing of the machine. `virtualization` is the word of
    systemd-detect-virt, "none" on bare metal. `iommu` is off, passthrough or translating.
    `left_out` are display functions that are no cards to plan with. `module_license` tells the open
    kernel module ("Dual MIT/GPL") from the closed one ("NVIDIA"); `registry_dwords` are the
    driver's registry keys. `disk_free_mib` is that of /var/lib, where models go, `install_free_mib`
    that of /opt/multigpu. `runtimes` are the directories of installed runtimes, complete or not,
    `generations` the record of which serve; None and empty where the probe did not look. `paths`
    are those
    that the probe was asked for and found, directories too, without their content. `uid` is that of
    the user the probe ran as.
    """

    name: str
    gpus: tuple[Gpu, ...] = ()
    pairs: tuple[GpuPair, ...] = ()
    driver: str | None = None
    cuda: str | None = None
    rocm: str | None = None
    cpus: int | None = None
    numa_nodes: int | None = None
    memory_mib: int | None = None
    memory_available_mib: int | None = None
    disk_free_mib: int | None = None
    install_free_mib: int | None = None
    toolchain: Toolchain | None = None
    runtimes: tuple[str, ...] | None = None
    generations: tuple[Generation, ...] = ()
    virtualization: str | None = None
    iommu: str | None = None
    kernel: str | None = None
    kernel_command_line: str | None = None
    os: str | None = None
    glibc: str | None = None
    python: tuple[int, int, int] | None = None
    systemd: int | None = None
    uid: int | None = None
    units: tuple[UnitState, ...] = ()
    files: tuple[ManagedFile, ...] = ()
    paths: tuple[ManagedFile, ...] = ()
    simulated: bool = False
    partial: bool = False
    left_out: tuple[LeftOut, ...] = ()
    kernel_events: tuple[KernelEvent, ...] = ()
    nics: tuple[str, ...] = ()
    product: str | None = None
    module_license: str | None = None
    registry_dwords: str | None = None
    unseen: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def gpu(self, index: int) -> Gpu:
        """The card with that NVML index. Raises KeyError when the host has none such."""
        known = memo(self)
        try:
            by_index: dict[int, Gpu] = known["gpus"]
        except KeyError:
            by_index = known["gpus"] = {gpu.index: gpu for gpu in reversed(self.gpus)}
        return by_index[index]

    def pair(self, a: int, b: int) -> GpuPair | None:
        """The record of an unordered pair, or None when the topology was not seen."""
        return self.pair_records.get((a, b) if a < b else (b, a))

    @property
    def pair_records(self) -> dict[tuple[int, int], GpuPair]:
        """The record of every pair (a < b) that the topology shows, made once."""
        known = memo(self)
        if "pairs" not in known:
            known["pairs"] = {(pair.a, pair.b): pair for pair in reversed(self.pairs)}
        found: dict[tuple[int, int], GpuPair] = known["pairs"]
        return found

    def unit(self, name: str) -> UnitState | None:
        """State of one unit of ours, or None when the host has none of that name."""
        return next((unit for unit in self.units if unit.name == name), None)

    def file(self, path: str) -> ManagedFile | None:
        """A file of ours on the host, or None when it is not there."""
        return next((file for file in self.files if file.path == path), None)

    @property
    def usable(self) -> tuple[Gpu, ...]:
        """Cards a plan may use: no error, memory known, not cut into MIG slices."""
        known = memo(self)
        if "usable" not in known:
            known["usable"] = tuple(
                g for g in self.gpus if g.error is None and g.memory_mib and not g.mig
            )
        found: tuple[Gpu, ...] = known["usable"]
        return found
