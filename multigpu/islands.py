"""Cards with a way of their own beside PCIe: NVLink or XGMI islands.

An island is a connected set; whether every pair of it is connected (a full mesh) is another
question, and the one that vLLM's custom all-reduce asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from multigpu.hardware import GpuPair, Host

Cards = tuple[int, ...]


@dataclass(frozen=True)
class Island:
    """Cards by NVML index, lowest first. `link` is NVLink or XGMI.

    `full_mesh` is False when some pair talks by way of another card (the hybrid cube mesh of eight
    V100s).
    """

    gpus: Cards
    link: str
    full_mesh: bool


def islands(host: Host) -> tuple[Island, ...]:
    """Islands of two or more usable cards, by their first card."""
    usable = {gpu.index for gpu in host.usable}
    bonded = [pair for pair in host.pairs if pair.bonded and {pair.a, pair.b} <= usable]
    return tuple(_island(gpus, bonded) for gpus in connected((p.a, p.b) for p in bonded))


def connected(edges: Iterable[tuple[int, int]]) -> tuple[Cards, ...]:
    """The connected sets of these edges, each and all in ascending order."""
    sets: list[set[int]] = []
    for a, b in edges:
        touching = [s for s in sets if a in s or b in s]
        sets = [s for s in sets if s not in touching]
        sets.append({a, b}.union(*touching))
    return tuple(sorted(tuple(sorted(found)) for found in sets))


def _island(gpus: Cards, bonded: Sequence[GpuPair]) -> Island:
    inside = [pair for pair in bonded if pair.a in gpus]
    link = "NVLink" if any(pair.nvlinks for pair in inside) else "XGMI"
    return Island(gpus, link, len(inside) == len(gpus) * (len(gpus) - 1) // 2)


def full_mesh(host: Host, gpus: Sequence[int]) -> bool | None:
    """True when every pair has NVLink or XGMI, False when one has none, None when not seen."""
    pairs = [host.pair(a, b) for a, b in combinations(gpus, 2)]
    if all(pair is not None and pair.bonded for pair in pairs):
        return True
    known = (pair is not None and _has_none(pair) for pair in pairs)
    return False if any(known) else None


def _has_none(pair: GpuPair) -> bool:
    """True when the links were counted and there are none."""
    return not pair.bonded and (pair.nvlinks == 0 or pair.xgmi_links == 0)


def members(gpus: Sequence[int]) -> str:
    """`0-3`, `0,2,5`, `0-1,4-5`: as a CPU list is written."""
    runs: list[list[int]] = []
    for index in sorted(gpus):
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ",".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)
