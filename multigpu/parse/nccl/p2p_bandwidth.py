"""Reader of p2pBandwidthLatencyTest, the sample of the CUDA toolkit.

Format: NVIDIA/cuda-samples Samples/5_Domain_Specific/p2pBandwidthLatencyTest. Bandwidth is GB/s,
latency µs. Where access is refused the "P2P=Enabled" tables repeat the "P2P=Disabled" ones, copied
through host memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from multigpu.parse.nccl import pair_matrix
from multigpu.parse.nccl.pair_matrix import Matrix
from multigpu.parse.reading import Kind, Lines, Reading

BANNER = re.compile(r"\[P2P \(Peer-to-Peer\) GPU Bandwidth Latency Test\]")
DEVICE = re.compile(
    r"^Device: (\d{1,3}), (.{1,200}), pciBusID: ([0-9a-f]{1,2}), pciDeviceID: ([0-9a-f]{1,2}), "
    r"pciDomainID: ?([0-9a-f]{1,8})\s*$",
    re.ASCII | re.IGNORECASE,
)
ACCESS = re.compile(r"^Device=(\d{1,3}) (CAN|CANNOT) Access Peer Device=(\d{1,3})\s*$", re.ASCII)
CONNECTIVITY = re.compile(r"^P2P Connectivity Matrix\s*$")
TITLE = re.compile(
    r"^(?:(Uni|Bi)directional )?P2P=(Enabled|Disabled) (Bandwidth|Latency)"
    r"(?: \(P2P (Writes|Reads)\))? Matrix \((?:GB/s|us)\)\s*$"
)
NOTE = re.compile(r"^(?:\*{3}NOTE: In case a device|So you can see lesser|NOTE: The CUDA Samples)")
# Two runs of one copy differ by about a hundredth; a granted path gains a tenth and more.
SAME = 0.05


class Measure(StrEnum):
    """What a table measures; the latency of older releases has no GPU or CPU in its header."""

    UNIDIRECTIONAL = "unidirectional bandwidth"
    BIDIRECTIONAL = "bidirectional bandwidth"
    LATENCY = "latency"
    LATENCY_GPU = "latency seen by the GPU"
    LATENCY_CPU = "latency seen by the CPU"


@dataclass(frozen=True)
class P2pDevice:
    """One card of the test; `device` is the CUDA number."""

    device: int
    name: str
    pci_bus_id: str


@dataclass(frozen=True)
class P2pMatrix:
    """One table, GB/s or µs, row by column. `transfer` is writes or reads.

    The diagonal of `cells` is None: it is no link. `local` has it, each card's own memory.
    """

    measure: Measure
    p2p_enabled: bool
    cells: Matrix
    transfer: str | None = None
    local: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class P2pBandwidth:
    """One run. `access` has one entry per ordered pair: what cudaDeviceCanAccessPeer said."""

    devices: tuple[P2pDevice, ...] = ()
    access: tuple[tuple[int, int, bool], ...] = ()
    matrices: tuple[P2pMatrix, ...] = ()

    def cell(self, measure: Measure, p2p_enabled: bool, a: int, b: int) -> float | None:
        """One number of the first table of that kind; None where it was not printed."""
        for table in self.matrices:
            if (table.measure, table.p2p_enabled) == (measure, p2p_enabled):
                found = table.cells[a : a + 1]
                return next(iter(found[0][b : b + 1]), None) if found else None
        return None

    def can_access(self, a: int, b: int) -> bool | None:
        """Whether `a` was granted access to `b`, None when the text does not say."""
        return next((said for x, y, said in self.access if (x, y) == (a, b)), None)

    def enabled_repeats_disabled(self, a: int, b: int) -> bool | None:
        """True when peer access makes no copy of the pair faster; None without both tables."""
        changes = [
            (off, on)
            for measure in (Measure.UNIDIRECTIONAL, Measure.BIDIRECTIONAL)
            for x, y in ((a, b), (b, a))
            if (off := self.cell(measure, False, x, y)) is not None
            and (on := self.cell(measure, True, x, y)) is not None
        ]
        return all(abs(on - off) <= SAME * off for off, on in changes) if changes else None


def read_p2p_bandwidth(text: str) -> Reading[P2pBandwidth]:
    """One run, or the part of it that was pasted."""
    lines = Lines(text)
    run = _Run()
    for index, line in lines:
        if run.add(line):
            lines.mark(index)
    return lines.reading(run.finished())


class _Run:
    """What was gathered so far; a table is open from its title to the next one."""

    def __init__(self) -> None:
        self.devices: dict[int, P2pDevice] = {}
        self.access: dict[tuple[int, int], bool] = {}
        self.matrices: list[P2pMatrix] = []
        self.title: re.Match[str] | None = None
        self.label: str | None = None
        self.connectivity = False
        self.width: int | None = None
        self.rows: dict[int, tuple[float | None, ...]] = {}

    def add(self, line: str) -> bool:
        """Take one line in; False when it says nothing for us."""
        if match := DEVICE.match(line):
            address = f"{int(match[5], 16):04x}:{int(match[3], 16):02x}:{int(match[4], 16):02x}.0"
            self.devices[int(match[1])] = P2pDevice(int(match[1]), match[2], address)
        elif match := ACCESS.match(line):
            self.access[int(match[1]), int(match[3])] = match[2] == "CAN"
        elif match := TITLE.match(line.strip()):
            self._close()
            self.title, self.connectivity = match, False
        elif CONNECTIVITY.match(line.strip()):
            self._close()
            self.title, self.connectivity = None, True
        elif self.title or self.connectivity:
            return self._table(line)
        else:
            return bool(BANNER.search(line) or NOTE.match(line))
        return True

    def _table(self, line: str) -> bool:
        if (width := pair_matrix.columns(line)) is not None and pair_matrix.label(line):
            self._close()
            self.width, self.label = width, pair_matrix.label(line)
        elif (found := pair_matrix.row(line)) is not None:
            self.rows[found[0]] = found[1]
        else:
            return bool(NOTE.match(line))
        return True

    def _close(self) -> None:
        """The table that was open ends."""
        rows, self.rows = self.rows, {}
        if self.connectivity:
            for a, cells in rows.items():
                for b, granted in enumerate(cells):
                    if a != b and granted in (0, 1):
                        self.access.setdefault((a, b), granted == 1)
        elif rows and self.title is not None:
            self.matrices.append(self._matrix(self.title, rows))

    def _matrix(self, title: re.Match[str], rows: dict[int, tuple[float | None, ...]]) -> P2pMatrix:
        cells = pair_matrix.matrix(rows, self.width)
        return P2pMatrix(
            measure=self._measure(title),
            p2p_enabled=title[2] == "Enabled",
            cells=pair_matrix.off_diagonal(cells),
            transfer=title[4].lower() if title[4] else None,
            local=tuple(cells[i][i] for i in range(len(cells)) if i < len(cells[i])),
        )

    def _measure(self, title: re.Match[str]) -> Measure:
        if title[3] == "Bandwidth":
            return Measure.BIDIRECTIONAL if title[1] == "Bi" else Measure.UNIDIRECTIONAL
        by_label = {"GPU": Measure.LATENCY_GPU, "CPU": Measure.LATENCY_CPU}
        return by_label.get(self.label or "", Measure.LATENCY)

    def finished(self) -> P2pBandwidth:
        """The run as one value."""
        self._close()
        return P2pBandwidth(
            devices=tuple(self.devices[i] for i in sorted(self.devices)),
            access=tuple((a, b, said) for (a, b), said in sorted(self.access.items())),
            matrices=tuple(self.matrices),
        )


def _recognise(text: str) -> float:
    head = text[:200_000]
    if "P2P" not in head and "Access Peer" not in head:
        return 0.0
    patterns = (BANNER.pattern, r"^\s*(?:Uni|Bi)?\w* ?P2P=(?:Enabled|Disabled) (?:Band|Lat)")
    if any(re.search(pattern, head, re.MULTILINE) for pattern in patterns):
        return 0.93
    fragment = r"^P2P Connectivity Matrix|^Device=\d+ CAN(?:NOT)? Access Peer Device=\d"
    return 0.9 if re.search(fragment, head, re.MULTILINE | re.ASCII) else 0.0


KINDS = (
    Kind(
        "p2p-bandwidth-latency",
        "p2pBandwidthLatencyTest (CUDA sample)",
        _recognise,
        read_p2p_bandwidth,
        "p2pBandwidthLatencyTest",
    ),
)
