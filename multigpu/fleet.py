"""Many hosts on one screen: what is alike, what stands out, what to mind, how much there is.

A host stands out where it differs from most hosts with the same models of cards. Every host is on
the screen: in the group of those that are like it, or with the reason why it could not be read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from multigpu.cautions import Caution, Severity, warnings
from multigpu.fleet_differences import differences, family_of, topology
from multigpu.hardware import Host
from multigpu.islands import members
from multigpu.screen.cards import short_name
from multigpu.screen.text import NARROWEST, WIDEST, in_runs, natural, shortened, wrapped

COLUMNS = 80
KINDS_IN_FULL = 12
NAMES_IN_FULL = 24
FAMILY = 3
ABOUT = 60
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


def _standing_out(hosts: Sequence[Host], columns: int) -> list[str]:
    """Per difference the hosts that have it, in the order of the first one's name."""
    families: dict[frozenset[str], list[Host]] = {}
    for host in hosts:
        families.setdefault(family_of(host), []).append(host)
    found: dict[str, list[str]] = {}
    for family in families.values():
        if len(family) >= FAMILY:
            for name, difference in differences(family):
                found.setdefault(difference, []).append(name)
    ranked = sorted(found.items(), key=lambda item: natural(min(item[1], key=natural)))
    return [
        line
        for difference, names in ranked
        for line in wrapped("  ", f"{named(names)}: {difference}", columns)
    ]


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
        mark = "·" if all(caution.severity is Severity.NOTE for _, caution in met) else "!"
        count = _many(len(names), "host").rjust(many)
        lead = f"  {mark} {rule.ljust(width)}  {count}  "
        lines += wrapped(lead, _where(met, names), columns)
    return lines


def _where(met: Sequence[tuple[str, Caution]], names: Mapping[str, object]) -> str:
    """Host names; with the cards while they are few."""
    if len(names) > FAMILY:
        return _first(names)
    words = []
    for name in sorted(names, key=natural):
        mine = [caution for host, caution in met if host == name]
        gpus = sorted({gpu for caution in mine for gpu in caution.gpus})
        # A problem of the whole host says in its first words which: the rule's name does not.
        problem = mine[0].found.partition(': "')[0] if mine[0].rule == "capture-problem" else ""
        about = f"GPU {members(gpus)}" if gpus else shortened(problem, ABOUT)
        words.append(f"{name} ({about})" if about else name)
    return ", ".join(words)


def _unreadable(unreadable: Mapping[str, str], columns: int) -> list[str]:
    return [
        line
        for name in sorted(unreadable, key=natural)
        for line in wrapped("  ", f"{name}: {unreadable[name].removeprefix(f'{name}: ')}", columns)
    ]
