"""The cards of one vendor as the ways of serving take them: classes, groups of n, teams.

Everything here follows from the host and the pinned cards, so it is kept with the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from multigpu.device_order import places
from multigpu.groups import best, classes, pool, roomiest, teams
from multigpu.hardware import Gpu, Host
from multigpu.memo import memo
from multigpu.memory import free_mib
from multigpu.plan import Wish

Group = tuple[int, ...]

ROOMIER = 1.1
"""A group with so many times the free memory is proposed beside a better connected one."""
EQUAL = 0.9
"""Free memory of the fullest card over that of the emptiest, from which on stages stay even."""


@dataclass(frozen=True)
class Seats:
    """Cards of one vendor. `free` is in MiB by index; `pinned` says that their order is given."""

    gpus: tuple[Gpu, ...]
    classes: tuple[tuple[Gpu, ...], ...]
    free: Mapping[int, float]
    pinned: bool
    made: dict[object, list[Group]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def indices(self) -> Group:
        """NVML indices in order."""
        return tuple(gpu.index for gpu in self.gpus)

    def without(self, out: Sequence[tuple[Gpu, ...]]) -> Seats:
        """The same cards without some classes."""
        gone = {gpu.index for cards in out for gpu in cards}
        gpus = tuple(gpu for gpu in self.gpus if gpu.index not in gone)
        free = {index: mib for index, mib in self.free.items() if index not in gone}
        kept = tuple(cards for cards in self.classes if cards not in out)
        return replace(self, gpus=gpus, classes=kept, free=free, made={})

    def first(self, n: int) -> Group:
        """Any n cards, like ones where there are enough."""
        cards = next((c for c in self.classes if len(c) >= n), self.gpus)
        return tuple(sorted(gpu.index for gpu in cards[:n]))

    def ranked(self, host: Host) -> Iterator[Group]:
        """Each class with the most free memory first; a card that draws a desktop goes last."""
        free, place = self.free, places(host)
        for cards in self.classes:
            order = sorted(
                [(-free[g.index], bool(g.display_attached), place[g.index], g.index) for g in cards]
            )
            yield tuple([index for *_, index in order])

    def unequal(self, gpus: Group) -> bool:
        """True where cards differ so much in free memory that even stages waste some."""
        room = [self.free[index] for index in gpus]
        return min(room) < EQUAL * max(room)

    def groups(self, host: Host, n: int, thorough: bool = False) -> list[Group]:
        """Groups of n: the best connected of each class, and one with more free memory."""
        key = (n, thorough)
        if key not in self.made:
            self.made[key] = list(dict.fromkeys(self._groups(host, n, thorough)))
        return self.made[key]

    def _groups(self, host: Host, n: int, thorough: bool) -> Iterator[Group]:
        if n == len(self.gpus):
            yield self.indices if self.pinned else tuple(sorted(self.indices))
            return
        least = 0.0
        for cards in self.classes:
            if len(cards) >= n:
                group = best(host, cards, n, self.free)
                least = max(least, min(self.free[i] for i in group))
                yield group
                if thorough:
                    yield roomiest(host, cards, n, self.free)
        group = roomiest(host, self.gpus, n, self.free)
        if thorough or min(self.free[i] for i in group) > ROOMIER * least:
            yield group
        if thorough:
            yield from self._of_one_architecture(host, n)

    def _of_one_architecture(self, host: Host, n: int) -> Iterator[Group]:
        """The roomiest n cards of each architecture, whatever their memory."""
        alike: dict[object, list[Gpu]] = {}
        for gpu in self.gpus:
            alike.setdefault(gpu.gfx or gpu.compute_capability, []).append(gpu)
        for cards in alike.values():
            if len(cards) >= n:
                yield roomiest(host, cards, n, self.free)

    def teams(self, host: Host, size: int) -> list[Group]:
        """Teams of like cards one after the other: those of each class, and those of all.

        Teams of the lowest compute capability come first. Pinned cards are cut in their order.
        """
        key = ("teams", size)
        if key not in self.made:
            self.made[key] = list(dict.fromkeys(self._teams(host, size)))
        return self.made[key]

    def _teams(self, host: Host, size: int) -> Iterator[Group]:
        if self.pinned:
            if len(self.gpus) % size == 0 and len(self.gpus) > size:
                yield self.indices
            return
        ordered = sorted(self.classes, key=_age)
        made = [
            teams(host, cards, size, len(cards) // size, self.free)
            for cards in ordered
            if len(cards) >= size
        ]
        together = tuple(index for group in made for index in group)
        for group in (together, *made):
            if len(group) > size:
                yield group


def _age(cards: tuple[Gpu, ...]) -> tuple[object, ...]:
    return cards[0].compute_capability or (0, 0), cards[0].memory_mib or 0


def seats(host: Host, wish: Wish) -> tuple[Seats, ...]:
    """The cards to plan with, one part per vendor; the vendor with more of them first."""
    known = memo(host)
    key = ("seats", wish.gpus, wish.name)
    if key not in known:
        gpus = pool(host, wish.gpus)
        parts = [
            _part(tuple(g for g in gpus if g.vendor is vendor), wish)
            for vendor in dict.fromkeys(gpu.vendor for gpu in gpus)
        ]
        known[key] = tuple(sorted(parts, key=lambda part: -len(part.gpus)))
    found: tuple[Seats, ...] = known[key]
    return found


def _part(gpus: tuple[Gpu, ...], wish: Wish) -> Seats:
    free = {gpu.index: free_mib(gpu, wish) for gpu in gpus}
    return Seats(gpus, classes(gpus), free, wish.gpus is not None)
