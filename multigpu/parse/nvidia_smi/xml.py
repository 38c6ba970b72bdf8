"""Reader of `nvidia-smi -q -x` (drivers 418 to 610; DTD v10 to v13).

A card whose block cannot be read, or that the driver has lost, keeps its row; a document that is
cut gives what stood before the cut.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

from multigpu.parse.nvidia_smi.architectures import compute_capability
from multigpu.parse.nvidia_smi.card import Card, Cells, Query, count, gpu, version
from multigpu.parse.nvidia_smi.lost import HANDLE, read_refusals, with_refused
from multigpu.parse.nvidia_smi.query_gpu import Numbered, read_numbers
from multigpu.parse.reading import Kind, Reading, Unread
from multigpu.parse.shape import text as valid
from multigpu.parse.shape import word

__all__ = [
    "KINDS",
    "Numbered",
    "Query",
    "compute_capability",
    "read_numbers",
    "read_query",
    "read_refusals",
    "read_xml",
]

GPU_BLOCK = re.compile(r'<gpu id="([^"<>]{1,40})">(.*?)(</gpu>|(?=<gpu id=)|\Z)', re.DOTALL)
ROOT, END = "<nvidia_smi_log", "</nvidia_smi_log>"
PROLOGUE = re.compile(r"\s*(?:<\?xml|<!DOCTYPE|<!--)")

# Hundreds of elements that nobody plans with, and processes that have ended.
PASSED_OVER = {"supported_clocks", "accounted_processes"}
DEEPEST = 8

# No host has more; garbage may.
MOST_CARDS = 256

CUT = "its part of nvidia-smi -q -x cannot be read to its end"


def read_query(text: str) -> Query:
    """The XML of `nvidia-smi -q -x`, also when it was cut or has a warning printed around it.

    Cards without a handle have no row here; `read_refusals` names them.
    """
    return _read(text)[0]


def read_xml(text: str) -> Reading[Query]:
    """The same with a row for every card that the driver has no handle of.

    `unread` are lines around the document, and where it, or a card's block, broke off.
    """
    query, unread = _read(text)
    lines = sum(bool(line.strip()) for line in text.split("\n"))
    return Reading(with_refused(query, text, numbered=False), tuple(unread), lines)


def _read(text: str) -> tuple[Query, list[Unread]]:
    text = (valid(text) or "").lstrip("\ufeff")
    start, end = _extent(text)
    body = text[start:end]
    unread = _around(text, start, end)
    root = _parse(body)
    if root is None:
        cards, broken = _pieces(body)
        line = text.count("\n", 0, start)
        unread += [Unread(line + found.line, found.text) for found in broken]
    else:
        cards = [(block.get("id"), _card(block)) for block in root.iterfind("gpu")]
    query = Query(
        driver=version(_head(body, "kmd_version")) or version(_head(body, "driver_version")),
        cuda=version(_head(body, "cuda_umd_version")) or version(_head(body, "cuda_version")),
        gpus=tuple(gpu(index, card, bus_id) for index, (bus_id, card) in enumerate(cards)),
        simulated="<!-- simulated" in text,
        whole=root is not None,
        attached_gpus=count(_head(body, "attached_gpus")),
        timestamp=_head(body, "timestamp"),
    )
    return query, sorted(unread, key=lambda found: found.line)


def _extent(text: str) -> tuple[int, int]:
    """From the root element on: nvidia-smi prints warnings (infoROM) after and before the XML.

    A pasted part without the root begins at its first card.
    """
    start, end = text.find(ROOT), text.rfind(END)
    if start < 0:
        first = GPU_BLOCK.search(text)
        start = first.start() if first else len(text)
    return start, end + len(END) if end > start else len(text)


def _around(text: str, start: int, end: int) -> list[Unread]:
    """Lines before and after the document; those that tell of a lost card are understood."""
    behind = text.count("\n", 0, end)
    outside = [(i, line) for i, line in enumerate(text[:start].split("\n"), 1)]
    outside += [(behind + i, line) for i, line in enumerate(text[end:].split("\n"), 1)]
    return [
        Unread(number, line)
        for number, line in outside
        if line.strip() and not PROLOGUE.match(line) and not HANDLE.search(line)
    ]


def _parse(body: str) -> ET.Element | None:
    """No DTD reaches this parser: the text begins at the root element."""
    try:
        root = ET.fromstring(body)
    except (ET.ParseError, ValueError):
        return None
    return root if root.tag == "nvidia_smi_log" else None


def _pieces(body: str) -> tuple[list[tuple[str | None, Card]], list[Unread]]:
    """Card by card, for a document that is cut or has garbage in one card's block."""
    cards: list[tuple[str | None, Card]] = []
    broken: list[Unread] = []
    lines = body.split("\n")
    for match in islice(GPU_BLOCK.finditer(body), MOST_CARDS):
        block, line = _begun(f"<gpu>{match[2]}", closed=match[3] == "</gpu>")
        card = _card(block) if block is not None else Card()
        if line is not None:
            card.cut = CUT
            number = body.count("\n", 0, match.start()) + line
            broken.append(Unread(number, lines[min(number, len(lines)) - 1]))
        cards.append((match[1], card))
    if not cards and body:
        broken.append(Unread(len(lines), lines[-1]))
    return cards, broken


def _begun(block: str, closed: bool) -> tuple[ET.Element | None, int | None]:
    """The elements up to the first fault, and the line of the fault, None for a sound block."""
    parser: ET.XMLPullParser[Any] = ET.XMLPullParser(("start",))
    parser.feed(block + ("</gpu>" if closed else ""))
    root: ET.Element | None = None
    line: int | None = None
    try:
        for _, element in cast("Iterator[tuple[str, ET.Element]]", parser.read_events()):
            root = element if root is None else root
    except ET.ParseError as error:
        line = error.position[0]
    if line is None and not closed:
        line = block.count("\n") + 1
    return root, line


def _head(body: str, name: str) -> str | None:
    """An element above the cards."""
    match = re.search(rf"<{name}>([^<]{{0,200}})</{name}>", body.partition("<gpu")[0])
    return word(match[1]) if match else None


def _card(block: ET.Element) -> Card:
    card = Card()
    for child in block:
        if child.tag == "processes":
            card.processes = [_cells(info) for info in child.iterfind("process_info")]
        elif child.tag == "mig_devices":
            card.slices = [_cells(device) for device in child.iterfind("mig_device")]
        elif child.tag not in PASSED_OVER:
            _fill(card.cells, child, child.tag, DEEPEST)
    return card


def _cells(element: ET.Element) -> Cells:
    cells: Cells = {}
    for child in element:
        _fill(cells, child, child.tag, DEEPEST)
    return cells


def _fill(cells: Cells, element: ET.Element, path: str, deeper: int) -> None:
    """Path -> text of every element without children; the first of a name wins."""
    if len(element) == 0:
        cells.setdefault(path, (element.text or "").strip())
    elif deeper:
        for child in element:
            _fill(cells, child, f"{path}/{child.tag}", deeper - 1)


DOCUMENT = re.compile(r"^\s{0,40}<nvidia_smi_log\b", re.MULTILINE)
BLOCK = re.compile(r'^\s{0,40}<gpu id="[0-9A-Fa-f:.]{7,20}">', re.MULTILINE)
ELEMENT = re.compile(
    r"</(?:fb_memory_usage|bar1_memory_usage|pci_gpu_link_info|(?:gpu_)?power_readings|"
    r"clocks_(?:event|throttle)_reasons|product_name|mig_mode|ecc_mode|nvidia_smi_log)>"
)


def recognise(text: str) -> float:
    """By the root element, a card's element, or an element that only this document has."""
    if DOCUMENT.search(text[:200_000]):
        return 1.0
    if BLOCK.search(text[:200_000]):
        return 0.95
    return 0.9 if ELEMENT.search(text[:200_000]) else 0.0


KINDS: tuple[Kind, ...] = (
    Kind(
        "nvidia-smi-q-x",
        "nvidia-smi's XML of every card",
        recognise,
        read_xml,
        "nvidia-smi -q -x",
    ),
)
