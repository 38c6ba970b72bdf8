"""Readers of `nvidia-smi --query-gpu=... --format=csv` and of `nvidia-smi --help-query-gpu`.

The header names the fields, so that any list of them in any order is read, with units or without.
Columns of facts that no plan needs are passed over: they are not `unread`, because the header says
what they are. `unread` are rows of another length than the header, and every other line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from multigpu.hardware import Gpu
from multigpu.parse import pci
from multigpu.parse.nvidia_smi.card import Card, Query, count, gpu, version
from multigpu.parse.nvidia_smi.lost import HANDLE, with_refused
from multigpu.parse.nvidia_smi.paths import PATHS
from multigpu.parse.reading import Kind, Lines, Reading
from multigpu.parse.shape import whole, word

# The one query of ours that asks for no header.
NUMBERS = ("index", "pci.bus_id", "compute_cap")

FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*(?: \[[^\[\],]{1,8}\])?", re.ASCII)
UNIT = re.compile(r" \[[^\[\]]*\]$")
OURS = {path for paths in PATHS.values() for path in paths if "/" not in path}
OF_THE_DRIVER = {"timestamp", "driver_version", "kmd_version", "count"}
FAMILIES = (
    *("memory.", "utilization.", "temperature.", "power.", "clocks.", "clocks_", "pcie.link."),
    *("ecc.", "mig.mode.", "remapped_rows.", "retired_pages.", "fabric.", "pci.bus", "fan.speed"),
)
# What stands before the first point of a field, drivers 418 to 610.
GROUPS = {
    *("accounting", "clocks", "clocks_event_reasons", "clocks_event_reasons_counters", "ecc"),
    *("clocks_throttle_reasons", "dramEncryption", "driver_model", "encoder", "enforced", "fabric"),
    *("fan", "gom", "gsp", "inforom", "memory", "mig", "module", "pci", "pcie", "platform"),
    *("power", "protected_memory", "remapped_rows", "retired_pages", "temperature", "utilization"),
    *("vgpu_device_capability", "vgpu_driver_capability"),
}
CHARACTERISTIC = {
    *("uuid", "gpu_uuid", "gpu_name", "gpu_bus_id", "pstate", "compute_cap", "driver_version"),
    *("vbios_version", "display_active", "persistence_mode", "gpu_recovery_action"),
}


def read_query_gpu(text: str, fields: Sequence[str] | None = None) -> Reading[Query]:
    """The cards in a CSV; `fields` are those asked for with `noheader`.

    Without them, the first line that looks like a header is it, and rows of our own query
    (index, pci.bus_id, compute_cap) need none.
    """
    lines = Lines(text.lstrip("\ufeff"))
    header = list(fields) if fields is not None else None
    rows: list[dict[str, str]] = []
    for index, line in lines:
        cells = [cell.strip() for cell in line.split(",")]
        if fields is None and (found := _header(cells)):
            header = found
            lines.mark(index)
        elif header and len(cells) == len(header):
            rows.append(dict(zip(header, cells, strict=True)))
            lines.mark(index)
        elif header is None and _numbers(cells):
            rows.append(dict(zip(NUMBERS, cells, strict=True)))
            lines.mark(index)
        elif HANDLE.search(line):
            lines.mark(index)
    return lines.reading(with_refused(_query(rows), text, numbered="index" in (header or NUMBERS)))


def _header(cells: list[str]) -> list[str] | None:
    """Field names without their units, if the line consists of such and NVIDIA's are among them.

    `pid` is a field of `--query-compute-apps`, whose rows are no cards.
    """
    if not all(FIELD.fullmatch(cell) for cell in cells):
        return None
    names = [UNIT.sub("", cell) for cell in cells]
    own = any(name.startswith(FAMILIES) or name in CHARACTERISTIC for name in names)
    if not own and (len(names) < 2 or not {*names} <= OURS | OF_THE_DRIVER):
        return None
    return None if "pid" in names else names


def _numbers(cells: list[str]) -> bool:
    return (
        len(cells) == 3 and cells[0].isdecimal() and ":" in cells[1] and bool(pci.address(cells[1]))
    )


def _query(rows: list[dict[str, str]]) -> Query:
    first = rows[0] if rows else {}
    attached = count(word(first.get("count")))
    return Query(
        driver=version(first.get("kmd_version")) or version(first.get("driver_version")),
        gpus=tuple(_gpu(index, row) for index, row in enumerate(rows)),
        whole=bool(rows) and (attached is None or attached <= len(rows)),
        attached_gpus=attached,
        timestamp=word(first.get("timestamp")),
    )


def _gpu(index: int, row: dict[str, str]) -> Gpu:
    return gpu(index, Card(cells=row, memory_asked="memory.total" in row))


@dataclass(frozen=True)
class Numbered:
    """One row of `--query-gpu=index,pci.bus_id,compute_cap`."""

    index: int
    compute_capability: tuple[int, int] | None


def read_numbers(csv: str) -> dict[str, Numbered]:
    """PCI address -> NVML index and compute capability; lines of another shape are passed over."""
    found: dict[str, Numbered] = {}
    for line in csv.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        index, bus_id = whole(cells[0]), pci.address(cells[1]) if len(cells) == 3 else None
        if index is not None and bus_id is not None:
            match = re.fullmatch(r"(\d{1,3})\.(\d{1,2})", cells[2], re.ASCII)
            found[bus_id] = Numbered(index, (int(match[1]), int(match[2])) if match else None)
    return found


@dataclass(frozen=True)
class QueryFields:
    """The fields that a release of nvidia-smi takes after `--query-gpu=`, in the order printed.

    `aliases`: another spelling of a field -> the field (`gpu_name` -> `name`).
    """

    fields: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()

    def __contains__(self, field: str) -> bool:
        """True for a field or another spelling of one."""
        return field in self.fields or field in dict(self.aliases)


LISTED = re.compile(r'^\s*"([A-Za-z][\w.]*)"((?: or "[A-Za-z][\w.]*"){0,8})\s*$', re.ASCII)
HELP_HEAD = re.compile(r'^\s*List of valid properties to query for the switch "--query-gpu')
SECTION = re.compile(r"^\s*Section about .{1,80} propert")


def read_help_query_gpu(text: str) -> Reading[QueryFields]:
    """Field names in `nvidia-smi --help-query-gpu`; the prose under each counts as understood."""
    lines = Lines(text)
    fields: list[str] = []
    aliases: list[tuple[str, str]] = []
    described = False
    for index, line in lines:
        listed = LISTED.match(line)
        if listed:
            fields.append(listed[1])
            aliases += [(other, listed[1]) for other in re.findall(r'"([\w.]+)"', listed[2])]
        described = bool(line.strip()) and (
            described or bool(listed or HELP_HEAD.match(line) or SECTION.match(line))
        )
        if described:
            lines.mark(index)
    return lines.reading(QueryFields(tuple(dict.fromkeys(fields)), tuple(dict.fromkeys(aliases))))


def recognise_csv(text: str) -> float:
    """By a header of field names, or rows of our own query."""
    for line in text[:20_000].split("\n"):
        cells = [cell.strip() for cell in line.split(",")]
        if _header(cells):
            return 0.95 if len(cells) > 1 else 0.5
        if _numbers(cells):
            return 0.9
    return 0.0


def recognise_help(text: str) -> float:
    """By its first sentence, or by several quoted field names on lines of their own."""
    lines = text[:100_000].split("\n")
    if any(HELP_HEAD.match(line) for line in lines[:20]):
        return 1.0
    quoted = (line for line in lines if line.lstrip()[:1] == '"')
    names = {match[1] for match in map(LISTED.match, quoted) if match}
    return 0.9 if names & (OURS | OF_THE_DRIVER) or _dotted(names) else 0.0


def _dotted(names: set[str]) -> bool:
    """A field of a group of fields; in JSON layers are quoted like that, too (`model.layers.0`)."""
    return any(name.split(".")[0] in GROUPS for name in names if "." in name)


KINDS: tuple[Kind, ...] = (
    Kind(
        "nvidia-smi-query-gpu",
        "nvidia-smi's CSV of chosen fields",
        recognise_csv,
        read_query_gpu,
        "nvidia-smi --query-gpu",
    ),
    Kind(
        "nvidia-smi-help-query-gpu",
        "the fields nvidia-smi can be asked for",
        recognise_help,
        read_help_query_gpu,
        "nvidia-smi --help-query-gpu",
    ),
)
