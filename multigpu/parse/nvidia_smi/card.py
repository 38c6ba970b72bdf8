"""One card as nvidia-smi describes it, whichever of its formats it printed.

XML, `-q` text and CSV name the same facts in three ways. Each reader brings a card into the same
shape, whole paths to printed cells; the one table of `nvidia_paths` gives the fields of a `Gpu`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from multigpu.hardware import Gpu, GpuProcess, MigDevice, PcieLink, RemappedRows
from multigpu.parse import pci
from multigpu.parse.nvidia_smi.architectures import compute_capability
from multigpu.parse.nvidia_smi.health import ecc_errors, fault, throttle_reasons
from multigpu.parse.nvidia_smi.paths import (
    ECC_CORRECTED,
    ECC_UNCORRECTED,
    PATHS,
    PID,
    PROCESS_NAME,
    SLICE_INDEX,
    SLICE_MEMORY,
    SLICE_UUID,
    USED_MEMORY,
)
from multigpu.parse.shape import number, text, whole, word

Cells = dict[str, str]
Known = dict[str, str | None]


@dataclass
class Card:
    """What one card's block holds: path -> cell as printed; repeated blocks stand apart.

    `memory_asked` is False where the query left the memory out (`-q -d TEMPERATURE`, a CSV query of
    other fields), so that its absence is no fault of the card. `cut` says what is missing.
    """

    cells: Cells = field(default_factory=dict)
    processes: list[Cells] = field(default_factory=list)
    slices: list[Cells] = field(default_factory=list)
    memory_asked: bool = True
    cut: str | None = None


@dataclass(frozen=True)
class Query:
    """What one run of nvidia-smi says of the driver and its cards.

    Cards stand in the order printed; `index` counts them where the format has no index of its own.
    `whole` is True when the output reached its end. `timestamp` is
    as printed. `simulated`: the output says of itself that it is.
    """

    driver: str | None = None
    cuda: str | None = None
    gpus: tuple[Gpu, ...] = ()
    simulated: bool = False
    whole: bool = False
    attached_gpus: int | None = None
    timestamp: str | None = None


def known(cells: Cells, paths: Iterable[str]) -> str | None:
    """The first of the paths whose cell says something."""
    for path in paths:
        found = word(cells.get(path))
        if found is not None:
            return text(found)
    return None


def version(cell: str | None) -> str | None:
    """`610.57.04` of `610.57.04 [Deprecated; will be removed ...]`; None for `Not Found`."""
    match = re.match(r"\s*(\d[\w.+-]{0,40})(?=[\s\[]|$)", cell or "", re.ASCII)
    return match[1] if match else None


def gpu(index: int, card: Card, bus_id: str | None = None) -> Gpu:
    """The card's fields; what its format or its driver does not print stays None.

    `bus_id` is the address the block is headed with. The index is that of the block, or the one
    printed in it.
    """
    cells = {name: known(card.cells, paths) for name, paths in PATHS.items()}
    found = _with_memory(_identity(index, cells, bus_id), cells)
    told = found.memory_mib is not None or bool(found.unified_memory) or bool(found.mig)
    accounted = told or not card.memory_asked or card.cut is not None
    return replace(
        found,
        throttle_reasons=throttle_reasons(card.cells),
        ecc_corrected=ecc_errors(card.cells, ECC_CORRECTED),
        ecc_uncorrected=ecc_errors(card.cells, ECC_UNCORRECTED),
        remapped_rows=_remapped_rows(cells),
        retired_pages=_sum(count(cells["retired_single"]), count(cells["retired_double"])),
        retired_pages_pending=yes(cells["retired_pending"]),
        mig_devices=tuple(_slice(number, device) for number, device in enumerate(card.slices)),
        processes=tuple(p for p in map(_process, card.processes) if p is not None),
        error=fault(card.cells, accounted) or card.cut,
    )


def _identity(index: int, cells: Known, bus_id: str | None) -> Gpu:
    """Who the card is, where it sits, how it is set, and what it draws."""
    printed = count(cells["index"])
    return Gpu(
        index=index if printed is None else printed,
        uuid=cells["uuid"],
        name=cells["name"],
        pci_bus_id=pci.address(bus_id or "") or pci.address(cells["bus_id"] or ""),
        pcie=_link(cells),
        compute_capability=_capability(cells),
        architecture=cells["architecture"],
        vbios_version=cells["vbios_version"],
        power_limit_w=number(cells["power_limit"]),
        power_limit_default_w=number(cells["power_limit_default"]),
        power_limit_max_w=number(cells["power_limit_max"]),
        power_draw_w=number(cells["power_draw"]),
        temperature_c=whole(cells["temperature"]),
        performance_state=cells["performance_state"],
        persistence_mode=switch(cells["persistence_mode"]),
        compute_mode=cells["compute_mode"],
        display_attached=switch(cells["display_active"]),
        ecc=switch(cells["ecc"]),
        mig=switch(cells["mig"]),
        recovery_action=cells["recovery_action"],
        fabric_state=cells["fabric_state"],
        # A guest or a card without a clock of its own prints 0.
        memory_clock_max_mhz=count(cells["memory_clock_max"]) or None,
        sm_clock_max_mhz=count(cells["sm_clock_max"]) or None,
    )


def _with_memory(found: Gpu, cells: Known) -> Gpu:
    memory, bar1 = count(cells["memory_total"]), count(cells["bar1"])
    return replace(
        found,
        memory_mib=memory,
        memory_free_mib=count(cells["memory_free"]),
        memory_reserved_mib=count(cells["memory_reserved"]),
        memory_used_mib=count(cells["memory_used"]),
        unified_memory=_unified(cells, memory),
        bar1_memory_mib=bar1,
        resizable_bar=_resizable_bar(bar1, memory, cells["virtualization"]),
    )


def count(cell: str | None) -> int | None:
    """A number of something: never below zero."""
    value = whole(cell)
    return value if value is not None and value >= 0 else None


def switch(cell: str | None) -> bool | None:
    """`Enabled` or `Disabled`."""
    return {"Enabled": True, "Disabled": False}.get(cell or "")


def yes(cell: str | None) -> bool | None:
    """`Yes` or `No`."""
    return {"Yes": True, "No": False}.get(cell or "")


def _link(cells: Known) -> PcieLink:
    return PcieLink(
        gen_current=count(cells["gen_current"]),
        gen_max=count(cells["gen_max"]),
        width_current=count(cells["width_current"]),
        width_max=count(cells["width_max"]),
        gen_gpu_max=count(cells["gen_gpu_max"]),
        gen_host_max=count(cells["gen_host_max"]),
        replays=count(cells["replays"]),
    )


def _capability(cells: Known) -> tuple[int, int] | None:
    """As printed (CSV), else by architecture and name."""
    match = re.fullmatch(r"(\d{1,3})\.(\d{1,2})", cells["compute_cap"] or "", re.ASCII)
    if match:
        return int(match[1]), int(match[2])
    return compute_capability(cells["architecture"], cells["name"])


def _unified(cells: Known, memory: int | None) -> bool | None:
    """True on machines whose GPU shares the processor's memory.

    Grace Hopper and Grace Blackwell answer ATS (address translation by the processor) or have an
    enabled C2C link; GB10 and the Jetsons have no framebuffer to tell the size of. A discrete card
    with memory of its own answers HMM or None.
    """
    if cells["addressing_mode"] == "ATS" or switch(cells["c2c_mode"]):
        return True
    if memory is None:
        return True if re.search(r"\b(GB10|Thor|Orin)\b", cells["name"] or "") else None
    return False if cells["addressing_mode"] else None


def _resizable_bar(bar1: int | None, memory: int | None, virtualization: str | None) -> bool | None:
    """A guest never sees the capability, so a small window says nothing there."""
    if bar1 is None or memory is None:
        return None
    if bar1 >= memory:
        return True
    return False if virtualization in (None, "None") else None


def _remapped_rows(cells: Known) -> RemappedRows | None:
    rows = RemappedRows(
        correctable=count(cells["remapped_corr"]),
        uncorrectable=count(cells["remapped_unc"]),
        pending=yes(cells["remapped_pending"]),
        failure=yes(cells["remapped_failure"]),
    )
    return None if rows == RemappedRows() else rows


def _sum(*values: int | None) -> int | None:
    seen = [value for value in values if value is not None]
    return sum(seen) if seen else None


def _slice(index: int, cells: Cells) -> MigDevice:
    """The XML and the text of MIG devices name no profile; `nvidia-smi -L` does."""
    printed = count(known(cells, SLICE_INDEX))
    return MigDevice(
        index=index if printed is None else printed,
        uuid=known(cells, SLICE_UUID),
        memory_mib=count(known(cells, SLICE_MEMORY)),
    )


def _process(cells: Cells) -> GpuProcess | None:
    pid = count(known(cells, PID))
    if pid is None:
        return None
    return GpuProcess(pid, known(cells, PROCESS_NAME), count(known(cells, USED_MEMORY)))
