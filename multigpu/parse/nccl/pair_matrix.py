"""Tables of numbers by device pair, as p2pBandwidthLatencyTest and nvbandwidth print them.

A header names the columns 0, 1, 2 ...; every row begins with its own number.
"""

from __future__ import annotations

import re

# Row by column; None where nothing was measured or printed.
Matrix = tuple[tuple[float | None, ...], ...]

MAX_DEVICES = 256
HEADER = re.compile(r"^\s*(?:(D\\D|GPU|CPU)\s+)?(0(?:\s+\d{1,3})*)\s*$", re.ASCII)
ROW = re.compile(r"^\s*(\d{1,3})((?:\s+(?:-?\d{1,15}(?:\.\d{1,9})?|N/A|-?nan|inf))+)\s*$", re.ASCII)


def columns(line: str) -> int | None:
    """How many columns a header names, None when the line is no header: 0, 1, 2 ... in order."""
    match = HEADER.match(line[:4000])
    if match is None:
        return None
    numbers = [int(word) for word in match[2].split()]
    return len(numbers) if numbers == list(range(len(numbers))) else None


def label(line: str) -> str | None:
    """The word before the columns: D\\D, GPU or CPU."""
    match = HEADER.match(line[:4000])
    return match[1] if match else None


def row(line: str) -> tuple[int, tuple[float | None, ...]] | None:
    """A row's number and its cells, None when the line is no row. `N/A` is unknown."""
    match = ROW.match(line[:8000])
    if match is None or int(match[1]) >= MAX_DEVICES:
        return None
    return int(match[1]), tuple(_cell(word) for word in match[2].split()[:MAX_DEVICES])


def _cell(word: str) -> float | None:
    return float(word) if word[-1].isdigit() else None


def matrix(rows: dict[int, tuple[float | None, ...]], width: int | None) -> Matrix:
    """Rows in their order, missing ones and missing cells None."""
    if not rows:
        return ()
    width = width or max(len(cells) for cells in rows.values())
    empty: tuple[float | None, ...] = (None,) * width
    return tuple((rows.get(i, ()) + empty)[:width] for i in range(max(rows) + 1))


def off_diagonal(cells: Matrix) -> Matrix:
    """Without the diagonal, which is the device's own memory and no link."""
    return tuple(
        tuple(None if a == b else cell for b, cell in enumerate(line))
        for a, line in enumerate(cells)
    )
