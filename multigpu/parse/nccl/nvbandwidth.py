"""Reader of nvbandwidth, its text and its JSON (`nvbandwidth -j`).

Format: NVIDIA/nvbandwidth output.cpp and json_output.cpp, v0.4 to v0.10. Bandwidth is GB/s, latency
ns; the unit stands in the description of each test. Tests that need more than the host has are
waived: they are counted, not named, in the text.
"""

from __future__ import annotations

import re

from multigpu.parse import cut_json
from multigpu.parse.nccl import pair_matrix
from multigpu.parse.nccl.nvbandwidth_values import (
    Nvbandwidth,
    NvbandwidthDevice,
    NvbandwidthTest,
)
from multigpu.parse.pci import address
from multigpu.parse.reading import Kind, Lines, Reading
from multigpu.parse.shape import integer, items, mapping, real, text, whole

VERSION = re.compile(r"^nvbandwidth Version: (\S{1,60})", re.ASCII)
GIT_VERSION = re.compile(r"^Built from Git version: (\S{1,60})?", re.ASCII)
CUDA = re.compile(
    r"^CUDA (Runtime|Driver) Version(?: \(API\))?: (?:\d{1,3}\.\d{1,3} \()?(\d{1,6})(?![.\d])",
    re.ASCII,
)
DRIVER = re.compile(r"^Driver Version: (\d[\d.]{0,30})", re.ASCII)
DEVICE = re.compile(
    r"^(?:Process +\d{1,6} \([^)]{0,255}\): device|Device) (\d{1,4}): (.{1,200}?)"
    r"(?: \(([0-9a-f:]{5,20})\))?\s*$",
    re.ASCII,
)
RUNNING = re.compile(r"^Running (\w{1,100})\.\s*$", re.ASCII)
WAIVED = re.compile(r"^Waived:")
DESCRIPTION = re.compile(r"^\S.{0,200}\((GB/s|ns|us)\)\s*$")
STATISTIC = re.compile(
    r"^(SUM|MIN|MAX|AVG|COEFFICIENT_OF_VARIATION) (\w{1,100}) (-?\d{1,15}(?:\.\d{1,9})?)\s*$",
    re.ASCII,
)
NOTE = re.compile(
    r"^(?:NOTE: (?:The reported results|This tool reports)|Performance can vary with software"
    r"|Additional system-specific tuning|#{10,}$)"
)
JSON = re.compile(r'"nvbandwidth"\s{0,20}:\s{0,20}\{')
ERROR = re.compile(r"^(\[?(?:ERROR|CUDA_ERROR)\w*\]? .{1,300})$")
# The bytes that arrived are not those that were sent: the copy lies, whatever its speed.
CORRUPT = re.compile(r"^ ?(Invalid value when checking the pattern at .{1,80}?)\s*$")
ASSERT = re.compile(r"^(ASSERT in expression .{1,300})")
OFFSET = re.compile(r"^ ?Current offset : \d{1,18}\s*$", re.ASCII)


def read_nvbandwidth(text: str) -> Reading[Nvbandwidth]:
    """One run, from text or JSON, or the part of it that was pasted."""
    if JSON.search(text):
        return _read_json(text)
    lines = Lines(text)
    run = _Run()
    for index, line in lines:
        if run.add(line.rstrip()):
            lines.mark(index)
    return lines.reading(run.finished())


class _Run:
    """What was gathered so far; a test is open from its first line to its SUM line."""

    def __init__(self) -> None:
        self.facts: dict[str, str] = {}
        self.devices: dict[int, NvbandwidthDevice] = {}
        self.tests: list[NvbandwidthTest] = []
        self.waived = 0
        self._open()

    def _open(self) -> None:
        self.name: str | None = None
        self.description: re.Match[str] | None = None
        self.width: int | None = None
        self.rows: dict[int, tuple[float | None, ...]] = {}

    def add(self, line: str) -> bool:
        """Take one line in; False when it says nothing for us."""
        if match := CORRUPT.match(line) or ASSERT.match(line):
            self._failed(match[1])
        elif match := RUNNING.match(line):
            self._close(None, None)
            self.name = match[1]
        elif match := DESCRIPTION.match(line):
            if self.rows:
                self._close(None, None)
            self.description = match
        elif match := STATISTIC.match(line):
            if match[1] == "SUM":
                self._close(match[2], float(match[3]))
        elif WAIVED.match(line):
            self._waive()
        elif self.description and (width := pair_matrix.columns(line)) is not None:
            self.width = width
        elif self.description and (found := pair_matrix.row(line)) is not None:
            self.rows[found[0]] = found[1]
        else:
            return self._fact(line)
        return True

    def _failed(self, said: str) -> None:
        """The open test ended in an error; the first one said is the cause."""
        self.facts.setdefault("e", said)
        if self.name:
            self.tests.append(NvbandwidthTest(self.name, "error"))
            self._open()

    def _waive(self) -> None:
        """The text names a waived test only where "Running" stands before it."""
        self.waived += 1
        if self.name and not self.rows:
            self.tests.append(NvbandwidthTest(self.name, "waived"))
            self._open()

    def _close(self, name: str | None, total: float | None) -> None:
        """A test ends; its SUM line may name one part of it (`..._total`)."""
        name = name or self.name
        if name and (self.rows or total is not None or self.name):
            described = self.description
            self.tests.append(
                NvbandwidthTest(
                    name=name,
                    status="passed" if self.rows or total is not None else "running",
                    description=described[0].strip() if described else None,
                    unit=described[1] if described else None,
                    cells=pair_matrix.matrix(self.rows, self.width),
                    total=total,
                )
            )
        self._open()

    def _fact(self, line: str) -> bool:
        if match := DEVICE.match(line):
            device = NvbandwidthDevice(int(match[1]), match[2], address(match[3] or ""))
            self.devices[device.device] = device
            return True
        if match := CUDA.match(line):
            self.facts.setdefault(match[1], match[2])
            return True
        for key, pattern in (("v", VERSION), ("git", GIT_VERSION), ("drv", DRIVER), ("e", ERROR)):
            if (match := pattern.match(line)) and match[1]:
                self.facts.setdefault(key, match[1])
                return True
        return bool(NOTE.match(line) or OFFSET.match(line))

    def finished(self) -> Nvbandwidth:
        """The run as one value."""
        self._close(None, None)
        return Nvbandwidth(
            version=self.facts.get("v"),
            git_version=self.facts.get("git"),
            cuda_runtime_version=whole(self.facts.get("Runtime")),
            cuda_driver_version=whole(self.facts.get("Driver")),
            driver_version=self.facts.get("drv"),
            devices=tuple(self.devices[i] for i in sorted(self.devices)),
            tests=tuple(self.tests),
            waived=self.waived,
            error=self.facts.get("e"),
        )


def _read_json(written: str) -> Reading[Nvbandwidth]:
    """`{"nvbandwidth": {...}}`; of a document that is cut what came before."""
    lines = Lines(written)
    root = mapping(mapping(cut_json.load(written)).get("nvbandwidth"))
    cut_json.mark(lines, root or None)
    tests = tuple(test for case in items(root.get("testcases")) if (test := _case(mapping(case))))
    runtime = integer(root.get("CUDA Runtime Version"))
    value = Nvbandwidth(
        version=text(root.get("version")),
        git_version=text(root.get("git_version")),
        cuda_runtime_version=runtime if runtime is not None and 0 < runtime < 10**6 else None,
        driver_version=text(root.get("Driver Version")),
        tests=tests,
        waived=sum(test.status == "waived" for test in tests),
        error=text(root.get("error")),
    )
    return lines.reading(value)


def _case(case: dict[str, object]) -> NvbandwidthTest | None:
    name = text(case.get("name"))
    if name is None:
        return None
    described = text(case.get("bandwidth_description"))
    unit = DESCRIPTION.match(described) if described else None
    rows = [
        tuple(_value(cell) for cell in items(row)) for row in items(case.get("bandwidth_matrix"))
    ]
    return NvbandwidthTest(
        name=name,
        status=(text(case.get("status")) or "running").lower(),
        description=described,
        unit=unit[1] if unit else None,
        cells=tuple(rows),
        total=real(case.get("sum")),
    )


def _value(cell: object) -> float | None:
    """Cells are strings: a number as C++ streams print it (six digits), or N/A."""
    said = text(cell)
    if said is None:
        return real(cell)
    number = re.fullmatch(r"-?\d{1,15}(?:\.\d{1,9})?(?:e[+-]\d{1,2})?", said.strip(), re.ASCII)
    return float(number[0]) if number else None


def _recognise(written: str) -> float:
    head = written[:200_000]
    if "nvbandwidth" not in head and "memcpy" not in head and "memory latency" not in head:
        return 0.0
    if re.search(r"^nvbandwidth Version: ", head, re.MULTILINE):
        return 0.95
    if JSON.search(head):
        return 0.95
    fragment = r"^memcpy (?:CE|SM) .*\(GB/s\)|^memory latency SM |^SUM \w*(?:memcpy|latency)\w* \d"
    return 0.9 if re.search(fragment, head, re.MULTILINE | re.ASCII) else 0.0


KINDS = (
    Kind("nvbandwidth", "nvbandwidth, text or JSON", _recognise, read_nvbandwidth, "nvbandwidth"),
)
