"""How GPUs are connected: pairs from `nvidia-smi topo` and `nvidia-smi nvlink -s`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

from multigpu.links import GpuPair, P2p, Path
from multigpu.parse.nvidia_smi import nvlink
from multigpu.parse.nvidia_smi.nvlink import read_nvlink
from multigpu.parse.nvidia_smi.topo_matrix import Matrix, Topology, read_matrix, read_topologies
from multigpu.parse.reading import ANSI, Kind

__all__ = ["KINDS", "Topology", "read_matrix", "read_nvlink", "read_pairs", "read_topologies"]

NVLINK_CELL = re.compile(r"^NV(\d{1,3})$", re.ASCII)


def read_pairs(
    topo: str, topo_pcie: str, p2p: str, nvlink_s: str, p2p_write: str = ""
) -> tuple[GpuPair, ...]:
    """One record per unordered pair of the GPUs that any matrix names.

    `topo_pcie` (`topo -mp`) gives the PCIe class under an NVLink, which `topo -m` hides. `p2p` and
    `p2p_write` are the grants to read and to write.
    """
    matrix, pcie = read_matrix(topo), read_matrix(topo_pcie)
    reads, writes = read_matrix(p2p), read_matrix(p2p_write)
    rates = read_nvlink(nvlink_s)
    indices = sorted({index for pair in {**matrix, **pcie, **reads, **writes} for index in pair})
    return tuple(
        replace(
            _pair((a, b), _cell(matrix, a, b), _cell(pcie, a, b), rates.get(a, ())),
            p2p_read=_grant(_worse(reads, a, b)),
            p2p_write=_grant(_worse(writes, a, b)),
        )
        for a, b in combinations(indices, 2)
    )


def _cell(cells: Matrix, a: int, b: int) -> str:
    return cells.get((a, b)) or cells.get((b, a)) or ""


def _worse(cells: Matrix, a: int, b: int) -> str:
    """The grant in both directions: of two that differ the refusal counts."""
    found = [cell for cell in (cells.get((a, b)), cells.get((b, a))) if cell]
    return next((cell for cell in found if cell != P2p.OK), found[0] if found else "")


def _pair(pair: tuple[int, int], cell: str, pcie: str, rates: tuple[float, ...]) -> GpuPair:
    nvlinks = _nvlinks(cell)
    return GpuPair(
        *pair,
        path=_path(cell) or _path(pcie),
        nvlinks=nvlinks,
        nvlink_gb_s=round(nvlinks * min(rates), 1) if nvlinks and rates else None,
    )


def _nvlinks(cell: str) -> int | None:
    """Links of an `NV#` cell, 0 for a PCIe class, None when the cell says neither."""
    if match := NVLINK_CELL.match(cell):
        return int(match[1])
    return 0 if _path(cell) is not None else None


def _path(cell: str) -> Path | None:
    return Path(cell) if cell in set(Path) else None


def _grant(cell: str) -> P2p | None:
    return P2p(cell) if cell in set(P2p) else None


HEADER = re.compile(r"^[ \t]{1,16}GPU\d{1,4}(?:[ \t]|$)", re.ASCII | re.MULTILINE)
GRANT_LEGEND = re.compile(r"^[ \t]*CNS[ \t]+= Chipset", re.MULTILINE)
NVLINK_LEGEND = re.compile(r"^[ \t]*NV#[ \t]+=", re.MULTILINE)
LAST_PATH_LEGEND = re.compile(r"^[ \t]*PIX[ \t]+=", re.MULTILINE)
# Pieces without a header: a row with its own X, a line of a legend.
PATH_PIECE = re.compile(
    r"^[ \t]*(?:GPU|NIC|mlx5_)\d{1,4}[ \t]"
    r"(?=[^\n]{0,4000}[ \t](?:NV\d{1,3}|SYS|NODE|PHB|PXB|PIX)[ \t\n])"
    r"[^\n]{0,4000}[ \t]X(?:[ \t\n]|$)|"
    r"^[ \t]*(?:(?:SYS|NODE|PHB|PXB|PIX|NV#)[ \t]+= Connection|NIC Legend:)",
    re.ASCII | re.MULTILINE,
)


def _recognise(asked: str) -> Callable[[str], float]:
    """Sure when the first matrix is of that kind, less of a piece without a header."""

    def recognise(text: str) -> float:
        plain = ANSI.sub("", text[:200_000])
        if HEADER.search(plain):
            first = next(iter(read_topologies(plain).value), Topology())
            return 0.9 if _kind_of(first, plain) == asked else 0.0
        if PATH_PIECE.search(plain):
            return 0.6 if asked == "-m" else 0.0
        return 0.6 if asked == "-p2p" and GRANT_LEGEND.search(plain) else 0.0

    return recognise


def _kind_of(topology: Topology, text: str) -> str:
    """`-m` also for a text that could be `-mp`: without NVLinks and legend the two are alike."""
    if topology.grants or (not topology.cells and GRANT_LEGEND.search(text)):
        return "-p2p"
    if topology.asked is not None:
        return topology.asked
    nvlinks = any(NVLINK_CELL.match(cell) for cell in topology.cells.values())
    without = LAST_PATH_LEGEND.search(text) and not NVLINK_LEGEND.search(text)
    return "-mp" if without and not nvlinks else "-m"


KINDS = (
    Kind(
        "nvidia-smi-topo-m",
        "how the GPUs are connected (topo -m)",
        _recognise("-m"),
        read_topologies,
        "nvidia-smi topo -m",
    ),
    Kind(
        "nvidia-smi-topo-mp",
        "how the GPUs are connected through PCIe (topo -mp)",
        _recognise("-mp"),
        read_topologies,
        "nvidia-smi topo -mp",
    ),
    Kind(
        "nvidia-smi-topo-p2p",
        "which GPUs may read each other's memory (topo -p2p)",
        _recognise("-p2p"),
        read_topologies,
        "nvidia-smi topo -p2p r",
    ),
    nvlink.KIND,
)
