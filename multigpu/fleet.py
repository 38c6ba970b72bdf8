"""Many hosts on one screen: what is alike, what stands out, what to mind, how much there is.

A host stands out where it differs from most hosts with the same models of cards. Every host is on
the screen: in the group of those that are like it, or with the reason why it could not be read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from multigpu.cautions import Caution, Severity, warnings
from multigpu.cautions.links import lanes
from multigpu.grants import granted
from multigpu.hardware import Gpu, Host
from multigpu.islands import members
from multigpu.screen.cards import short_name
from multigpu.screen.text import NARROWEST, WIDEST, in_runs, natural, wrapped

COLUMNS = 80
KINDS_IN_FULL = 12
NAMES_IN_FULL = 24
FAMILY = 3
NOBODY: Mapping[str, str] = MappingProxyType({})


def fleet(
    hosts: Sequence[Host], unreadable: Mapping[str, str] = NOBODY, columns: int = COLUMNS
) -> str:
    """The whole screen, ending in a newline; no line is longer than `columns` (40 to 120).

    `unreadable` gives the sentence of each host whose capture could not be read.
    """
    columns = min(max(columns, NARROWEST), WIDEST)
    lines = [
        *wrapped("", _header(hosts, unreadable), columns),
        *_section("alike", _alike(hosts, columns)),
        *_section("stands out", _standing_out(hosts, columns)),
        *_section("cautions", _cautions(hosts, columns)),
        *_section("not readable", _unreadable(unreadable, columns)),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [title, *lines] if lines else []


def _header(hosts: Sequence[Host], unreadable: Mapping[str, str]) -> str:
    """`17 hosts · 36 GPUs, 35 usable · 848 GiB VRAM · 3 SIMULATED · 1 not readable`."""
    gpus = [gpu for host in hosts for gpu in host.gpus]
    usable = sum(len(host.usable) for host in hosts)
    vram = sum(gpu.memory_mib or 0 for gpu in gpus) / 1024
    blind = sum(gpu.memory_mib is None for gpu in gpus)
    simulated = sum(host.simulated for host in hosts)
    parts = [
        _many(len(hosts) + len(unreadable), "host"),
        _many(len(gpus), "GPU") + (f", {usable} usable" if usable < len(gpus) else ""),
        f"{vram:.0f} GiB VRAM" + (f" without {_many(blind, 'GPU')}" if blind else ""),
        f"{simulated} SIMULATED" if simulated else "",
        f"{len(unreadable)} not readable" if unreadable else "",
    ]
    return " · ".join(part for part in parts if part)


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


# --- alike --------------------------------------------------------------------------------------


def cards(host: Host) -> str:
    """`2x RTX 3090`, `1x RTX 4090 + 1x RTX 3090`, `no GPU`."""
    counts = Counter(short_name(gpu) for gpu in host.gpus)
    return " + ".join(f"{n}x {name}" for name, n in counts.most_common()) or "no GPU"


def topology(host: Host) -> str | None:
    """`NV4`, `NV4/SYS`, `PHB`: the kinds of ways between the cards; None when not seen."""
    kinds = {
        f"NV{pair.nvlinks}"
        if pair.nvlinks
        else f"XGMI{pair.xgmi_links}"
        if pair.xgmi_links
        else (pair.path.value if pair.path else "?")
        for pair in host.pairs
    }
    return "/".join(sorted(kinds)) or None


def _kind(host: Host) -> str:
    driver = f"driver {host.driver}" if host.driver else f"ROCm {host.rocm}" if host.rocm else None
    way = topology(host)
    none = "driver ?" if any(gpu.error is None for gpu in host.gpus) else "no driver"
    parts = [cards(host) + (f", {way}" if way else ""), driver or none, host.os or "OS ?"]
    return " · ".join(parts)


def _alike(hosts: Sequence[Host], columns: int) -> list[str]:
    """Kinds by number of hosts; beyond the first dozen, kinds of one host share a line."""
    kinds: dict[str, list[str]] = {}
    for host in hosts:
        kinds.setdefault(_kind(host), []).append(host.name)
    ranked = sorted(kinds.items(), key=lambda item: (-len(item[1]), natural(item[1][0])))
    full = [item for rank, item in enumerate(ranked) if rank < KINDS_IN_FULL or len(item[1]) > 1]
    rest = [name for _, group in ranked[len(full) :] for name in group]
    width = len(_many(len(ranked[0][1]), "host")) if ranked else 0
    lines = []
    for kind, group in full:
        lead = f"  {_many(len(group), 'host').rjust(width)}  "
        lines += _kind_lines(lead, kind, named(group), columns)
    if rest:
        lines += wrapped(
            f"  and {_many(len(rest), 'kind')} of one host each: ", named(rest), columns
        )
    return lines


def _kind_lines(lead: str, kind: str, names: str, columns: int) -> list[str]:
    """The hosts behind their kind where both fit in a line, else below it."""
    if len(lead) + len(kind) + 2 + len(names) <= columns:
        return wrapped(lead, f"{kind}: {names}", columns)
    return [*wrapped(lead, kind, columns), *wrapped(" " * len(lead), names, columns)]


def named(names: Iterable[str]) -> str:
    """`node01..node14, node17`."""
    return ", ".join(in_runs(names))


def _first(names: Iterable[str]) -> str:
    """The first two dozen, and how many more; all of them are in `alike`."""
    runs = in_runs(names)
    more = f" and {len(runs) - NAMES_IN_FULL} more" if len(runs) > NAMES_IN_FULL else ""
    return ", ".join(runs[:NAMES_IN_FULL]) + more


# --- stands out ---------------------------------------------------------------------------------


def _distinct(host: Host, fact: Callable[[Gpu], object], unit: str) -> str | None:
    """The distinct values of a fact of the cards that answer."""
    found = {fact(gpu) for gpu in host.gpus if gpu.error is None} - {None}
    return " and ".join(sorted((unit.format(v) for v in found), key=natural)) or None


def _grants(host: Host) -> str | None:
    words = {True: "granted", False: "refused"}
    found = {words[g] for g in map(granted, host.pairs) if g is not None}
    return " and ".join(sorted(found)) or None


TRAITS: dict[str, Callable[[Host], str | None]] = {
    "GPUs": lambda host: str(len(host.gpus)),
    "unusable GPUs": lambda host: str(len(host.gpus) - len(host.usable)),
    "driver": lambda host: host.driver,
    "ROCm": lambda host: host.rocm,
    "OS": lambda host: host.os,
    "VRAM": lambda host: _distinct(host, lambda gpu: gpu.memory_mib, "{} MiB"),
    "lanes": lambda host: _distinct(host, lambda gpu: lanes(gpu.pcie), "x{}"),
    "PCIe": lambda host: _distinct(host, lambda gpu: gpu.pcie.gen_max, "{}.0"),
    "power limit": lambda host: _distinct(host, lambda gpu: gpu.power_limit_w, "{:.0f} W"),
    "VBIOS": lambda host: _distinct(host, lambda gpu: gpu.vbios_version, "{}"),
    "ways between cards": topology,
    "P2P": _grants,
    # To 8 GiB: what firmware keeps for itself differs between equal machines.
    "RAM": lambda host: (
        f"about {round(host.memory_mib / 8192) * 8} GiB" if host.memory_mib else None
    ),
    "virtualization": lambda host: host.virtualization,
    "IOMMU": lambda host: host.iommu,
    "kernel module": lambda host: host.module_license,
}

PAIR_TRAITS = ("ways between cards", "P2P")


def _family(host: Host) -> frozenset[str]:
    """The models of a host; cards that do not answer have no name and do not count."""
    return frozenset(gpu.name for gpu in host.gpus if gpu.name)


def _standing_out(hosts: Sequence[Host], columns: int) -> list[str]:
    """Per difference the hosts that have it, in the order of the first one's name."""
    families: dict[frozenset[str], list[Host]] = {}
    for host in hosts:
        families.setdefault(_family(host), []).append(host)
    found: dict[str, list[str]] = {}
    for family in families.values():
        if len(family) >= FAMILY:
            for name, difference in _differences(family):
                found.setdefault(difference, []).append(name)
    ranked = sorted(found.items(), key=lambda item: natural(min(item[1], key=natural)))
    return [
        line
        for difference, names in ranked
        for line in wrapped("  ", f"{named(names)}: {difference}", columns)
    ]


def _differences(family: Sequence[Host]) -> list[tuple[str, str]]:
    """(host, how it differs) for each host that differs from more than half of its family."""
    parts: dict[int, list[str]] = {}
    for trait, fact in TRAITS.items():
        values = [fact(host) for host in family]
        usual, count = Counter(values).most_common(1)[0]
        if usual is None or count * 2 <= len(family):
            continue
        for place, value in enumerate(values):
            if value != usual and not _is_of_pairs(trait, family[place]):
                text = f"{trait} {value or 'not seen'}, most have {usual}"
                parts.setdefault(place, []).append(text)
    return [(family[place].name, "; ".join(texts)) for place, texts in parts.items()]


def _is_of_pairs(trait: str, host: Host) -> bool:
    """True for a fact about pairs on a host that has too few cards for one."""
    return trait in PAIR_TRAITS and len(host.usable) < 2


# --- cautions -----------------------------------------------------------------------------------


def _cautions(hosts: Sequence[Host], columns: int) -> list[str]:
    """Rules by severity, each with its hosts and, where few, the cards."""
    found: dict[str, list[tuple[str, Caution]]] = {}
    for host in hosts:
        for caution in warnings(host):
            found.setdefault(caution.rule, []).append((host.name, caution))
    order = list(Severity)
    ranked = sorted(
        found.items(),
        key=lambda item: (min(order.index(c.severity) for _, c in item[1]), -len(item[1]), item[0]),
    )
    counted = [(rule, met, dict.fromkeys(name for name, _ in met)) for rule, met in ranked]
    width = max((len(rule) for rule in found), default=0)
    many = max((len(_many(len(names), "host")) for _, _, names in counted), default=0)
    lines = []
    for rule, met, names in counted:
        lead = f"  {rule.ljust(width)}  {_many(len(names), 'host').rjust(many)}  "
        lines += wrapped(lead, _where(met, names), columns)
    return lines


def _where(met: Sequence[tuple[str, Caution]], names: Mapping[str, object]) -> str:
    """Host names; with the cards while they are few."""
    if len(names) > FAMILY:
        return _first(names)
    words = []
    for name in sorted(names, key=natural):
        gpus = sorted({gpu for host, caution in met if host == name for gpu in caution.gpus})
        words.append(f"{name} (GPU {members(gpus)})" if gpus else name)
    return ", ".join(words)


def _unreadable(unreadable: Mapping[str, str], columns: int) -> list[str]:
    return [
        line
        for name in sorted(unreadable, key=natural)
        for line in wrapped("  ", f"{name}: {unreadable[name].removeprefix(f'{name}: ')}", columns)
    ]
