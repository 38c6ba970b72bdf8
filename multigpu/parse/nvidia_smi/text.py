"""Reader of `nvidia-smi -q`: the XML's facts in indented words (drivers 384 to 610).

Also its parts (`-q -d MEMORY`, `-i 1`) and pasted copies, which may be indented as a whole.
"""

from __future__ import annotations

import re
from dataclasses import replace

from multigpu.parse.nvidia_smi.card import Card, Cells, Query, count, gpu, version
from multigpu.parse.nvidia_smi.lost import HANDLE, with_refused
from multigpu.parse.reading import Kind, Lines, Reading
from multigpu.parse.shape import word

GPU_LINE = re.compile(
    r"^( {0,40})GPU ([0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f])\s*$", re.ASCII
)
PAIR = re.compile(r"^( {0,60})(\S[^:\n]{0,80}?) *:(?: (.*))?$")
SECTION = re.compile(r"^( {0,60})([A-Z][A-Za-z0-9.&/ -]{0,60}?) *$", re.ASCII)
LOG_HEAD = re.compile(r"^\s*=+NVSMI LOG=+\s*$")
REMARK = re.compile(r"^\s*# simulated\b")
HEAD = {
    *("timestamp", "driver version", "cuda version", "kmd version", "cuda umd version"),
    *("attached gpus", "attached units", "hic info"),
}
# A cell that ends in a unit was not cut within its number.
ENDS_IN_UNIT = re.compile(r"\d (?:MiB|KiB|W|C|MHz|mV|%|us|KB/s)$|\dx$", re.ASCII)

# Clocks by memory clock: hundreds of lines under one name.
PASSED_OVER = ("supported clocks", "accounted processes")
CUT = "its part of nvidia-smi -q cannot be read to its end"


class _Block:
    """One card while its lines come: the headings above the line, by their indentation."""

    def __init__(self, bus_id: str, indent: int) -> None:
        self.bus_id = bus_id
        self.indent = indent
        self.card = Card()
        self.above: list[tuple[int, str, int]] = []

    def path(self, indent: int, name: str, line: int) -> str:
        """Whole path of a name, in lower case; it stands as a heading for what follows deeper."""
        while self.above and self.above[-1][0] >= indent:
            self.above.pop()
        self.above.append((indent, name.lower(), line))
        return "/".join(heading for _, heading, _ in self.above)

    def heading(self) -> int | None:
        """Line of the heading right above the last name, if it is one without a value."""
        return self.above[-2][2] if len(self.above) > 1 else None

    def put(self, path: str, cell: str) -> None:
        """Keep a cell; processes and MIG devices repeat, each begins with its own first name."""
        top, _, rest = path.partition("/")
        if top == "processes":
            self._repeated(self.card.processes, rest, cell, rest == "process id")
        elif top == "mig device":
            self._repeated(self.card.slices, rest, cell, rest == "index")
        elif top not in PASSED_OVER:
            self.card.cells.setdefault(path, cell)

    @staticmethod
    def _repeated(blocks: list[Cells], path: str, cell: str, first: bool) -> None:
        if first:
            blocks.append({})
        if blocks:
            blocks[-1].setdefault(path, cell)


def read_text(text: str) -> Reading[Query]:
    """The cards in `nvidia-smi -q`; `unread` are lines that belong to no such output.

    A heading with nothing under it is unread: the text breaks off there. So is a last line without
    an end: its number may be cut.
    """
    lines = Lines(text)
    unended = len(lines.texts) - 1 if lines.texts[-1].strip() else None
    head: Cells = {}
    blocks: list[_Block] = []
    simulated = False
    for index, line in lines:
        if started := GPU_LINE.match(line):
            blocks.append(_Block(started[2], len(started[1])))
            lines.mark(index)
        elif LOG_HEAD.match(line) or HANDLE.search(line):
            lines.mark(index)
        elif REMARK.match(line):
            simulated = True
            lines.mark(index)
        elif index == unended and blocks and not _safe(line):
            blocks[-1].card.cut = CUT if PAIR.match(line) else None
        else:
            _read_line(lines, index, line, blocks, head)
    query = _query(head, blocks)
    return lines.reading(with_refused(replace(query, simulated=simulated), text, numbered=False))


def _safe(line: str) -> bool:
    """True for a last line that is surely whole, or says nothing that a cut could change."""
    match = PAIR.match(line)
    if match is None:
        return False
    cell = (match[3] or "").strip()
    return bool(ENDS_IN_UNIT.search(cell)) or word(cell) is None or cell in {"disabled", "None"}


def _read_line(lines: Lines, index: int, line: str, blocks: list[_Block], head: Cells) -> None:
    pair = PAIR.match(line)
    if pair and not blocks and pair[2].lower() in HEAD:
        head.setdefault(pair[2].lower(), pair[3] or "")
        lines.mark(index)
    found = pair or SECTION.match(line)
    if not found or not blocks or len(found[1]) <= blocks[-1].indent:
        return
    block = blocks[-1]
    path = block.path(len(found[1]), found[2].strip(), index)
    heading = block.heading()
    if heading is not None:
        lines.mark(heading)
    if pair:
        block.put(path, (pair[3] or "").strip())
        lines.mark(index)


def _query(head: Cells, blocks: list[_Block]) -> Query:
    cells = {name: word(cell) for name, cell in head.items()}
    attached = count(cells.get("attached gpus"))
    for block in blocks:
        # `-q -d TEMPERATURE` prints one section alone.
        block.card.memory_asked = "fb memory usage/total" in block.card.cells
    return Query(
        driver=version(cells.get("kmd version")) or version(cells.get("driver version")),
        cuda=version(cells.get("cuda umd version")) or version(cells.get("cuda version")),
        gpus=tuple(gpu(i, block.card, block.bus_id) for i, block in enumerate(blocks)),
        whole=attached == len(blocks) and all(_is_whole(block.card) for block in blocks),
        attached_gpus=attached,
        timestamp=cells.get("timestamp"),
    )


def _is_whole(card: Card) -> bool:
    """The clocks stand behind everything that is read here but the processes."""
    return card.cut is None and any(path.startswith("max clocks") for path in card.cells)


MARKS = re.compile(
    r"^ {0,40}(?:FB Memory Usage|BAR1 Memory Usage|GPU Link Info|(?:GPU )?Power Readings|"
    r"Clocks (?:Event|Throttle) Reasons|Remapped Rows|ECC Errors|GPU Reset Status) *(?:: .*)?$",
    re.MULTILINE,
)
NAMES = re.compile(
    r"^ {0,40}(?:Product Name|GPU UUID|VBIOS Version|MultiGPU Board|Attached GPUs|"
    r"Performance State|GPU Recovery Action|GPU Current Temp) {2,60}: ",
    re.MULTILINE,
)

LOG = re.compile(LOG_HEAD.pattern, re.MULTILINE)
CARD = re.compile(GPU_LINE.pattern, re.MULTILINE | re.ASCII)
QUOTED = re.compile(
    r"^ {4}|^\s*GPU [0-9A-Fa-f:.]{10,16}\s*$|^[A-Z][^:]{1,50} : |^\s*=+NVSMI|^# sim"
)


def recognise(text: str) -> float:
    """By the log's head, a card's line, or headings and names that only this output has.

    Less sure where most lines are neither pairs nor indented: a report that quotes a part.
    """
    head = text[:100_000]
    if "GPU" not in head and " : " not in head:
        return 0.0
    found = bool(MARKS.search(head)) + bool(NAMES.search(head))
    log = LOG.search(head)
    if not found and not log:
        return 0.0
    lines = [line for line in head.split("\n") if line.strip()][:300]
    ours = [bool(QUOTED.match(line)) for line in lines]
    if sum(ours) * 3 < len(lines) * 2 or not any(ours[:4]):
        return 0.5
    if log:
        return 1.0
    return 0.95 if found == 2 or CARD.search(head) else 0.8


KINDS: tuple[Kind, ...] = (
    Kind("nvidia-smi-q", "nvidia-smi's text of every card", recognise, read_text, "nvidia-smi -q"),
)
