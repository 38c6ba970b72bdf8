"""`rocm-smi ... --csv`: a header with the keys of the JSON, then a row per card.

Warnings may stand before the header. Facts of the whole system come as rows that begin with
`system`; they stay unread.
"""

from __future__ import annotations

import csv
import re

from multigpu.hardware import Gpu
from multigpu.parse.amd.rocm_smi_card import card, strings
from multigpu.parse.reading import Lines, Reading, signature

HEADER = re.compile(r"^device,\S")
CARD = re.compile(r"^card(\d{1,4}),", re.ASCII)


def rows(lines: Lines) -> dict[int, dict[str, object]]:
    """Cells of every card by the header's keys; of a row that is cut what is there."""
    found: dict[int, dict[str, object]] = {}
    header: list[str] = []
    for index, line in lines:
        if HEADER.match(line):
            header = _cells(line)
        elif header and (match := CARD.match(line)):
            pairs = zip(header[1:], _cells(line)[1:], strict=False)
            found.setdefault(int(match[1]), {}).update(pairs)
        else:
            continue
        lines.mark(index)
    return found


def _cells(line: str) -> list[str]:
    """Names of vendors hold commas, and stand in quotes then."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:  # a NUL, or a field above the module's limit
        return []


def read_cards(printed: str) -> Reading[tuple[Gpu, ...]]:
    """The cards by rocm-smi's index."""
    lines = Lines(printed)
    found = rows(lines)
    return lines.reading(tuple(card(index, strings(found[index])) for index in sorted(found)))


recognise = signature(r"^device,.{0,4000}(?:\(|Unique ID|Card |GPU ID|Device |PCI Bus)", sure=0.9)
