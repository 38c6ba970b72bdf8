"""Ways to spread one model over the cards of a host, before any rule is asked."""

from __future__ import annotations

from collections.abc import Iterator

from multigpu.device_order import places
from multigpu.groups import by_capability, classes_of, pool, subsets
from multigpu.hardware import Host
from multigpu.plan import Candidate, Strategy, Wish


def whole(runtime: str, host: Host, wish: Wish) -> Iterator[Candidate]:
    """The model on each class's best card, and one copy per card."""
    gpus, place = pool(host, wish.gpus), places(host)
    for group in classes_of(host, gpus):
        card = max(
            group, key=lambda g: (g.memory_free_mib or 0, not g.display_attached, -place[g.index])
        )
        yield Candidate(runtime, Strategy.SINGLE, (card.index,))
    sets = {tuple(sorted(gpu.index for gpu in group)) for group in (gpus, *classes_of(host, gpus))}
    for indices in sorted(sets, key=lambda s: (-len(s), s)):
        if len(indices) > 1:
            yield Candidate(runtime, Strategy.REPLICAS, indices, replicas=len(indices))


def groups_of(host: Host, wish: Wish, n: int) -> Iterator[tuple[int, ...]]:
    """Groups of n cards in device order; pinned cards keep the operator's order."""
    gpus = pool(host, wish.gpus)
    if wish.gpus is not None and len(gpus) == n:
        yield tuple(gpu.index for gpu in gpus)
    else:
        for group in subsets(host, gpus, n):
            yield by_capability(host, group)


def sizes(host: Host, wish: Wish) -> range:
    """Numbers of cards that one engine may span."""
    return range(2, len(pool(host, wish.gpus)) + 1)
