"""Reader of the matrices of `nvidia-smi topo -m`, `topo -mp` and `topo -p2p`.

The matrices come with tabs and ANSI underline from the tool, with blanks when pasted; network cards
(NIC0, mlx5_0) and affinity columns stand beside the GPUs. One text can hold several matrices.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from multigpu.links import P2p, Path
from multigpu.parse.reading import ANSI, Lines, Reading
from multigpu.parse.shape import whole, word

GPU_LABEL = re.compile(r"^GPU(\d{1,4})$", re.ASCII)
LABEL = re.compile(r"^(?:GPU|NIC|[a-z]\w{1,20}_)\d{1,4}$", re.ASCII)
COMMAND = re.compile(r"nvidia-smi\s+topo\s+(-mp?|-p2p\s+[rwnap])(?![\w-])")
LEGEND_LINE = re.compile(
    r"^\s*(?:Legend:|NIC Legend:|(?:X|SYS|NODE|PHB|PXB|PIX|NV#|OK|CNS|GNS|TNS|NS|DR|U)\s+= \S.*)$"
)
LEGEND_MORE = re.compile(r"^\s+PCIe Host Bridges within a NUMA node\)?\s*$")
NIC_LEGEND = re.compile(r"^\s*(NIC\d{1,4}):\s+(\S{1,64})\s*$", re.ASCII)

CPU, NUMA, GPU_NUMA = "CPU Affinity", "NUMA Affinity", "GPU NUMA ID"
# Columns beside the matrix; in a pasted copy blanks stand between their words, too.
SIDES = (CPU, NUMA, GPU_NUMA)
# SGLang's check_env expands the tabs so that of many columns some have no blank between them.
GLUED = r"(?:NODE|SYS|PHB|PXB|PIX)(?=(?:NODE|SYS|PHB|PXB|PIX){1,4}(?:\s|$))"
FIELD = re.compile(rf"(?:CPU|NUMA) {{1,8}}Affinity|GPU {{1,8}}NUMA {{1,8}}ID|{GLUED}|\S+")

Matrix = dict[tuple[int, int], str]


@dataclass(frozen=True)
class Topology:
    """One matrix. `cells` by (row GPU, column GPU), as printed, the diagonal left out.

    `asked` are the arguments on a command line before it ("-m", "-p2p r"), None without one.
    `nics` are network cards, by the legend's names where there is one; `nic_cells` by (GPU, that
    name). Affinities are lists as printed ("0-51,104-155"), by GPU, None where the tool knows none.
    """

    gpus: tuple[int, ...] = ()
    cells: Matrix = field(default_factory=dict)
    asked: str | None = None
    nics: tuple[str, ...] = ()
    nic_cells: dict[tuple[int, str], str] = field(default_factory=dict)
    cpu_affinity: dict[int, str | None] = field(default_factory=dict)
    numa_affinity: dict[int, str | None] = field(default_factory=dict)
    gpu_numa_id: dict[int, int | None] = field(default_factory=dict)

    @property
    def grants(self) -> bool:
        """True for a matrix of peer access (`topo -p2p`), False for one of paths."""
        if self.asked is not None:
            return self.asked.startswith("-p2p")
        words = set(self.cells.values())
        return bool(words & set(P2p)) and not words & set(Path)


def read_topologies(text: str) -> Reading[tuple[Topology, ...]]:
    """Every matrix in the text, in order; rows of a matrix that is cut stay."""
    lines = Lines(text)
    found: list[Topology] = []
    header: tuple[str, ...] | None = None
    asked: str | None = None
    for index, line in lines:
        tokens = _tokens(line)
        if match := COMMAND.search(line):
            asked, header = " ".join(match[1].split()), None
            # A copy from a page may have lost the break behind the command.
            tokens = _tokens(line[match.end() :])
        if _is_header(tokens, header):
            header = tuple(tokens)
            found.append(Topology(_numbers(header), asked=asked, nics=_nics(header)))
            asked = None
        elif match:
            pass
        elif match := NIC_LEGEND.match(line):
            found[-1:] = [_named(topology, match[1], match[2]) for topology in found[-1:]]
        elif LEGEND_LINE.match(line) or (LEGEND_MORE.match(line) and found):
            header = None
        elif header is None or not _is_row(tokens, header):
            continue
        else:
            found[-1] = _with_row(found[-1], header, tokens)
        lines.mark(index)
    return lines.reading(tuple(found))


def read_topology(text: str) -> Topology:
    """The first matrix of the text; an empty one where there is none."""
    return next(iter(read_topologies(text).value), Topology())


def read_matrix(text: str) -> Matrix:
    """Cells of the first matrix in the text by (row GPU, column GPU), the diagonal left out."""
    return read_topology(text).cells


def _tokens(line: str) -> list[str]:
    """Fields of one line; an empty field in the middle keeps its place when tabs part them."""
    plain = ANSI.sub("", line)
    fields = plain.split("\t") if "\t" in plain else _rejoined(plain)
    stripped = [field.strip() for field in fields]
    return stripped[1:] if stripped and not stripped[0] else stripped


def _rejoined(line: str) -> list[str]:
    """Words of a pasted line, with "CPU Affinity" and the like as one."""
    return [" ".join(field.split()) for field in FIELD.findall(line)]


def _is_header(tokens: list[str], header: tuple[str, ...] | None) -> bool:
    """The header goes on with labels; of a row that is cut behind its label nothing is left."""
    if not tokens or not GPU_LABEL.match(tokens[0]):
        return False
    if len(tokens) < 2:
        return header is None
    return bool(LABEL.match(tokens[1]) or tokens[1] in SIDES or not any(tokens[1:]))


def _is_row(tokens: list[str], header: tuple[str, ...]) -> bool:
    """True for the row of a GPU or of a network card; of a row that is cut the X may be lost."""
    return len(tokens) > 1 and tokens[0] in header


def _gpu(label: str) -> int | None:
    match = GPU_LABEL.match(label)
    return int(match[1]) if match else None


def _numbers(header: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(number for label in header if (number := _gpu(label)) is not None)


def _nics(header: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(label for label in _matrix_columns(header) if _gpu(label) is None)


def _matrix_columns(header: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(label for label in header if label and label not in SIDES)


def _with_row(topology: Topology, header: tuple[str, ...], tokens: list[str]) -> Topology:
    """The matrix with one more row; the row of a network card adds nothing."""
    row = _gpu(tokens[0])
    if row is None:
        return topology
    columns = _matrix_columns(header)
    cells, nic_cells = dict(topology.cells), dict(topology.nic_cells)
    for label, cell in zip(columns, tokens[1:], strict=False):
        column, known = _gpu(label), word(cell)
        if known and column is None:
            nic_cells[row, label] = known
        elif known and column is not None and column != row:
            cells[row, column] = known
    topology = replace(topology, cells=cells, nic_cells=nic_cells)
    sides = [label for label in header if label in SIDES]
    return _with_sides(topology, row, _beside(sides, tokens[1 + len(columns) :]), set(sides))


def _beside(sides: list[str], values: list[str]) -> dict[str, str]:
    """What stands in the columns beside the matrix.

    The tool pads the wide headers with a further tab, so an empty field is not always an empty
    column. "GPU NUMA ID" is always printed, and last. In a pasted row with too few values a list
    or range is the CPUs'; of a lone number nobody knows whose it is.
    """
    there = [value for value in values if value]
    if len(there) >= len(sides):
        return dict(zip(sides, there, strict=False))
    found: dict[str, str] = {}
    tabbed = len(values) > len(there)
    if GPU_NUMA in sides and len(there) and (not tabbed or not values[0] or len(there) > 1):
        found[GPU_NUMA] = there.pop()
    if tabbed and values[0] and there:
        found[CPU] = there.pop(0)
    if not tabbed and there and re.search(r"[-,]", there[0]):
        found[CPU] = there.pop(0)
    if tabbed and there:
        found[NUMA] = there[0]
    return {side: value for side, value in found.items() if side in sides}


def _with_sides(topology: Topology, row: int, beside: dict[str, str], sides: set[str]) -> Topology:
    cpu, numa, memory = (word(beside.get(side)) for side in (CPU, NUMA, GPU_NUMA))
    return replace(
        topology,
        cpu_affinity=topology.cpu_affinity | ({row: cpu} if CPU in sides else {}),
        numa_affinity=topology.numa_affinity | ({row: numa} if NUMA in sides else {}),
        gpu_numa_id=topology.gpu_numa_id | ({row: whole(memory)} if GPU_NUMA in sides else {}),
    )


def _named(topology: Topology, label: str, name: str) -> Topology:
    """The matrix with a network card under the name that the legend gives."""
    return replace(
        topology,
        nics=tuple(name if nic == label else nic for nic in topology.nics),
        nic_cells={
            (gpu, name if nic == label else nic): cell
            for (gpu, nic), cell in topology.nic_cells.items()
        },
    )
