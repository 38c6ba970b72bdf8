"""The table of cards: one row each, as many facts as there is room for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from multigpu.cautions.mixture import architecture
from multigpu.hardware import Gpu, Host
from multigpu.parse.pci.cards import PCI_ONLY
from multigpu.screen.text import GAP, Column, chosen, printable, rows, shortened, table_width

# A long name gives way down to the first for power and NUMA node, to the second in need.
NAME_AT_LEAST, NAME_AT_LAST = 12, 8
KEPT_BEFORE_NAME = 2
# What changes by the minute (temperature, draw) stays off the usual screen, whose text two surveys
# of a machine at rest share.
USUAL, MOMENTARY = 80, 7


def card_lines(host: Host, columns: int) -> list[str]:
    """One row per card; a card that cannot be used says so in place of its values."""
    working = [gpu for gpu in host.gpus if gpu.error is None]
    table = iter(_table(working, host, columns) if working else ())
    names = max((len(short_name(gpu)) for gpu in host.gpus), default=0)
    lost = (gpu for gpu in host.gpus if gpu.error is not None)
    return [
        next(table) if gpu.error is None else _lost_row(next(lost), host, names, columns)
        for gpu in host.gpus
    ]


def _lost_row(gpu: Gpu, host: Host, names: int, columns: int) -> str:
    where = short_address(gpu, host.gpus)
    state = PCI_ONLY if (gpu.error or "").startswith(PCI_ONLY) else "NOT USABLE, see below"
    index = str(gpu.index).rjust(_index_width(host))
    rest = f"{GAP}{where}{GAP}{state}"
    room = columns - len(f"{GAP}{index}{GAP}") - len(rest)
    name = shortened(short_name(gpu), max(room, 1))
    return f"{GAP}{index}{GAP}{name.ljust(min(names, room))}{rest}"


def _index_width(host: Host) -> int:
    return max((len(str(gpu.index)) for gpu in host.gpus), default=1)


def _table(gpus: Sequence[Gpu], host: Host, columns: int) -> list[str]:
    """The rows of the cards that answer.

    Power and NUMA node come before a long name, the name before everything else.
    """
    room = columns - len(GAP)
    names = [short_name(gpu) for gpu in gpus]
    full = max(len(short_name(gpu)) for gpu in host.gpus)
    index = Column(tuple(str(gpu.index).rjust(_index_width(host)) for gpu in gpus))
    facts = [
        Column(tuple(cell(gpu, host) for gpu in gpus), rank)
        for cell, rank in CELLS
        if rank < MOMENTARY or columns > USUAL
    ]
    short = Column(tuple(" " * min(full, NAME_AT_LEAST) for _ in gpus))
    first = chosen([index, short, *(c for c in facts if c.rank <= KEPT_BEFORE_NAME)], room)
    width = min(full, max(NAME_AT_LAST, short.width + room - table_width(first)))
    name = Column(tuple(shortened(name, width).ljust(width) for name in names))
    sure = [
        replace(fact, rank=0) if any(fact is c for c in first) else fact
        for fact in facts
        if fact.rank > KEPT_BEFORE_NAME or any(fact is c for c in first)
    ]
    return [shortened(GAP + row, columns) for row in rows(chosen([index, name, *sure], room))]


# --- cells ------------------------------------------------------------------------------------


def short_name(gpu: Gpu) -> str:
    """`RTX 4090` for `NVIDIA GeForce RTX 4090`; the vendor where there is no name.

    rocm-smi puts the product in brackets behind the chip: `Arcturus GL-XL [Instinct MI100]`.
    """
    name = printable(gpu.name or "")
    name = re.sub(r"^[^\[\]]+\[([^\[\]]{4,})\]$", r"\1", name)
    short = re.sub(r"^(NVIDIA|AMD)\s+|\b(GeForce|Radeon)\s+", "", name)
    return short or f"{gpu.vendor.name} card"


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


def _memory(gpu: Gpu, host: Host) -> str:
    return f"{'?' if gpu.memory_mib is None else gpu.memory_mib} MiB"


def _free(gpu: Gpu, host: Host) -> str:
    if gpu.mig:
        return "MIG on"
    return f"free {'?' if gpu.memory_free_mib is None else gpu.memory_free_mib}"


def _address(gpu: Gpu, host: Host) -> str:
    return short_address(gpu, host.gpus)


def _link(gpu: Gpu, host: Host) -> str:
    return link_text(gpu)


def _numa(gpu: Gpu, host: Host) -> str:
    if (host.numa_nodes or 1) < 2:
        return ""
    return f"NUMA {'?' if gpu.numa_node is None else gpu.numa_node}"


def _power(gpu: Gpu, host: Host) -> str:
    return "" if gpu.power_limit_w is None else f"{gpu.power_limit_w:.0f} W"


def _power_of_default(gpu: Gpu, host: Host) -> str:
    limit, default = gpu.power_limit_w, gpu.power_limit_default_w
    if limit is None or default is None or round(default) == round(limit):
        return _power(gpu, host)
    return f"{limit:.0f} of {default:.0f} W"


def _architecture(gpu: Gpu, host: Host) -> str:
    name = architecture(gpu)
    return "" if name == "?" else name


def _draw(gpu: Gpu, host: Host) -> str:
    return "" if gpu.power_draw_w is None else f"now {gpu.power_draw_w:.0f} W"


def _temperature(gpu: Gpu, host: Host) -> str:
    return "" if gpu.temperature_c is None else f"{gpu.temperature_c} C"


def _ecc(gpu: Gpu, host: Host) -> str:
    return "" if gpu.ecc is None else f"ECC {'on' if gpu.ecc else 'off'}"


def _bar1(gpu: Gpu, host: Host) -> str:
    return "" if gpu.bar1_memory_mib is None else f"BAR1 {gpu.bar1_memory_mib}"


def _partition(gpu: Gpu, host: Host) -> str:
    return "/".join(word for word in (gpu.compute_partition, gpu.memory_partition) if word)


def _state(gpu: Gpu, host: Host) -> str:
    return gpu.performance_state or ""


# In the order of the row. Rank 0 always; the others by rank while they fit. The two forms of the
# power limit share a rank: the default is named where there is room.
CELLS: tuple[tuple[Callable[[Gpu, Host], str], int], ...] = (
    (_memory, 0),
    (_free, 0),
    (_address, 0),
    (_link, 0),
    (_numa, 2),
    (_power, 1),
    (_power_of_default, 1),
    (_architecture, 4),
    (_partition, 3),
    (_ecc, 5),
    (_bar1, 6),
    (_temperature, 7),
    (_draw, 8),
    (_state, 9),
)
