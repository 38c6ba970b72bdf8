"""Which cards go together: classes of like cards, best-connected subsets, device order.

A class is a set of cards that count as matched. On odd counts the best-connected subset is taken,
not the first N: NVLink and XGMI before PIX, PXB, PHB, NODE and SYS (the classes of
`nvidia-smi topo -m`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, pairwise
from math import comb

from multigpu.hardware import Gpu, Host, Path
from multigpu.mix import Mix, mix

Group = tuple[int, ...]

DISTANCE = {path: rank for rank, path in enumerate(Path, start=1)}
UNKNOWN_DISTANCE = len(DISTANCE) + 1
NARROW_LANES = 4
MANY = 5000


def pool(host: Host, gpus: Group | None) -> tuple[Gpu, ...]:
    """The cards to plan with: the pinned ones in their order, else all usable ones."""
    if gpus is not None:
        return tuple(host.gpu(index) for index in gpus)
    return host.usable


def classes(gpus: Iterable[Gpu]) -> tuple[tuple[Gpu, ...], ...]:
    """Cards by likeness, the class with the most memory first."""
    found: list[list[Gpu]] = []
    for gpu in sorted(gpus, key=lambda g: (-(g.memory_mib or 0), g.index)):
        fitting = (c for c in found if mix((*c, gpu)) is Mix.MATCHED)
        group = next(fitting, None)
        if group is None:
            found.append([gpu])
        else:
            group.append(gpu)
    return tuple(tuple(group) for group in found)


def distance(host: Host, a: int, b: int) -> int:
    """0 over NVLink or XGMI, 1 (PIX) to 5 (SYS), 6 when the topology was not seen."""
    pair = host.pair(a, b)
    if pair is None:
        return UNKNOWN_DISTANCE
    if pair.bonded:
        return 0
    return DISTANCE[pair.path] if pair.path is not None else UNKNOWN_DISTANCE


def spread(host: Host, gpus: Sequence[int]) -> tuple[int, int]:
    """(worst, sum of) distances inside a group: smaller is better connected."""
    found = [distance(host, a, b) for a, b in combinations(gpus, 2)]
    return max(found, default=0), sum(found)


def bonded(host: Host, gpus: Sequence[int]) -> bool:
    """True when every pair has a way of its own beside PCIe: NVLink, or XGMI on AMD."""
    return len(gpus) > 1 and spread(host, gpus)[0] == 0


def slow(host: Host, gpus: Sequence[int]) -> bool:
    """True when a pair talks across sockets or a card has at most four lanes, and no bond helps."""
    if len(gpus) < 2 or bonded(host, gpus):
        return False
    lanes = [host.gpu(index).pcie.width_current for index in gpus]
    narrow = any(width is not None and width <= NARROW_LANES for width in lanes)
    return narrow or spread(host, gpus)[0] == DISTANCE[Path.SYS]


def best(host: Host, gpus: Sequence[Gpu], n: int) -> Group:
    """The best-connected n of these cards; then the most free memory, then the lowest indices."""
    near = {
        (a.index, b.index): distance(host, a.index, b.index)
        for a, b in combinations(sorted(gpus, key=lambda g: g.index), 2)
    }
    free = {gpu.index: gpu.memory_free_mib or gpu.memory_mib or 0 for gpu in gpus}
    if len(set(near.values())) <= 1:
        return tuple(sorted(sorted(free, key=lambda i: (-free[i], i))[:n]))

    def order(group: Group) -> tuple[object, ...]:
        found = [near[pair] for pair in combinations(group, 2)]
        return max(found, default=0), sum(found), -min(free[i] for i in group), group

    return min(_groups(sorted(free), n, near), key=order)


def _groups(indices: list[int], n: int, near: dict[tuple[int, int], int]) -> Iterator[Group]:
    """All groups of n; beyond MANY only those grown from each card by its nearest neighbours."""
    if comb(len(indices), n) <= MANY:
        yield from combinations(indices, n)
        return
    for seed in indices:
        ranked = sorted(indices, key=lambda i: (near.get((min(seed, i), max(seed, i)), -1), i))
        yield tuple(sorted(ranked[:n]))


def subsets(host: Host, gpus: Sequence[Gpu], n: int) -> Iterator[Group]:
    """One group of n from every class that has n cards; the largest cards when no class has."""
    groups = [c for c in classes(gpus) if len(c) >= n]
    for group in groups:
        yield best(host, sorted(group, key=lambda g: g.index), n)
    if not groups and len(gpus) >= n:
        largest = sorted(gpus, key=lambda g: (-(g.memory_mib or 0), g.index))
        yield tuple(sorted(g.index for g in largest[:n]))


def teams(host: Host, gpus: Sequence[Gpu], size: int, count: int) -> Group:
    """`count` groups of `size`, each the best connected of what is left, one after the other."""
    left, chosen = list(gpus), Group()
    for _ in range(count):
        team = best(host, left, size)
        chosen += team
        left = [gpu for gpu in left if gpu.index not in team]
    return chosen


def by_capability(host: Host, gpus: Group) -> Group:
    """Lowest compute capability first: vLLM chooses kernels from device 0."""
    return tuple(sorted(gpus, key=lambda i: (host.gpu(i).compute_capability or (0, 0), i)))


def capability_gap(host: Host, gpus: Sequence[int]) -> bool:
    """True when the cards differ in the major number of their compute capability."""
    found = sorted({(host.gpu(i).compute_capability or (0, 0))[0] for i in gpus})
    return any(a != b for a, b in pairwise(found))
