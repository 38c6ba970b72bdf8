"""The screen that answers "what do I really have": cards, their connections, and what to mind.

Plain text of 80 columns that survives a log file. Every warning says what was found, what it costs
and what to do; a machine without one is told so.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import combinations

from multigpu.cautions import MEANING, TENANT_MIB, Caution, warnings
from multigpu.hardware import Gpu, GpuPair, Host, Mix, P2p, mix
from multigpu.parse.system import is_container, is_virtual_machine

__all__ = ["Caution", "survey", "warnings"]

COLUMNS = 80
PAIRS_IN_FULL = 6


def survey(host: Host) -> str:
    """The whole screen, ending in a newline."""
    found = warnings(host)
    lines = [
        *_header(host),
        *_card_lines(host),
        *_pair_lines(host),
        *(line for caution in found for line in _caution_lines(caution)),
    ]
    if not found:
        lines += _wrapped("  ok ", _all_well(host))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _header(host: Host) -> list[str]:
    """Name, count and mix to the left, driver and machine to the right; two lines when too long."""
    left = f"{host.name} · {_count(host)}" + (" · SIMULATED" if host.simulated else "")
    parts = [
        f"driver {host.driver}" if host.driver else "no driver",
        *([f"CUDA {host.cuda}"] if host.cuda else []),
        *([f"ROCm {host.rocm}"] if host.rocm else []),
        _machine(host.virtualization),
    ]
    right = " · ".join(parts)
    system = _wrapped("  ", " · ".join(_system(host)))
    if len(left) + 2 + len(right) > COLUMNS:
        return [*_wrapped("", left), *_wrapped("  ", right), *system]
    return [left + right.rjust(COLUMNS - len(left)), *system]


def _system(host: Host) -> list[str]:
    """Operating system, processors, memory and disk, as far as they are known."""
    words = [
        host.os,
        host.cpus and f"{host.cpus} CPUs",
        host.memory_mib and f"{host.memory_mib / 1024:.0f} GiB RAM",
        host.disk_free_mib is not None and f"{host.disk_free_mib / 1024:.0f} GiB disk free",
    ]
    return [word for word in words if isinstance(word, str)]


def _count(host: Host) -> str:
    """`2 GPUs, mixed by memory`, `2 GPUs, 1 usable`, `no GPU`."""
    count, usable = len(host.gpus), len(host.usable)
    if count == 0:
        return "no GPU"
    if usable < count:
        alike = f", {mix(host.usable)}" if usable > 1 else ""
        return f"{count} GPU{_s(count)}, {usable or 'none'} usable{alike}"
    return "1 GPU" if mix(host.gpus) is Mix.SINGLE else f"{count} GPUs, {mix(host.gpus)}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _machine(virtualization: str | None) -> str:
    if virtualization is None:
        return "virtualization unknown"
    if virtualization == "none":
        return "bare metal"
    kind = "container" if is_container(virtualization) else "virtual machine"
    return f"{kind} ({virtualization})"


# --- cards -----------------------------------------------------------------------------------


def _card_lines(host: Host) -> list[str]:
    """One row per card. Where rows are too long, the default power and the NUMA node give way."""
    lines: list[str] = []
    for default, numa in ((True, True), (False, True), (False, False)):
        lines = _rows([_gpu_cells(gpu, host, default=default, numa=numa) for gpu in host.gpus])
        if all(len(line) <= COLUMNS for line in lines):
            break
    return lines


def _gpu_cells(gpu: Gpu, host: Host, *, default: bool, numa: bool) -> list[str]:
    """The cells of one card's row; a card that cannot be used says so in place of its values."""
    where = short_address(gpu, host.gpus)
    if gpu.error is not None:
        return [str(gpu.index), short_name(gpu), where, "NOT USABLE, see below"]
    nodes = numa and gpu.numa_node is not None and (host.numa_nodes or 1) > 1
    return [
        str(gpu.index),
        short_name(gpu),
        f"{_or_unknown(gpu.memory_mib)} MiB",
        "MIG on" if gpu.mig else f"free {_or_unknown(gpu.memory_free_mib)}",
        where,
        link_text(gpu),
        *([f"NUMA {gpu.numa_node}"] if nodes else []),
        _power(gpu, default),
    ]


def _or_unknown(value: object) -> str:
    return "?" if value is None else str(value)


def short_name(gpu: Gpu) -> str:
    """`RTX 4090` for `NVIDIA GeForce RTX 4090`; the vendor where there is no name."""
    if gpu.name is None:
        return f"{gpu.vendor.name} card"
    return re.sub(r"^(NVIDIA|AMD)\s+|\b(GeForce|Radeon)\s+", "", gpu.name)


def short_address(gpu: Gpu, gpus: Iterable[Gpu]) -> str:
    """The address as lspci writes it: without the domain when all cards are in domain 0."""
    if gpu.pci_bus_id is None:
        return "address ?"
    plain = all((other.pci_bus_id or "0000:").startswith("0000:") for other in gpus)
    return gpu.pci_bus_id[5:] if plain else gpu.pci_bus_id


def link_text(gpu: Gpu) -> str:
    """`PCIe 4.0 x4 of x16`: the generation the link can reach, the lanes it has right now."""
    link = gpu.pcie
    gen = f"{link.gen_max}.0" if link.gen_max else "?"
    if link.width_current is None:
        return f"PCIe {gen} x?"
    of = f" of x{link.width_max}" if link.narrowed else ""
    return f"PCIe {gen} x{link.width_current}{of}"


def _power(gpu: Gpu, with_default: bool) -> str:
    if gpu.power_limit_w is None:
        return ""
    default = gpu.power_limit_default_w
    if with_default and default is not None and round(default) != round(gpu.power_limit_w):
        return f"{gpu.power_limit_w:.0f} of {default:.0f} W"
    return f"{gpu.power_limit_w:.0f} W"


def _rows(rows: list[list[str]]) -> list[str]:
    """Cells in columns, two blanks apart; the names give way when a row would be too long."""
    full = [row for row in rows if len(row) > 4]
    count = max((len(row) for row in full), default=0)
    widths = [max(len(r[i]) for r in full if i < len(r)) for i in range(count)]
    widths = widths or [max((len(row[0]) for row in rows), default=1), 0]
    widths[1] = max(len(row[1]) for row in rows) if rows else 0
    spare = COLUMNS - (sum(widths) + 2 * len(widths))
    widths[1] = min(widths[1], max(8, widths[1] + spare))
    return [_row(row, widths) for row in rows]


def _row(row: list[str], widths: list[int]) -> str:
    name = row[1] if len(row[1]) <= widths[1] else row[1][: widths[1] - 1] + "…"
    cells = [row[0], name, *row[2:]]
    if len(row) <= 4:
        return "  " + "  ".join([cells[0], name.ljust(widths[1]), *cells[2:]])
    return "  " + "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=False))


# --- pairs -----------------------------------------------------------------------------------


def _pair_lines(host: Host) -> list[str]:
    """Every pair up to four cards; above that, pairs that are connected alike share a line."""
    if len(host.pairs) <= PAIRS_IN_FULL:
        labels = [(f"{pair.a}-{pair.b}", connection(pair)) for pair in host.pairs]
    else:
        labels = [(_label(group, host), text) for text, group in _alike(host.pairs).items()]
    width = max((len(label) for label, _ in labels), default=0)
    return [f"  {label.ljust(width)}  {text}" for label, text in labels]


def _alike(pairs: tuple[GpuPair, ...]) -> dict[str, list[GpuPair]]:
    """Pairs by connection; the PCIe way under an NVLink does not part them."""
    groups: dict[str, list[GpuPair]] = {}
    for pair in pairs:
        plain = replace(pair, path=None) if pair.nvlinks else pair
        groups.setdefault(connection(plain), []).append(pair)
    return groups


def _label(group: list[GpuPair], host: Host) -> str:
    """`all 28 pairs`, `within 0-3, 4-7`, or the pairs by name while they are few."""
    if len(group) == len(host.pairs):
        return f"all {len(group)} pairs"
    islands = _islands(group)
    if sum(len(island) * (len(island) - 1) // 2 for island in islands) == len(group):
        return "within " + ", ".join(_members(island) for island in islands)
    names = [f"{pair.a}-{pair.b}" for pair in group]
    return ", ".join(names) if len(names) <= 4 else f"{len(names)} other pairs"


def _islands(group: list[GpuPair]) -> list[list[int]]:
    """Cards that the pairs connect, as connected sets."""
    sets: list[set[int]] = []
    for pair in group:
        touching = [s for s in sets if s & {pair.a, pair.b}]
        sets = [s for s in sets if s not in touching]
        sets.append({pair.a, pair.b}.union(*touching))
    return sorted(sorted(island) for island in sets)


def _members(island: list[int]) -> str:
    whole = len(island) > 2 and island[-1] - island[0] == len(island) - 1
    return f"{island[0]}..{island[-1]}" if whole else "+".join(map(str, island))


def connection(pair: GpuPair) -> str:
    """`NV4 (56 GB/s each way, PCIe PHB)  P2P read granted`."""
    if pair.nvlinks:
        rate = f"{pair.nvlink_gb_s:.0f} GB/s each way" if pair.nvlink_gb_s else "rate ?"
        under = f", PCIe {pair.path.value}" if pair.path else ""
        return f"NV{pair.nvlinks} ({rate}{under})  {_grant(pair)}"
    path = pair.path.value if pair.path else "path ?"
    return f"{path}  {_grant(pair)}{_without_nvlink(pair)}"


def _grant(pair: GpuPair) -> str:
    if pair.p2p_read is None:
        return "P2P read ?"
    if pair.p2p_read is P2p.OK:
        return "P2P read granted"
    return f"P2P read no ({MEANING[pair.p2p_read]})"


def _without_nvlink(pair: GpuPair) -> str:
    return "  NVLink no" if pair.nvlinks == 0 else "  NVLink ?"


# --- warnings --------------------------------------------------------------------------------


def _caution_lines(caution: Caution) -> Iterator[str]:
    yield from _wrapped("  ! ", caution.found)
    if caution.needed:
        yield from _wrapped("    needed ", caution.needed)
    if caution.costs:
        yield from _wrapped("    costs  ", caution.costs)
    if caution.do:
        yield from _wrapped("    do     ", caution.do)


def _wrapped(lead: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        COLUMNS,
        initial_indent=lead,
        subsequent_indent=" " * len(lead),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _all_well(host: Host) -> str:
    """The sentence of a healthy machine: only what was really looked at."""
    gpus = host.usable
    pairs = [host.pair(a.index, b.index) for a, b in combinations(gpus, 2)]
    ports = not is_virtual_machine(host.virtualization)
    checked = [
        ("every card answers", bool(gpus)),
        ("all lanes are up", ports and all(g.pcie.width_current is not None for g in gpus)),
        ("power limits at default", all(g.power_limit_default_w is not None for g in gpus)),
        (f"no other process holds {TENANT_MIB} MiB of VRAM", bool(gpus)),
        (
            "P2P granted (a grant, not yet a proof)",
            bool(pairs) and all(pair and pair.p2p_read is P2p.OK for pair in pairs),
        ),
    ]
    return ", ".join(words for words, looked_at in checked if looked_at) or "nothing to mind"
