"""What `nvidia-smi topo` and `nvidia-smi nvlink -s` print about a simulated host.

418 prints "CPU Affinity" only, 450 adds "NUMA Affinity", 530 "GPU NUMA ID" and the names NIC0 ...
with a legend. Affinities are padded with a further tab where they are shorter than their header.
"""

from __future__ import annotations

from multigpu.hardware import Gpu, Host, P2p
from tests.rigs.dialect import Dialect
from tests.rigs.nvidia_nodes import LOST, no_handle

LEGEND = (
    "  X    = Self",
    "  SYS  = Connection traversing PCIe as well as the SMP interconnect between NUMA nodes "
    "(e.g., QPI/UPI)",
    "  NODE = Connection traversing PCIe as well as the interconnect between PCIe Host Bridges "
    "within a NUMA node",
    "  PHB  = Connection traversing PCIe as well as a PCIe Host Bridge (typically the CPU)",
    "  PXB  = Connection traversing multiple PCIe bridges (without traversing the PCIe Host "
    "Bridge)",
    "  PIX  = Connection traversing at most a single PCIe bridge",
)
NVLINK_LEGEND = "  NV#  = Connection traversing a bonded set of # NVLinks"
P2P_LEGEND = (
    "  X    = Self",
    "  OK   = Status Ok",
    "  CNS  = Chipset not supported",
    "  GNS  = GPU not supported",
    "  TNS  = Topology not supported",
    "  NS   = Not supported",
)


def topo(host: Host, dialect: Dialect, pcie: bool = False) -> str:
    """`topo -m`, or with `pcie` `topo -mp`, which shows the class under an NVLink."""
    labels = [f"GPU{gpu.index}" for gpu in host.gpus]
    nics = nic_labels(host, dialect)
    header = "\t".join([*labels, *nics, *side_columns(dialect)])
    lines = [f"\t\x1b[4m{header}\x1b[0m"]
    lines += [row(host, dialect, gpu, pcie, len(nics)) for gpu in host.gpus]
    blank = "\t" * len(side_columns(dialect))
    for nic in nics:
        cells = [*("NODE" for _ in labels), *(" X " if nic == other else "PIX" for other in nics)]
        lines.append("\t".join([nic, *cells]) + blank)
    lines += ["", "Legend:", "", *LEGEND, *(() if pcie else (NVLINK_LEGEND,))]
    if nics and dialect.branch >= 530:
        lines += ["", "NIC Legend:", ""]
        lines += [f"  {nic}: {name}" for nic, name in zip(nics, host.nics, strict=True)]
    return printed(lines, dialect)


def nic_labels(host: Host, dialect: Dialect) -> list[str]:
    """Columns of the network cards: NIC0 ... or, before 530, their own names."""
    return [f"NIC{i}" if dialect.branch >= 530 else name for i, name in enumerate(host.nics)]


def side_columns(dialect: Dialect) -> tuple[str, ...]:
    """Columns beside the matrix."""
    if dialect.branch < 450:
        return ("CPU Affinity",)
    if dialect.branch < 530:
        return ("CPU Affinity", "NUMA Affinity")
    return ("CPU Affinity", "NUMA Affinity", "GPU NUMA ID")


def row(host: Host, dialect: Dialect, gpu: Gpu, pcie: bool, nics: int) -> str:
    """One GPU's row with its affinities."""
    cells = [path_cell(host, gpu, other, pcie) for other in host.gpus]
    cpus = gpu.cpu_affinity or ""
    numa = "N/A" if gpu.numa_node is None else str(gpu.numa_node)
    if dialect.branch < 450:
        sides = [cpus]
    elif dialect.branch < 530:
        sides = [cpus, *([] if len(cpus) >= 8 else [""]), numa]
    else:
        sides = [cpus, numa, "", "N/A"]
    return "\t".join([f"GPU{gpu.index}", *cells, *["NODE"] * nics, *sides])


def path_cell(host: Host, gpu: Gpu, other: Gpu, pcie: bool) -> str:
    """NV# for a bond, the PCIe class otherwise."""
    if gpu.index == other.index:
        return " X "
    pair = host.pair(gpu.index, other.index)
    if pair is None or pair.path is None:
        return "N/A"
    return pair.path.value if pcie or not pair.nvlinks else f"NV{pair.nvlinks}"


def peer_access(host: Host, dialect: Dialect, letter: str) -> str:
    """`topo -p2p r|w|n|a|p`; NVLink and atomics are granted where reads are."""
    lines = [" \t" + "".join(f"GPU{gpu.index}\t" for gpu in host.gpus)]
    for gpu in host.gpus:
        cells = "".join(f"{grant_cell(host, gpu, other, letter)}\t" for other in host.gpus)
        lines.append(f" GPU{gpu.index}\t{cells}")
    disabled = ("  DR   = Disabled by Regkey",) if dialect.branch >= 580 else ()
    lines += ["", "Legend:", "", *P2P_LEGEND, *disabled, "  U    = Unknown"]
    return printed(lines, dialect)


def grant_cell(host: Host, gpu: Gpu, other: Gpu, letter: str) -> str:
    """One cell; U where the machine does not say."""
    if gpu.index == other.index:
        return "X"
    pair = host.pair(gpu.index, other.index)
    grant = None if pair is None else pair.p2p_write if letter == "w" else pair.p2p_read
    return (grant or P2p.UNKNOWN).value


def nvlink_s(host: Host, dialect: Dialect) -> str:
    """`nvlink -s`; a card without rates prints a sentence, spelled by release."""
    lines: list[str] = []
    for gpu in host.gpus:
        if gpu.error == LOST:
            lines.append(no_handle(gpu, dialect))
            continue
        lines.append(f"GPU {gpu.index}: {gpu.name} (UUID: {gpu.uuid})")
        if gpu.mig:
            lines.append("Nvlink queries are not supported for Devices in MIG mode")
        elif not gpu.nvlinks_gb_s:
            lines.append("Device does not have or support Nvlink")
        elif not any(gpu.nvlinks_gb_s):
            spelled = "inActive" if dialect.branch >= 590 else "inactive"
            lines.append(f"Unable to retrieve NVLink information as all links are {spelled}")
        else:
            lines += [
                f"\t Link {i}: {'<inactive>' if rate is None else f'{rate:g} GB/s'}"
                for i, rate in enumerate(gpu.nvlinks_gb_s)
            ]
    return printed(lines, dialect)


def printed(lines: list[str], dialect: Dialect) -> str:
    """The text as the tool writes it, or as a terminal shows it and a person copies it."""
    text = "\n".join(lines) + "\n"
    if not dialect.pasted:
        return text
    plain = text.replace("\x1b[4m", "").replace("\x1b[0m", "")
    return "\n".join(line.expandtabs(8).rstrip() for line in plain.split("\n"))
