"""Reader of nccl-tests and rccl-tests (`all_reduce_perf` and its siblings).

Formats: nccl-tests src/common.cu, releases 2.0 to 2.17, and rccl-tests. Old tables have an `error`
column (largest deviation) and no `root`; newer ones `root` and `#wrong` (count of wrong elements).
Lines of NCCL_DEBUG=INFO may stand between rows and in the middle of one.
"""

from __future__ import annotations

import re
from dataclasses import replace

from multigpu.parse.nccl.nccl_test_values import NcclTest, NcclTestCell, NcclTestRank, NcclTestRow
from multigpu.parse.pci import address
from multigpu.parse.reading import Kind, Lines, Reading

LOG = re.compile(r"NCCL (?:INFO|WARN|TRACE|CALL)\b|[NR]CCL version ")
# What NCCL puts before it. A host name that begins with a digit cannot be told from a cell, except
# where a line begins.
LOG_FRONT = re.compile(
    r"(?:\[[\d :.-]{8,40}\] )?"
    r"(?:(?:(?<!N/)(?!(?<=\d)e[+-]\d)[A-Za-z][\w.-]{0,252}|^\S{1,255}):\d{1,10}:\d{1,10} )?"
    r"(?:\[\d{1,4}\] )?(?:\S{1,300}:\d{1,6} )?$",
    re.ASCII,
)
LONGEST_FRONT = 700
WORDS = re.compile(
    r"^\s*\d{1,18}\s+\d{1,18}\s+[a-z]\w{1,15}\s+(?:sum|prod|max|min|avg|all|none|mulsum)", re.ASCII
)
LAUNCHER = re.compile(r"^\[\d{1,6},\d{1,6}\]<std\w{3}>: ?", re.ASCII)
COMMAND = re.compile(r"\b([a-z_]{3,40})_perf\b")
PARAMETERS = re.compile(r"^#? ?nThreads?:? +(\d{1,6}),? +nGpus:? +(\d{1,6})", re.ASCII)
RANK = re.compile(
    r"^#\s+Rank\s+(\d{1,6})\s+(?:Group\s+\d{1,6}\s+)?Pid\s+(\d{1,10})\s+(?:on\s+(\S{1,255})\s+)?"
    r"device\s+(\d{1,4})\s+\[([0-9a-fx:.]{1,20})\]\s+(\S.{0,200})$",
    re.ASCII | re.IGNORECASE,
)
HEADER = re.compile(r"^#\s+size\s+count\b", re.ASCII)
SUBHEADER = re.compile(r"^#\s+(?:\(B\)\s+\(elements\)|out-of-place\s+in-place|Using devices)")
ROW = re.compile(r"^\s*\d{1,18}\s+\d{1,18}\s+[a-z]\w{1,15}(?=\s|$|[A-Z])", re.ASCII)
# Markdown takes the sign off the lines that it shows as headings.
BARE = re.compile(
    r"^\s*(?:nThreads? \d|Using devices|Rank\s+\d{1,6}\s.{0,40}Pid\s|out-of-place\s+in-place"
    r"|size\s+count\s|\(B\)\s+\(elements\)|Out of bounds values|Avg bus bandwidth)",
    re.ASCII,
)
OUT_OF_BOUNDS = re.compile(
    r"^#\s+Out of bounds values\s*:\s*(\d{1,18})(?: (?:OK|FAILED))?", re.ASCII
)
AVERAGE = re.compile(r"^#\s+Avg bus bandwidth\s*:\s*(\S{1,30})", re.ASCII)
CONCLUDED = re.compile(r"^# Collective test (?:starting|concluded): ")
FAILURE = re.compile(r"(Test (?:NCCL |CUDA |HIP )?failure .{1,300})$")
ROOT = re.compile(r"^-?\d{1,6}$", re.ASCII)
NUMBER = re.compile(r"^-?\d{1,18}(?:\.\d{1,9})?(?:[eE][+-]?\d{1,2})?$", re.ASCII)
TYPES = ("float", "half", "double", "int8", "int32", "int64", "f8e4m3", "f8e5m2")
HEADER_ANYWHERE = re.compile(
    r"(?:^|>: ?)#\s+(?:size\s+count\b|Avg bus bandwidth)", re.ASCII | re.MULTILINE
)
ROW_ANYWHERE = re.compile(
    r"^[ \t]{0,40}\d{1,18}[ \t]+\d{1,18}[ \t]+b?(?:u?" + "|u?".join(TYPES) + r")\d{0,2}[ \t]+\S",
    re.ASCII | re.MULTILINE,
)
CELLS = 8  # time, algbw, busbw and wrong, twice


def read_nccl_tests(text: str) -> Reading[tuple[NcclTest, ...]]:
    """Every collective in the text, in its order."""
    lines = Lines(text)
    log = _Runs()
    for index, line in lines:
        if log.add(LAUNCHER.sub("", line)):
            lines.mark(index)
    log.end(whole=text.endswith("\n"))
    return lines.reading(tuple(test for test in log.tests if test != NcclTest()))


class _Runs:
    """Runs found so far; the last is the one that lines belong to."""

    def __init__(self) -> None:
        self.tests: list[NcclTest] = [NcclTest()]
        # Of the last run, which gets them as it ends.
        self.rows: list[NcclTestRow] = []
        self.ranks: list[NcclTestRank] = []
        self.failures: list[str] = []
        self.tokens: list[str] = []  # of a row that other lines may interrupt
        self.has_error = False  # columns that the header names
        self.has_root: bool | None = None

    def add(self, line: str) -> bool:
        """Take one line in; False when it says nothing for us."""
        rest = _without_log(line)
        interrupted = rest != line
        if not rest.strip():
            return False
        if rest.lstrip().startswith("#") or BARE.match(rest):
            self.flush()
            return self._comment(f"# {rest.strip().removeprefix('#').lstrip()}")
        if ROW.match(rest):
            self.flush()
            self.tokens = rest.split()
            return self._ended(interrupted)
        if self.tokens and all(_is_cell(token) for token in rest.split()):
            self.tokens += rest.split()
            return self._ended(interrupted)
        return self._other(rest)

    def _ended(self, interrupted: bool) -> bool:
        """A row ends with its line, except where a log line broke it."""
        if not interrupted and len(self.tokens) >= _lead(self.tokens, self.has_root) + CELLS:
            self.flush()
        return True

    def end(self, whole: bool) -> None:
        """The text ends. The last number of a row that is cut may lack digits: it is dropped."""
        if not whole and len(self.tokens) < _lead(self.tokens, self.has_root) + CELLS:
            self.tokens = self.tokens[:-1]
        self.flush()
        self._complete()

    def flush(self) -> None:
        """The tokens so far are a row, whole or cut; too few of them are none."""
        tokens, self.tokens = self.tokens, []
        row = _row(tokens, _lead(tokens, self.has_root), self.has_error)
        if row is not None:
            self.rows.append(row)

    def _change(self, **values: object) -> None:
        self.tests[-1] = replace(self.tests[-1], **values)  # type: ignore[arg-type]

    def _complete(self) -> None:
        """Give the last run its lines."""
        last = self.tests[-1]
        self._change(
            rows=(*last.rows, *self.rows),
            ranks=(*last.ranks, *self.ranks),
            failures=(*last.failures, *self.failures),
        )
        self.rows, self.ranks, self.failures = [], [], []

    def _begin(self, collective: str | None) -> None:
        """A run begins, unless the last one has only its name so far."""
        self._complete()
        last = self.tests[-1]
        if last != NcclTest(collective=last.collective):
            self.tests.append(NcclTest())
        self._change(collective=collective or self.tests[-1].collective)

    def _comment(self, line: str) -> bool:
        if match := PARAMETERS.match(line):
            self._begin(None)
            self._change(n_threads=int(match[1]), n_gpus=int(match[2]))
        elif match := RANK.match(line):
            self.ranks.append(_rank(match))
        elif HEADER.match(line):
            self.has_error = " error" in line
            self.has_root = " root" in line
        elif match := OUT_OF_BOUNDS.match(line):
            self._change(out_of_bounds=int(match[1]))
        elif match := AVERAGE.match(line):
            self._change(avg_busbw_gb_s=_number(match[1]))
        elif CONCLUDED.match(line):
            if "starting" in line and (match := COMMAND.search(line)):
                self._begin(match[1])
        else:
            return bool(SUBHEADER.match(line)) or line.strip("# ") == ""
        return True

    def _other(self, line: str) -> bool:
        """Command lines name the collective of the run below them."""
        if match := FAILURE.search(line):
            self.failures.append(match[1].strip())
            return True
        match = COMMAND.search(line)
        if match and re.search(rf"{match[1]}_perf(?: +-| *$)", line):
            self.flush()
            self._begin(match[1])
            return True
        return False


def _without_log(line: str) -> str:
    """The part of a row before a log line that was printed into it, without a blank between."""
    if "CCL" not in line:
        return line
    words = WORDS.match(line)
    start = words.end() if words else 0
    log = LOG.search(line, start)
    if log is None:
        return line
    start = max(start, log.start() - LONGEST_FRONT)
    front = LOG_FRONT.search(line[start : log.start()])
    return line[: start + front.start()] if front else line


def _rank(match: re.Match[str]) -> NcclTestRank:
    """`[0000:b4:00]` is an address, `[0xc0]` only a bus number (without the domain)."""
    bus = re.fullmatch(r"0x([0-9a-f]{1,2})", match[5], re.IGNORECASE)
    return NcclTestRank(
        rank=int(match[1]),
        pid=int(match[2]),
        host=match[3],
        device=int(match[4]),
        pci_bus_id=None if bus else address(match[5]),
        pci_bus=int(bus[1], 16) if bus else None,
        name=match[6].strip(),
    )


def _is_cell(token: str) -> bool:
    return token in ("N/A", "inf", "nan", "-nan") or NUMBER.match(token) is not None


def _number(token: str) -> float | None:
    return float(token) if NUMBER.match(token) else None


def _lead(tokens: list[str], has_root: bool | None) -> int:
    """Columns before the first time: size, count, type, then redop and root where printed.

    Both halves have four columns, so without a header an odd number of cells tells of a root.
    """
    words = 4 if len(tokens) > 3 and not _is_cell(tokens[3]) else 3
    if has_root is None:
        first = tokens[words] if len(tokens) > words else ""
        has_root = (len(tokens) - words) % 4 == 1 and ROOT.match(first) is not None
    return words + int(has_root)


def _row(tokens: list[str], lead: int, has_error: bool) -> NcclTestRow | None:
    if len(tokens) < lead + CELLS // 2:
        return None
    words = tokens[3:lead]
    redop = words[0] if words and not _is_cell(words[0]) else None
    root = int(words[-1]) if words and ROOT.match(words[-1]) else None
    halves = [tokens[at : at + 4] for at in (lead, lead + 4) if len(tokens) >= at + 4]
    cells = [_cell(half, has_error) for half in halves]
    return NcclTestRow(
        size_bytes=int(tokens[0]),
        count=int(tokens[1]),
        type=tokens[2],
        redop=None if redop == "none" else redop,
        root=None if root is None or root < 0 else root,
        out_of_place=cells[0],
        in_place=cells[1] if len(cells) > 1 else None,
    )


def _cell(tokens: list[str], has_error: bool) -> NcclTestCell:
    last = _number(tokens[3])
    whole = last is not None and last.is_integer() and not has_error
    return NcclTestCell(
        time_us=_number(tokens[0]),
        algbw_gb_s=_number(tokens[1]),
        busbw_gb_s=_number(tokens[2]),
        wrong=int(last) if whole and last is not None else None,
        error=last if has_error else None,
    )


def _recognise(text: str) -> float:
    """The table's header or one of its rows; below an NCCL log with channel lines."""
    head = text[:200_000]
    if ("busbw" in head or "Avg bus" in head) and HEADER_ANYWHERE.search(head):
        return 0.9
    return 0.8 if any(word in head for word in TYPES) and ROW_ANYWHERE.search(head) else 0.0


KINDS = (
    Kind("nccl-tests", "nccl-tests or rccl-tests", _recognise, read_nccl_tests, "all_reduce_perf"),
)
