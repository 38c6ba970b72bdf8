"""A place for every card of a host that follows from values, not from numbers.

NVML numbers cards by slot. A plan should not change when like cards change their slots together
with what joins them, so ties are broken by these places: first by what a card is, then by what it
is joined with. Only cards that cannot be told apart at all keep the order of their numbers.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations, pairwise

from multigpu.hardware import Gpu, Host
from multigpu.memo import memo
from multigpu.nearness import APART_UNKNOWN, all_apart

Ranks = tuple[int, ...]
MANY = 1 << 16
"""More than there are colors."""


def places(host: Host) -> dict[int, int]:
    """Place by NVML index: lowest compute capability first, then the least memory.

    vLLM chooses kernels and its defaults for large cards from device 0.
    """
    known = memo(host)
    if "places" not in known:
        known["places"] = {index: place for place, index in enumerate(_ordered(host))}
    found: dict[int, int] = known["places"]
    return found


def _ordered(host: Host) -> list[int]:
    keyed = sorted([(_worth(gpu), gpu.index) for gpu in host.gpus])
    order = [index for _, index in keyed]
    ranks = [0]
    for (a, _), (b, _) in pairwise(keyed):
        ranks.append(ranks[-1] + (a != b))
    if len(set(ranks)) >= len(order):
        return order
    known = all_apart(host)
    near = tuple(
        [known.get((a, b) if a < b else (b, a), APART_UNKNOWN) for a, b in combinations(order, 2)]
    )
    if min(near) == max(near):
        return order
    return [order[i] for i in _told_apart(near, tuple(ranks))]


def _worth(gpu: Gpu) -> tuple[object, ...]:
    """What a plan sees of a card by itself."""
    link = gpu.pcie
    return (
        gpu.compute_capability or (0, 0),
        gpu.memory_mib or 0,
        gpu.name or "",
        -(gpu.memory_free_mib or 0),
        -(link.width_path or link.width_current or link.width_max or 16),
        -(link.gen_max or 0),
        -(gpu.power_limit_w or 0),
        bool(gpu.display_attached),
    )


@lru_cache(maxsize=4096)
def _told_apart(near: tuple[int, ...], ranks: Ranks) -> tuple[int, ...]:
    """An order of cards that are joined by `near` (pairs in the order of `combinations`).

    Cards of one rank follow each other nearest first. Those that are joined alike form one color;
    one of them is taken, which tells the others apart by how they are joined with it (the color
    refinement of Weisfeiler and Leman, one card after the other).
    """
    n = len(ranks)
    joined = [[0] * n for _ in range(n)]
    for (a, b), distance in zip(combinations(range(n), 2), near, strict=True):
        joined[a][b] = joined[b][a] = distance
    colors, order = ranks, list[int]()
    while len(order) < n:
        if len(set(colors)) < n:
            colors = _refined(joined, colors)
        last = joined[order[-1]] if order else [0] * n
        left = [i for i in range(n) if i not in order]
        taken = min(left, key=lambda i: (ranks[i], last[i], colors[i], i))
        order.append(taken)
        # Twice the color leaves room for a color of its own, in front of those like it.
        colors = tuple(2 * color + (i != taken) for i, color in enumerate(colors))
    return tuple(order)


def _refined(joined: list[list[int]], colors: Ranks) -> Ranks:
    """Colors that tell cards apart by the colors they are joined with, and how."""
    while True:
        # A distance and a color are one number: comparing those is faster than comparing pairs.
        seen = [
            (
                colors[i],
                *sorted([MANY * far + color for far, color in zip(row, colors, strict=True)]),
            )
            for i, row in enumerate(joined)
        ]
        number = {kind: i for i, kind in enumerate(sorted(set(seen)))}
        finer = tuple([number[kind] for kind in seen])
        if len(number) == len(set(colors)):
            return finer
        colors = finer
