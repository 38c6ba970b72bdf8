"""Places of cards follow from what they are and how they are joined, not from their numbers."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.device_order import places
from multigpu.groups import by_capability, teams
from multigpu.hardware import Gpu, GpuPair, Host, P2p, Path
from multigpu.memo import changed, memo
from tests.machines import H100, RTX_3060, RTX_3090, host


def joined(bridges: set[frozenset[int]], count: int = 4) -> Host:
    """Like cards, bridges between some, all over PHB."""
    pairs = tuple(
        GpuPair(a, b, Path.PHB, 4 if frozenset((a, b)) in bridges else 0, P2p.OK)
        for a, b in combinations(range(count), 2)
    )
    return Host("tower", gpus=tuple(replace(RTX_3090, index=i) for i in range(count)), pairs=pairs)


def test_unlike_cards_are_ordered_by_capability_and_memory_wherever_they_sit() -> None:
    for cards in ((RTX_3060, RTX_3090, H100), (H100, RTX_3060, RTX_3090)):
        machine = host(*cards)
        order = by_capability(machine, (0, 1, 2))
        assert [machine.gpu(i).name for i in order] == [c.name for c in (RTX_3060, RTX_3090, H100)]


def test_bridged_cards_follow_each_other() -> None:
    across = joined({frozenset((0, 2)), frozenset((1, 3))})
    assert by_capability(across, (0, 1, 2, 3)) in {(0, 2, 1, 3), (1, 3, 0, 2)}
    assert teams(across, across.gpus, 2, 2) == (0, 2, 1, 3)


def test_cards_that_nothing_tells_apart_keep_their_numbers() -> None:
    assert places(joined(set())) == {0: 0, 1: 1, 2: 2, 3: 3}


def test_a_host_without_cards_or_links_has_places() -> None:
    assert places(Host("tower")) == {}
    assert places(Host("tower", gpus=(Gpu(3), Gpu(5)))) == {3: 0, 5: 1}


@given(st.permutations(range(6)), st.permutations(range(6)), st.integers(0, 3))
def test_the_links_along_the_places_do_not_depend_on_numbers(
    one: list[int], other: list[int], bridges: int
) -> None:
    """The same number of bridges, each card having at most one, between any slots."""

    def along(slots: list[int]) -> list[bool]:
        edges = {frozenset(slots[2 * i : 2 * i + 2]) for i in range(bridges)}
        ranked = by_capability(joined(edges, 6), tuple(range(6)))
        return [frozenset(pair) in edges for pair in combinations(ranked, 2)]

    assert along(one) == along(other)


def test_a_changed_value_has_the_new_fields_and_forgets_what_was_derived() -> None:
    memo(RTX_3090)["kept"] = 1
    card = changed(RTX_3090, memory_mib=1)
    assert card == replace(RTX_3090, memory_mib=1) and "kept" not in memo(card)
    with pytest.raises(TypeError, match="has no"):
        changed(RTX_3090, memory=1)
