"""How far two cards of a host are from each other, by their link and the class of their path."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from multigpu.hardware import GpuPair, Host, P2p, Path
from multigpu.memo import memo

DISTANCE = {path: rank for rank, path in enumerate(Path, start=1)}
UNKNOWN_DISTANCE = len(DISTANCE) + 1
APART_UNKNOWN = 2 * UNKNOWN_DISTANCE + 1


def distance(host: Host, a: int, b: int) -> int:
    """0 over NVLink or XGMI, 1 (PIX) to 5 (SYS), 6 when the topology was not seen."""
    known = memo(host)
    if "distances" not in known:
        known["distances"] = {(p.a, p.b): _distance(p.bonded, p.path) for p in host.pairs}
    found: int = known["distances"].get((a, b) if a < b else (b, a), UNKNOWN_DISTANCE)
    return found


def _distance(is_bonded: bool, path: Path | None) -> int:
    if is_bonded:
        return 0
    return DISTANCE[path] if path is not None else UNKNOWN_DISTANCE


def between(host: Host, indices: Sequence[int]) -> tuple[int, ...]:
    """`apart` of all pairs, in the order of `combinations`; indices ascend."""
    known = all_apart(host)
    return tuple([known.get(pair, APART_UNKNOWN) for pair in combinations(indices, 2)])


def apart(host: Host, a: int, b: int) -> int:
    """The distance in halves: of pairs as near as each other, one with peer access is nearer."""
    return all_apart(host).get((a, b) if a < b else (b, a), APART_UNKNOWN)


def all_apart(host: Host) -> dict[tuple[int, int], int]:
    """`apart` of every pair (a < b) that the topology shows, made once per host."""
    known = memo(host)
    if "apart" not in known:
        known["apart"] = {(p.a, p.b): _halves(p) for p in host.pairs}
    found: dict[tuple[int, int], int] = known["apart"]
    return found


def _halves(pair: GpuPair) -> int:
    far = _distance(pair.bonded, pair.path)
    return 2 * far + (far > 0 and pair.p2p_read is not P2p.OK)
