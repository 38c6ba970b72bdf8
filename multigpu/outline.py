"""Any value of ours as indented text: for a person who wants to see what a reader understood.

Unknown values are left out; a list of records is a table where it fits into the columns, else each
record is a paragraph. Names are those of the fields, so the unit is in the name.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

GAP = "  "


def outline(value: object, columns: int = 80, indent: str = "") -> str:
    """The value as lines, each at most `columns` wide; a word that is longer is broken."""
    return "\n".join(_lines(value, columns, indent))


def _lines(value: object, columns: int, indent: str) -> Iterator[str]:
    if _is_grid(value):
        for row in _grid(value):
            yield from _row(row, columns, indent)
    elif _is_scalar(value):
        yield from _wrapped(_word(value), columns, indent)
    elif isinstance(value, tuple | list):
        yield from _sequence(tuple(value), columns, indent)
    else:
        yield from _record(_entries(value), columns, indent)


def _entries(value: object) -> dict[str, object]:
    """Fields of a dataclass or keys of a mapping, the unknown and the empty left out."""
    if is_dataclass(value) and not isinstance(value, type):
        found = {field.name: getattr(value, field.name) for field in fields(value)}
    else:
        found = {_key(k): v for k, v in value.items()} if isinstance(value, Mapping) else {}
    known = {name: entry for name, entry in found.items() if not _is_empty(entry)}
    if isinstance(capability := known.get("compute_capability"), tuple):
        known["compute_capability"] = ".".join(map(str, capability))
    return known


def _key(key: object) -> str:
    """A pair of GPUs is `0-1`."""
    return "-".join(map(_word, key)) if isinstance(key, tuple) else _word(key)


def _is_empty(value: object) -> bool:
    if isinstance(value, Mapping) or (is_dataclass(value) and not isinstance(value, type)):
        return not _entries(value)
    return value is None or (isinstance(value, str | tuple | list) and not value)


def _is_scalar(value: object) -> bool:
    """Anything that stands in one cell; a tuple of numbers or words too, and one such row."""
    if _is_grid(value):
        return isinstance(value, tuple | list) and len(value) == 1
    if isinstance(value, tuple | list):
        return all(_is_plain(entry) for entry in value)
    return _is_plain(value)


def _is_grid(value: object) -> bool:
    """Rows of plain cells, such as a matrix or pairs of a name and a count."""
    rows = value if isinstance(value, tuple | list) else ()
    return bool(rows) and all(
        isinstance(row, tuple | list) and all(_is_plain(cell) for cell in row) for row in rows
    )


def _grid(rows: Any) -> list[str]:
    cells = [[_word(cell) for cell in row] for row in rows]
    count = max(len(row) for row in cells)
    widths = [max((len(row[i]) for row in cells if i < len(row)), default=0) for i in range(count)]
    return [
        GAP.join(c.ljust(w) for c, w in zip(row, widths, strict=False)).rstrip() for row in cells
    ]


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | Enum)


def _word(value: object) -> str:
    """One cell."""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, tuple | list):
        return (" " if _is_grid(value) else ", ").join(_word(entry) for entry in value)
    return "?" if value is None else str(value)


def _record(entries: dict[str, object], columns: int, indent: str) -> Iterator[str]:
    """Scalars as one flowing paragraph, then each nested value under its name."""
    scalars = {name: entry for name, entry in entries.items() if _is_scalar(entry)}
    if scalars:
        text = " · ".join(f"{name} {_word(entry)}" for name, entry in scalars.items())
        yield from _wrapped(text, columns, indent)
    for name, entry in entries.items():
        if name not in scalars:
            yield f"{indent}{name}"
            yield from _lines(entry, columns, indent + GAP)


def _sequence(values: tuple[object, ...], columns: int, indent: str) -> Iterator[str]:
    if len(values) == 1:
        yield from _lines(values[0], columns, indent)
        return
    table = _table([_entries(value) for value in values], columns - len(indent))
    if table:
        yield from (indent + row for row in table)
        return
    for index, value in enumerate(values):
        yield f"{indent}{index}"
        yield from _lines(value, columns, indent + GAP)


def _table(records: list[dict[str, object]], columns: int) -> list[str]:
    """Rows under a header; empty when a value is no scalar or a row would be too long."""
    names = list(dict.fromkeys(name for record in records for name in record))
    if not names or not all(_is_scalar(entry) for record in records for entry in record.values()):
        return []
    cells = [names, *([_cell(record, name) for name in names] for record in records)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    if sum(widths) + len(GAP) * (len(widths) - 1) > columns:
        return []
    return [
        GAP.join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells
    ]


def _cell(record: dict[str, object], name: str) -> str:
    return " ".join(_word(record[name]).split()) if name in record else "?"


def _row(row: str, columns: int, indent: str) -> list[str]:
    """A row of a grid as it is, wrapped only where it would be too long."""
    fits = len(indent + row) <= columns
    return [indent + row] if fits else _wrapped(row, columns, indent)


def _wrapped(text: str, columns: int, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        max(columns, len(indent) + 20),
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )
