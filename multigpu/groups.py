"""Which cards go together: classes of like cards, best-connected subsets, device order.

A class is a set of cards that count as matched. On odd counts the best-connected subset is taken,
not the first N: NVLink and XGMI before PIX, PXB, PHB, NODE and SYS (the classes of
`nvidia-smi topo -m`), then peer access, the wider PCIe links, and the most free memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import combinations, pairwise
from math import comb

from multigpu.device_order import places
from multigpu.hardware import Gpu, Host, Path
from multigpu.memo import memo
from multigpu.mix import MATCHED_SHARE
from multigpu.nearness import DISTANCE, between, distance

Group = tuple[int, ...]
Free = Mapping[int, float]
"""Free memory in MiB by NVML index."""

NARROW_LANES = 4
MANY = 5000


def pool(host: Host, gpus: Group | None) -> tuple[Gpu, ...]:
    """The cards to plan with: the pinned ones in their order, else all usable ones."""
    if gpus is not None:
        return tuple(host.gpu(index) for index in gpus)
    return host.usable


def classes(gpus: Iterable[Gpu]) -> tuple[tuple[Gpu, ...], ...]:
    """Cards by likeness, as `multigpu.mix` judges it; the class with the most memory first."""
    found: list[list[Gpu]] = []
    architectures: list[object] = []
    for gpu in sorted(gpus, key=lambda g: (-(g.memory_mib or 0), g.name or "", g.index)):
        architecture = gpu.gfx or gpu.compute_capability
        for i, group in enumerate(found):
            if (
                group[0].vendor is gpu.vendor
                and (architectures[i] == architecture or not (architectures[i] and architecture))
                and (gpu.memory_mib or 0) >= MATCHED_SHARE * (group[0].memory_mib or 0)
            ):
                group.append(gpu)
                architectures[i] = architectures[i] or architecture
                break
        else:
            found.append([gpu])
            architectures.append(architecture)
    return tuple(tuple(group) for group in found)


def classes_of(host: Host, gpus: Sequence[Gpu]) -> tuple[tuple[Gpu, ...], ...]:
    """`classes` of cards of one host, kept with it."""
    known, key = memo(host), ("classes", *[gpu.index for gpu in gpus])
    if key not in known:
        known[key] = classes(gpus)
    found: tuple[tuple[Gpu, ...], ...] = known[key]
    return found


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


def free_of(gpus: Iterable[Gpu]) -> dict[int, float]:
    """Free memory as the driver tells it, the whole of it where it does not."""
    return {gpu.index: float(gpu.memory_free_mib or gpu.memory_mib or 0) for gpu in gpus}


def lanes(gpu: Gpu) -> int:
    """Lanes between card and processor; 16 where they were not seen."""
    link = gpu.pcie
    return link.width_path or link.width_current or link.width_max or 16


def best(host: Host, gpus: Sequence[Gpu], n: int, free: Free | None = None) -> Group:
    """The best-connected n of these cards, then the widest links, then the most free memory."""
    room = free_of(gpus) if free is None else free
    width = {gpu.index: lanes(gpu) for gpu in gpus}
    indices = sorted(width)
    if n >= len(indices):
        return tuple(indices)
    near, place = between(host, indices), places(host)
    if min(near) == max(near):
        return tuple(sorted(sorted(indices, key=lambda i: (-width[i], -room[i], place[i]))[:n]))

    def order(group: Group) -> tuple[object, ...]:
        least = sorted(room[i] for i in group)
        return (
            -min(width[i] for i in group),
            [-mib for mib in least],
            sorted(place[i] for i in group),
        )

    closest = _closest(near, len(indices), n)
    return min((tuple([indices[i] for i in picked]) for picked in closest), key=order)


@lru_cache(maxsize=4096)
def _closest(near: tuple[int, ...], size: int, n: int) -> tuple[Group, ...]:
    """Places of the groups of n with the smallest worst, then smallest summed distance.

    `near` holds the distances of the pairs of `size` cards in the order of `combinations`.
    """
    pairs = dict(zip(combinations(range(size), 2), near, strict=True))
    found: list[Group] = []
    smallest = (max(near) + 1, 0)
    for group in _groups(size, n, pairs):
        inside = [pairs[pair] for pair in combinations(group, 2)]
        spread_of = (max(inside, default=0), sum(inside))
        if spread_of < smallest:
            smallest, found = spread_of, [group]
        elif spread_of == smallest:
            found.append(group)
    return tuple(found)


def _groups(size: int, n: int, near: Mapping[tuple[int, int], int]) -> Iterator[Group]:
    """All groups of n; beyond MANY only those grown from each card by its nearest neighbours."""
    if comb(size, n) <= MANY:
        yield from combinations(range(size), n)
        return
    for seed in range(size):
        ranked = sorted(range(size), key=lambda i: (near.get((min(seed, i), max(seed, i)), -1), i))
        yield tuple(sorted(ranked[:n]))


def roomiest(host: Host, gpus: Iterable[Gpu], n: int, free: Free) -> Group:
    """The n cards with the most free memory."""
    place = places(host)
    ranked = sorted((gpu.index for gpu in gpus), key=lambda i: (-free[i], place[i]))
    return tuple(sorted(ranked[:n]))


def subsets(host: Host, gpus: Sequence[Gpu], n: int) -> Iterator[Group]:
    """One group of n from every class that has n cards; the largest cards when no class has."""
    groups = [c for c in classes_of(host, gpus) if len(c) >= n]
    for group in groups:
        yield best(host, group, n)
    if not groups and len(gpus) >= n:
        place = places(host)
        largest = sorted(gpus, key=lambda g: (-(g.memory_mib or 0), place[g.index]))
        yield tuple(sorted(g.index for g in largest[:n]))


def teams(
    host: Host, gpus: Sequence[Gpu], size: int, count: int, free: Free | None = None
) -> Group:
    """`count` groups of `size`, each the best connected of what is left, one after the other."""
    left, chosen = list(gpus), Group()
    for _ in range(count):
        team = best(host, left, size, free)
        chosen += team
        left = [gpu for gpu in left if gpu.index not in team]
    return chosen


def by_capability(host: Host, gpus: Group) -> Group:
    """Lowest compute capability first, then the least memory, then as they are joined."""
    return tuple(sorted(gpus, key=places(host).__getitem__))


def capability_gap(host: Host, gpus: Sequence[int]) -> bool:
    """True when the cards differ in the major number of their compute capability."""
    found = sorted({(host.gpu(i).compute_capability or (0, 0))[0] for i in gpus})
    return any(a != b for a, b in pairwise(found))
