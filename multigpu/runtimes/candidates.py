"""Ways to spread one model over the cards of a host, before any rule is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from multigpu.groups import classes, pool, subsets, teams
from multigpu.hardware import Gpu, Host
from multigpu.plan import Candidate, Strategy, Wish


def whole(runtime: str, host: Host, wish: Wish) -> Iterator[Candidate]:
    """The model on each class's best card, and one copy per card."""
    gpus = pool(host, wish.gpus)
    for group in classes(gpus):
        card = max(group, key=lambda g: (g.memory_free_mib or 0, not g.display_attached, -g.index))
        yield Candidate(runtime, Strategy.SINGLE, (card.index,))
    sets = {tuple(sorted(gpu.index for gpu in group)) for group in (gpus, *classes(gpus))}
    for indices in sorted(sets, key=lambda s: (-len(s), s)):
        if len(indices) > 1:
            yield Candidate(runtime, Strategy.REPLICAS, indices, replicas=len(indices))


def groups_of(host: Host, wish: Wish, n: int) -> Iterator[tuple[int, ...]]:
    """Groups of n cards; pinned cards keep the operator's order."""
    gpus = pool(host, wish.gpus)
    if wish.gpus is not None and len(gpus) == n:
        yield tuple(gpu.index for gpu in gpus)
    else:
        yield from subsets(host, gpus, n)


def sizes(host: Host, wish: Wish) -> range:
    """Numbers of cards that one engine may span."""
    return range(2, len(pool(host, wish.gpus)) + 1)


def tensor_parallel_teams(
    host: Host, wish: Wish
) -> Iterator[tuple[Sequence[Gpu], tuple[int, ...], int, int]]:
    """(class, cards, team size, number of teams) for at least two teams of two of a class."""
    for group in classes(pool(host, wish.gpus)):
        for size in range(2, len(group) // 2 + 1):
            for count in range(2, len(group) // size + 1):
                yield group, teams(host, group, size, count), size, count
