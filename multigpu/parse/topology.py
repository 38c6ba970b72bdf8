"""Readers of `nvidia-smi topo -m`, `topo -mp`, `topo -p2p r` and `nvlink -s`.

The matrices come with tabs and ANSI underline from the tool, with spaces when pasted; network cards
(NIC0, mlx5_0) and affinity columns stand beside the GPUs.
"""

from __future__ import annotations

import re
from itertools import combinations

from multigpu.hardware import GpuPair, P2p, Path
from multigpu.parse.shape import number

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
GPU_LABEL = re.compile(r"^GPU(\d{1,4})$", re.ASCII)
NVLINK_CELL = re.compile(r"^NV(\d{1,3})$", re.ASCII)
NVLINK_GPU = re.compile(r"^GPU (\d{1,4}):", re.ASCII)
NVLINK_LINK = re.compile(r"^\s*Link \d{1,3}:\s*(\S.*)$", re.ASCII)

Matrix = dict[tuple[int, int], str]


def read_matrix(text: str) -> Matrix:
    """Cells of the first matrix in the text by (row GPU, column GPU), the diagonal left out."""
    columns: list[str] = []
    cells: Matrix = {}
    for line in text.splitlines():
        tokens = _tokens(line)
        if not tokens or not GPU_LABEL.match(tokens[0]):
            if columns and tokens[:1] == ["Legend:"]:
                break
            continue
        if "X" in tokens:
            cells.update(_row(tokens, columns))
        elif columns:
            break
        else:
            columns = tokens
    return cells


def _tokens(line: str) -> list[str]:
    """Fields of one line; an empty field in the middle keeps its place when tabs part them."""
    plain = ANSI.sub("", line)
    fields = plain.split("\t") if "\t" in plain else plain.split()
    stripped = [field.strip() for field in fields]
    return stripped[1:] if stripped and not stripped[0] else stripped


def _row(tokens: list[str], columns: list[str]) -> Matrix:
    row = _gpu(tokens[0])
    cells: Matrix = {}
    for label, cell in zip(columns, tokens[1:], strict=False):
        column = _gpu(label)
        if row is not None and column is not None and column != row and cell:
            cells[row, column] = cell
    return cells


def _gpu(label: str) -> int | None:
    match = GPU_LABEL.match(label)
    return int(match[1]) if match else None


def read_nvlink(text: str) -> dict[int, tuple[float, ...]]:
    """GPU index -> GB/s of each active link in one direction; empty where it has none.

    A card without NVLink, with inactive links or in MIG mode prints a sentence instead of links.
    """
    links: dict[int, list[float]] = {}
    index: int | None = None
    for line in ANSI.sub("", text).splitlines():
        if match := NVLINK_GPU.match(line.strip()):
            index = int(match[1])
            links.setdefault(index, [])
        elif index is not None and (match := NVLINK_LINK.match(line)):
            rate = number(match[1])
            links[index] += [] if rate is None else [rate]
    return {gpu: tuple(rates) for gpu, rates in links.items()}


def read_pairs(topo: str, topo_pcie: str, p2p: str, nvlink: str) -> tuple[GpuPair, ...]:
    """One record per unordered pair of the GPUs that any matrix names.

    `topo_pcie` (`topo -mp`) gives the PCIe class under an NVLink, which `topo -m` hides.
    """
    matrix, pcie, grants = read_matrix(topo), read_matrix(topo_pcie), read_matrix(p2p)
    rates = read_nvlink(nvlink)
    indices = sorted({index for pair in {**matrix, **pcie, **grants} for index in pair})
    return tuple(
        _pair((a, b), _cell(matrix, a, b), _cell(pcie, a, b), _cell(grants, a, b), rates.get(a, ()))
        for a, b in combinations(indices, 2)
    )


def _cell(cells: Matrix, a: int, b: int) -> str:
    return cells.get((a, b)) or cells.get((b, a)) or ""


def _pair(
    pair: tuple[int, int], cell: str, pcie: str, grant: str, rates: tuple[float, ...]
) -> GpuPair:
    nvlinks = _nvlinks(cell)
    return GpuPair(
        *pair,
        path=_path(cell) or _path(pcie),
        nvlinks=nvlinks,
        p2p_read=P2p(grant) if grant in set(P2p) else None,
        nvlink_gb_s=round(nvlinks * min(rates), 1) if nvlinks and rates else None,
    )


def _nvlinks(cell: str) -> int | None:
    """Links of an `NV#` cell, 0 for a PCIe class, None when the cell says neither."""
    if match := NVLINK_CELL.match(cell):
        return int(match[1])
    return 0 if _path(cell) is not None else None


def _path(cell: str) -> Path | None:
    return Path(cell) if cell in set(Path) else None
