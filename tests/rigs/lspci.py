"""What lspci prints about a simulated host's GPUs and the ports above them.

pciutils before 3.6 says nothing about a link's state, 3.6 and 3.7 say `(ok)` or `(downgraded)`,
later ones only the latter (ls-caps.c). The tree is drawn as in ls-tree.c.
"""

from __future__ import annotations

from dataclasses import dataclass

from multigpu.hardware import Gpu, HopKind, Host, PcieHop, Vendor
from tests.rigs.dialect import Dialect
from tests.rigs.sysfs import GT_PER_S, pci_ids

VENDORS = {
    "0x10de": "NVIDIA Corporation",
    "0x1002": "Advanced Micro Devices, Inc. [AMD/ATI]",
    "0x1022": "Advanced Micro Devices, Inc. [AMD]",
    "0x8086": "Intel Corporation",
    "0x1000": "Broadcom / LSI",
    "0x10b5": "PLX Technology, Inc.",
}


@dataclass(frozen=True)
class Node:
    """A port or a card in the tree."""

    address: str
    vendor: str
    device: str
    below: str | None = None
    hop: PcieHop | None = None
    gpu: Gpu | None = None


def nodes(host: Host) -> dict[str, Node]:
    """Every card and every port above it, by address; `below` is the next towards a card."""
    found: dict[str, Node] = {}
    for gpu in host.gpus:
        below = f"{gpu.pci_bus_id}"
        found[below] = Node(below, *pci_ids(gpu), gpu=gpu)
        for hop in gpu.pcie.hops:
            found[hop.address] = Node(
                hop.address, f"{hop.vendor}", f"{hop.device}", below=below, hop=hop
            )
            below = hop.address
    return {name: found[name] for name in sorted(found)}


def lspci_vvv(host: Host, dialect: Dialect, numbers: bool = True, domains: bool = True) -> str:
    """`lspci -vvv`, with `-nn` and `-D` unless told otherwise."""
    known = nodes(host)
    blocks = [
        [headline(node, numbers, domains), *details(node, known, dialect)]
        for node in known.values()
    ]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def lspci_nn(host: Host, dialect: Dialect) -> str:
    """`lspci -nn`, with the audio function of every card and a management controller."""
    lines = []
    for node in nodes(host).values():
        lines.append(headline(node, True, False).partition(" (prog-if")[0])
        if node.gpu is not None:
            audio = node.address[5:-1] + "1"
            vendor = VENDORS[node.vendor]
            lines.append(
                f"{audio} Audio device [0403]: {vendor} Device [{node.vendor[2:]}:22ba] (rev a1)"
            )
    lines.append(
        "ff:00.0 VGA compatible controller [0300]: ASPEED Technology, Inc. ASPEED Graphics Family "
        "[1a03:2000] (rev 41)"
    )
    return "\n".join(lines) + "\n"


def headline(node: Node, numbers: bool, domains: bool) -> str:
    """The first line of a device."""
    address = node.address if domains else node.address[5:]
    kind, code = ("VGA compatible controller", "0300") if node.gpu else ("PCI bridge", "0604")
    name = f"{VENDORS[node.vendor]} Device"
    if numbers:
        kind, name = f"{kind} [{code}]", f"{name} [{node.vendor[2:]}:{node.device[2:]}]"
    else:
        name = f"{name} {node.device[2:]}"
    form = "VGA controller" if node.gpu else "Normal decode"
    return f"{address} {kind}: {name} (rev a1) (prog-if 00 [{form}])"


def details(node: Node, known: dict[str, Node], dialect: Dialect) -> list[str]:
    """The lines below it."""
    return card_lines(node.gpu, dialect) if node.gpu else port_lines(node, known, dialect)


def card_lines(gpu: Gpu, dialect: Dialect) -> list[str]:
    """A graphics function; behind a switch of its own its link is internal and always full."""
    link = gpu.pcie
    inside = bool(link.hops) and link.hops[0].kind is HopKind.ON_CARD
    gen_max = link.gen_gpu_max or link.gen_max
    current = (gen_max, 16) if inside else (link.gen_current, link.width_current)
    nvidia = gpu.vendor is Vendor.NVIDIA
    numa = [] if gpu.numa_node is None else [f"\tNUMA node: {gpu.numa_node}"]
    return [
        "\tSubsystem: Gigabyte Technology Co., Ltd Device [1458:0001]",
        "\tControl: I/O+ Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop- ParErr- Stepping- SERR-",
        *numa,
        "\tIOMMU group: 15",
        *region_lines(gpu),
        "\tCapabilities: [78] Express (v2) Legacy Endpoint, MSI 00",
        *link_lines((gen_max, 16 if inside else link.width_max), current, dialect),
        "\tCapabilities: [420 v2] Advanced Error Reporting",
        "\t\tCESta:\tRxErr- BadTLP- BadDLLP- Rollover- Timeout- AdvNonFatalErr-",
        f"\tKernel driver in use: {'nvidia' if nvidia else 'amdgpu'}",
        f"\tKernel modules: {'nvidiafb, nouveau, nvidia_drm, nvidia' if nvidia else 'amdgpu'}",
    ]


def region_lines(gpu: Gpu) -> list[str]:
    """Region 1 of NVIDIA's and region 0 of AMD's cards is the window on the memory."""
    nvidia = gpu.vendor is Vendor.NVIDIA
    size = gpu.bar1_memory_mib
    if size is None:
        return []
    shown = f"{size >> 10}G" if size % 1024 == 0 else f"{size}M"
    memory = f"Memory at 6000000000 (64-bit, prefetchable) [size={shown}]"
    if nvidia:
        first = "\tRegion 0: Memory at f5000000 (32-bit, non-prefetchable) [size=16M]"
        return [first, f"\tRegion 1: {memory}", "\tRegion 5: I/O ports at f000 [size=128]"]
    return [f"\tRegion 0: {memory}", "\tRegion 4: I/O ports at f000 [size=256]"]


def port_lines(node: Node, known: dict[str, Node], dialect: Dialect) -> list[str]:
    """A bridge; the end of its paragraph is left out where nobody saw whether it has ACS."""
    hop = node.hop or PcieHop(node.address)
    bus, below = node.address.split(":")[1], buses_below(node.address, known)
    first, _, last = below.partition("-")
    lines = [
        f"\tBus: primary={bus}, secondary={first}, subordinate={last or first}, sec-latency=0",
        "\tCapabilities: [40] Express (v2) Root Port (Slot+), MSI 00",
        *link_lines((hop.gen_max, hop.width_max), (hop.gen_current, hop.width_current), dialect),
    ]
    if hop.acs_redirect is None:
        return lines
    sign = "+" if hop.acs_redirect else "-"
    return [
        *lines,
        "\tCapabilities: [150 v1] Access Control Services",
        "\t\tACSCap:\tSrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl-",
        f"\t\tACSCtl:\tSrcValid{sign} TransBlk- ReqRedir{sign} CmpltRedir{sign} UpstreamFwd{sign}",
        "\tKernel driver in use: pcieport",
    ]


Link = tuple[int | None, int | None]


def link_lines(most: Link, current: Link, dialect: Dialect) -> list[str]:
    """LnkCap, LnkCtl and LnkSta of one function."""
    (gen_max, width_max), (gen, width) = most, current
    lines = [
        f"\t\tLnkCap:\tPort #0, Speed {gt(gen_max)}, Width x{width_max or 0}, ASPM L1, Exit "
        "Latency L1 <4us",
        "\t\tLnkCtl:\tASPM Disabled; RCB 64 bytes, Disabled- CommClk+",
    ]
    release = tuple(int(part) for part in dialect.pciutils.split(".")[:2])
    if release < (3, 6):
        state = f"Speed {gt(gen)}, Width x{width or 0}, TrErr- Train- SlotClk+ DLActive-"
        return [*lines, f"\t\tLnkSta:\t{state}"]
    slow = word(gen, gen_max, release)
    narrow = word(width, width_max, release)
    state = f"Speed {gt(gen)}{slow}, Width x{width or 0}{narrow}"
    return [*lines, f"\t\tLnkSta:\t{state}", "\t\t\tTrErr- Train- SlotClk+ DLActive- BWMgmt-"]


def gt(gen: int | None) -> str:
    """A generation's transfer rate."""
    return "unknown" if gen is None else f"{GT_PER_S[gen]:g}GT/s"


def word(current: int | None, most: int | None, release: tuple[int, ...]) -> str:
    """What lspci remarks on a value beside its maximum."""
    if (current or 0) < (most or 0):
        return " (downgraded)"
    if (current or 0) > (most or 0):
        return " (overdriven)" if release >= (3, 8) else " (strange)"
    return "" if release >= (3, 8) else " (ok)"


def lspci_tv(host: Host) -> str:
    """`lspci -tv`; bridges have no name, audio functions hang beside their cards."""
    known = nodes(host)
    below = {name: node.below.rpartition(":")[0] for name, node in known.items() if node.below}
    buses: dict[str, list[str]] = {}
    for name in known:
        buses.setdefault(name.rpartition(":")[0], []).append(name)
    roots = [bus for bus in sorted(buses) if bus not in below.values()]
    drawn = [
        [
            f"[{bus}]-{line}" if i == 0 else " " * (len(bus) + 3) + line
            for i, line in enumerate(draw_bus(buses[bus], known, buses, below))
        ]
        for bus in roots
    ]
    return "\n".join(joined(drawn, "-", "-")) + "\n"


def draw_bus(
    names: list[str], known: dict[str, Node], buses: dict[str, list[str]], below: dict[str, str]
) -> list[str]:
    """The devices of one bus, one below the other."""
    drawn = []
    for name in names:
        node, label = known[name], name.rpartition(":")[2]
        if node.gpu is not None:
            vendor = VENDORS[node.vendor]
            drawn.append([f"{label}  {vendor} Device {node.device[2:]}"])
            drawn.append([f"{label[:-1]}1  {vendor} High Definition Audio Controller"])
            continue
        head = f"{label}-[{buses_below(name, known)}]--"
        rest = draw_bus(buses[below[name]], known, buses, below)
        drawn.append([head + rest[0], *(" " * len(head) + line for line in rest[1:])])
    return joined(drawn, "-", "--")


def buses_below(name: str, known: dict[str, Node]) -> str:
    """Numbers of the buses below a bridge: `01` or `01-03`."""
    first = node = known[f"{known[name].below}"]
    while node.below is not None:
        node = known[node.below]
    numbers = [end.address.split(":")[1] for end in (first, node)]
    return numbers[0] if numbers[0] == numbers[1] else "-".join(numbers)


def joined(drawn: list[list[str]], head: str, single: str) -> list[str]:
    """Branches side by side; a lone one needs no fork."""
    if len(drawn) == 1:
        first, *rest = drawn[0]
        return [single + first, *(" " * len(single) + line for line in rest)]
    lines = []
    for place, (first, *rest) in enumerate(drawn):
        last = place == len(drawn) - 1
        lines.append(("\\-" if last else "+-") + first)
        lines += [("  " if last else "| ") + line for line in rest]
    if single == "--":
        return lines
    return [(head if i == 0 else " ") + line for i, line in enumerate(lines)]
