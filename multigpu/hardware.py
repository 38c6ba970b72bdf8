"""What a machine is: GPUs, their links, and the host around them.

Names are those of NVML, nvidia-smi, sysfs and systemd, with the unit in the name. Unknown is
`None`, never 0, "" or "N/A"; current and maximum link values are never mixed, because a link is
trained down while it is idle.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Vendor(StrEnum):
    """PCI vendor of a GPU."""

    NVIDIA = "nvidia"
    AMD = "amd"
    INTEL = "intel"


class Path(StrEnum):
    """PCIe class of the way between two GPUs, nearest first (`nvidia-smi topo -m`)."""

    PIX = "PIX"
    PXB = "PXB"
    PHB = "PHB"
    NODE = "NODE"
    SYS = "SYS"


class P2p(StrEnum):
    """Cell of `nvidia-smi topo -p2p r`: a grant by the driver, not a proof that bytes arrive."""

    OK = "OK"
    CHIPSET_NOT_SUPPORTED = "CNS"
    GPU_NOT_SUPPORTED = "GNS"
    TOPOLOGY_NOT_SUPPORTED = "TNS"
    NOT_SUPPORTED = "NS"
    DISABLED_BY_REGISTRY = "DR"
    UNKNOWN = "U"


@dataclass(frozen=True)
class PcieLink:
    """One GPU's link. `limited_at` is the PCI address of the narrowest hop above the card.

    `limited_at_width_max` is what that hop could carry: fewer lanes than the card means a slot
    wired that way, as many mean a link that trained down (riser, seating, bifurcation).
    `width_path` is the narrowest width between the card and the CPU, which a switch or a chipset
    can make smaller than `width_current`; `behind_chipset` is True when the way leads through one.
    """

    gen_current: int | None = None
    gen_max: int | None = None
    width_current: int | None = None
    width_max: int | None = None
    limited_at: str | None = None
    limited_at_width_max: int | None = None
    width_path: int | None = None
    behind_chipset: bool = False

    @property
    def narrowed(self) -> bool:
        """True when fewer lanes are trained than the card has; speed says nothing while idle."""
        if self.width_current is None or self.width_max is None:
            return False
        return self.width_current < self.width_max


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds VRAM; `unit` is the systemd unit its cgroup belongs to."""

    pid: int
    name: str | None = None
    used_memory_mib: int | None = None
    unit: str | None = None


@dataclass(frozen=True)
class Gpu:
    """One card. `uuid` is the key, `index` is the NVML index (PCI bus order).

    A card that answers with an error keeps its row: `error` says what it said.
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


@dataclass(frozen=True)
class GpuPair:
    """One unordered pair, `a < b`. `nvlinks` counts NVLink links, 0 when there are none.

    `nvlink_gb_s` is the rate of these links together in one direction (`nvidia-smi nvlink -s`).
    """

    a: int
    b: int
    path: Path | None = None
    nvlinks: int | None = None
    p2p_read: P2p | None = None
    nvlink_gb_s: float | None = None


class Mix(StrEnum):
    """How alike the usable cards of a host are; each is a different answer for the planner."""

    SINGLE = "one GPU"
    MATCHED = "matched"
    MEMORY = "mixed by memory"
    ARCHITECTURE = "mixed by architecture"
    VENDOR = "mixed by vendor"


@dataclass(frozen=True)
class UnitState:
    """A systemd unit of ours (`systemctl show`). `revision` is the one its process carries,
    `command_sha256` the hash of its command line as /proc/PID/cmdline gives it.

    `started_at` is the Unix time at which the main process started.
    """

    name: str
    load_state: str | None = None
    active_state: str | None = None
    sub_state: str | None = None
    result: str | None = None
    n_restarts: int | None = None
    main_pid: int | None = None
    need_daemon_reload: bool | None = None
    unit_file_state: str | None = None
    revision: str | None = None
    command_sha256: str | None = None
    started_at: float | None = None


@dataclass(frozen=True)
class ManagedFile:
    """A file of ours on the host, by content. `sha256` is None when the file could not be read.

    `content` is kept only for the stamps that say which runtime is installed, and of unit files the
    first line; `modified_at` is the Unix time of the last change of content (mtime).
    """

    path: str
    sha256: str | None
    size_bytes: int | None = None
    mode: str | None = None
    owner: str | None = None
    content: str | None = None
    modified_at: float | None = None


@dataclass(frozen=True)
class Host:
    """One captured machine.

    `problems` lists, one sentence each, what the probe could not see and why. `simulated` is True
    when a tool on the host says that its GPUs are simulated; every screen repeats it.
    `virtualization` is the word of systemd-detect-virt, "none" on bare metal. `iommu` is off,
    passthrough or translating. `disk_free_mib` is that of /var/lib, where models go. `paths` are
    those that the probe was asked for and found, directories too, without their content. `uid` is
    that of the user the probe ran as.
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
    problems: tuple[str, ...] = ()

    def gpu(self, index: int) -> Gpu:
        """The card with that NVML index. Raises KeyError when the host has none such."""
        for gpu in self.gpus:
            if gpu.index == index:
                return gpu
        raise KeyError(index)

    def pair(self, a: int, b: int) -> GpuPair | None:
        """The record of an unordered pair, or None when the topology was not seen."""
        low, high = min(a, b), max(a, b)
        return next((p for p in self.pairs if (p.a, p.b) == (low, high)), None)

    def unit(self, name: str) -> UnitState | None:
        """State of one unit of ours, or None when the host has none of that name."""
        return next((unit for unit in self.units if unit.name == name), None)

    def file(self, path: str) -> ManagedFile | None:
        """A file of ours on the host, or None when it is not there."""
        return next((file for file in self.files if file.path == path), None)

    @property
    def usable(self) -> tuple[Gpu, ...]:
        """Cards a plan may use: no error, memory known, not cut into MIG slices."""
        return tuple(g for g in self.gpus if g.error is None and g.memory_mib and not g.mig)


def mix(gpus: tuple[Gpu, ...]) -> Mix:
    """How alike the cards are: vendor first, then compute capability or gfx, then memory.

    Memory within 10 % counts as matched; a smaller band would part twins that differ by firmware
    (24564 and 24576 MiB).
    """
    if len(gpus) < 2:
        return Mix.SINGLE
    if len({g.vendor for g in gpus}) > 1:
        return Mix.VENDOR
    if len({(g.compute_capability, g.gfx) for g in gpus}) > 1:
        return Mix.ARCHITECTURE
    memory = [g.memory_mib or 0 for g in gpus]
    return Mix.MATCHED if min(memory) >= 0.9 * max(memory) else Mix.MEMORY
