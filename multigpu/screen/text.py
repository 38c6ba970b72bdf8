"""Lines that fit: wrapped sentences, tables of as many columns as there is room for, host names."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NARROWEST, WIDEST = 40, 120
GAP = "  "


@dataclass(frozen=True)
class Column:
    """One column of a table: a cell a row. `rank` 0 is always shown, the others while they fit."""

    cells: tuple[str, ...]
    rank: int = 0

    @property
    def width(self) -> int:
        """That of the widest cell."""
        return max(map(len, self.cells), default=0)


def wrapped(lead: str, text: str, columns: int) -> list[str]:
    """The text behind its lead, continued below the text's begin; a word too long is broken."""
    return textwrap.wrap(
        printable(text),
        columns,
        initial_indent=lead,
        subsequent_indent=" " * len(lead),
        break_on_hyphens=False,
    )


def printable(text: str) -> str:
    """The text with what would break a line or a terminal replaced."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def chosen(columns: Sequence[Column], room: int) -> list[Column]:
    """The columns of rank 0, and by rank each other one that still fits; empty ones never.

    Of columns with one rank the widest that fits is shown: they are forms of one fact.
    """
    shown = [c for c in columns if c.rank == 0 and c.width]
    for rank in sorted({c.rank for c in columns if c.rank and c.width}):
        forms = [c for c in columns if c.rank == rank and c.width]
        for form in sorted(forms, key=lambda c: -c.width):
            if table_width([*shown, form]) <= room:
                shown.append(form)
                break
    return [column for column in columns if any(column is c for c in shown)]


def table_width(columns: Sequence[Column]) -> int:
    """Blanks between columns counted."""
    return sum(c.width for c in columns) + len(GAP) * (len(columns) - 1)


def rows(columns: Sequence[Column]) -> list[str]:
    """The table, without blanks at the end of a line."""
    padded = ([cell.ljust(c.width) for cell in c.cells] for c in columns)
    return [GAP.join(cells).rstrip() for cells in zip(*padded, strict=True)]


def shortened(text: str, width: int) -> str:
    """The beginning and an ellipsis, where it is too long."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key in which `node9` comes before `node10`."""
    parts = re.findall(r"[0-9]{1,18}|[^0-9]+", name)
    return tuple((0, int(p), "") if p.isascii() and p.isdigit() else (1, 0, p) for p in parts)


def in_runs(names: Iterable[str]) -> list[str]:
    """Names in natural order; three and more in a row as `node01..node14`."""
    runs: list[list[str]] = []
    for name in sorted(names, key=natural):
        if runs and _follows(runs[-1][-1], name):
            runs[-1].append(name)
        else:
            runs.append([name])
    found: list[str] = []
    for run in runs:
        found += [f"{run[0]}..{run[-1]}"] if len(run) > 2 else run
    return found


NUMBERED = re.compile(r"([0-9]{1,9})([^0-9]*)$")


def _follows(a: str, b: str) -> bool:
    """True for `node09` and `node10`: all alike but the last number, which is one more."""
    first, second = NUMBERED.search(a), NUMBERED.search(b)
    if not first or not second or first[2] != second[2]:
        return False
    same = a[: first.start()] == b[: second.start()]
    padded = len(first[1]) == len(second[1]) or not second[1].startswith("0")
    return same and padded and int(second[1]) == int(first[1]) + 1
