"""Rows, lines and matrices in rocm-smi's text, before they are put together to cards.

The default table has one line per card (ROCm 5 and older), two with the name in the second
(6.0, 6.1), or one with node and ids (6.2 and newer). Memory stands there in percent only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from multigpu.parse.reading import Lines
from multigpu.parse.shape import number, whole, word

ROW = re.compile(r"^\s{0,20}(\d{1,3})\s{1,20}(\S.{0,400})$", re.ASCII)
DEVICE = re.compile(r"\b0x[0-9a-f]{4}\b", re.IGNORECASE)
TEMPERATURE = re.compile(r"(?<!\S)(\d{1,3}(?:\.\d{1,3})?)\W{0,3}[cC](?!\S)", re.ASCII)
WATTS = re.compile(r"(?<!\S)(\d{1,5}(?:\.\d{1,6})?)W(?!\S)", re.ASCII)
PARTITIONS = re.compile(r"(?<!\S)(NPS\d|N/A),\s{0,10}([SDTQC]PX|N/A)", re.ASCII)
PERCENT = re.compile(r"^(?:\d{1,3}(?:\.\d{1,3})?%|N/A|unsupported|None)$", re.ASCII | re.I)
NAME = re.compile(r"^\s{4,20}([A-Za-z][^|=%]{1,80}?)\s{0,200}$")
RULE = re.compile(r"^\s{0,20}=")
HEADER = re.compile(r"^\s{0,20}(?:(?:GPU|Device)\s.*(?:Temp|PwrCap)|Name \(|\(DID,)")
KEY_VALUE = re.compile(r"^\s{0,20}GPU\[(\d{1,3})\]\s{0,20}:\s{0,20}(\S.{0,300})$", re.ASCII)
# A value may hold a colon itself (a PCI address), but never one before a blank.
COLON = re.compile(r":\s{1,20}")
DRIVER = re.compile(r"^\s{0,20}Driver version:\s{0,20}(\S{1,60})\s*$")
TITLE = re.compile(r"^[=\s]{0,100}(Weight|Hops|Link Type|Link accessibility) between two GPUs")
MATRIX_HEADER = re.compile(r"^\s{0,20}GPU\d{1,3}(?:\s{1,40}GPU\d{1,3}){0,127}\s*$", re.ASCII)
MATRIX_ROW = re.compile(r"^\s{0,20}GPU(\d{1,3})((?:\s{1,40}[\w/]{1,12}){1,128})\s*$", re.ASCII)

HARDWARE = re.compile(r"^\s{0,20}GPU\s{2,20}(?:\S{1,20}\s{1,20})?DID\s.{1,200}\sBUS\b")
HARDWARE_KEYS = {
    "DID": "Device ID",
    "VBIOS": "VBIOS version",
    "BUS": "PCI Bus",
    "GFX VER": "GFX Version",
}


@dataclass(frozen=True)
class Row:
    """One card of the default table."""

    device: str | None = None
    name: str | None = None
    temperature_c: int | None = None
    power_draw_w: float | None = None
    power_limit_w: float | None = None
    compute_partition: str | None = None
    memory_partition: str | None = None


def concise(lines: Lines) -> dict[int, Row]:
    """Cards of the default table by index; error lines between them stay unread."""
    rows: dict[int, Row] = {}
    last: int | None = None
    for position, line in lines:
        if match := ROW.match(line):
            row = _row(match[2])
            if row is not None:
                rows[int(match[1])] = row
                last = int(match[1])
                lines.mark(position)
                continue
        if RULE.match(line) or HEADER.match(line):
            lines.mark(position)
            last = None if RULE.match(line) else last
        elif last is not None and rows[last].name is None and (name := NAME.match(line)):
            if ":" not in name[1]:
                rows[last] = _named(rows[last], name[1])
                lines.mark(position)
            last = None
    return rows


def _row(cells: str) -> Row | None:
    """The cells after the index; None when the line is no row. The last three are in order."""
    words = cells.split()
    if len(words) < 6 or not (PERCENT.match(words[-1]) and PERCENT.match(words[-2])):
        return None
    device, temperature = DEVICE.search(cells), TEMPERATURE.search(cells)
    before = " ".join(words[:-3])
    draw, partitions = WATTS.search(before), PARTITIONS.search(cells)
    return Row(
        device=device[0].lower() if device else None,
        temperature_c=whole(temperature[1]) if temperature else None,
        power_draw_w=number(draw[1]) if draw else None,
        power_limit_w=number(words[-3]) if WATTS.fullmatch(words[-3]) else None,
        memory_partition=word(partitions[1]) if partitions else None,
        compute_partition=word(partitions[2]) if partitions else None,
    )


def _named(row: Row, name: str) -> Row:
    return Row(**{**vars(row), "name": word(name)})


def key_values(lines: Lines) -> tuple[dict[int, dict[str, str]], str | None]:
    """`GPU[0]  : VRAM Total Memory (B): 17163091968` by card, and the driver's version."""
    found: dict[int, dict[str, str]] = {}
    for match in lines.match(KEY_VALUE):
        parts = COLON.split(match[2], maxsplit=1)
        if len(parts) == 2:
            found.setdefault(int(match[1]), {}).setdefault(parts[0].strip(), parts[1].strip())
    driver = lines.first(DRIVER)
    for position, line in lines:
        if RULE.match(line):
            lines.mark(position)
    return found, driver[1] if driver else None


def hardware(lines: Lines) -> dict[int, dict[str, str]]:
    """The table of `--showhw` by card, under the keys of the JSON; columns differ by release."""
    found: dict[int, dict[str, str]] = {}
    header: list[str] = []
    for position, line in lines:
        cells = re.split(r"\s{2,40}", line.strip())
        if HARDWARE.match(line):
            header = [HARDWARE_KEYS.get(cell, cell) for cell in cells]
        elif header and len(cells) == len(header) and cells[0].isdecimal() and len(cells[0]) < 4:
            values = dict(zip(header[1:], cells[1:], strict=True))
            if re.fullmatch(r"[0-9a-f]{4}", device := values.get("Device ID", "")):
                values["Device ID"] = f"0x{device}"
            found[int(cells[0])] = values
        else:
            header = [] if line.strip() else header
            continue
        lines.mark(position)
    return found


def link_types(lines: Lines) -> dict[tuple[int, int], str]:
    """XGMI or PCIE by pair, from the matrix `Link Type between two GPUs`."""
    found: dict[tuple[int, int], str] = {}
    title, columns = "", [0]
    for position, line in lines:
        if match := TITLE.match(line):
            title, columns = match[1], []
        elif title and MATRIX_HEADER.match(line):
            columns = [int(cell[3:]) for cell in line.split()]
        elif title and (row := MATRIX_ROW.match(line)):
            if title == "Link Type":
                found.update(_cells(int(row[1]), columns, row[2].split()))
        else:
            if line.strip():
                title = ""
            continue
        lines.mark(position)
    return found


def _cells(row: int, columns: list[int], cells: list[str]) -> dict[tuple[int, int], str]:
    pairs = zip(columns, cells, strict=False)
    return {(row, column): cell for column, cell in pairs if row < column}
