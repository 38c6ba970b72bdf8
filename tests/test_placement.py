"""llama.cpp's placement formula and the choice of contiguous counts."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.placement import counts, device_of_unit, even, partition


def test_a_ratio_is_not_a_layer_ratio() -> None:
    """Run with llama-server 0.5.0-dev: `-ts 3,1` puts all 4 layers on device 0."""
    assert device_of_unit((3, 1), 5) == (0, 0, 0, 0, 1)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_unit_counts_come_back_exactly(split: list[int]) -> None:
    assert counts(device_of_unit(split, sum(split)), len(split)) == tuple(split)


@given(
    st.lists(st.floats(0.5, 50), min_size=3, max_size=9),
    st.lists(st.floats(1, 100), min_size=1, max_size=3),
    st.floats(0, 20),
    st.floats(0, 20),
)
def test_no_other_partition_has_a_smaller_worst_share(
    units: list[float], budgets: list[float], first: float, last: float
) -> None:
    def worst(chosen: tuple[int, ...]) -> float:
        shares, start = [], 0
        for card, n in enumerate(chosen):
            size = sum(units[start : start + n])
            size += (first if card == 0 else 0) + (last if card == len(chosen) - 1 else 0)
            shares.append(size / budgets[card])
            start += n
        return max(shares)

    found = partition(units, budgets, first=first, last=last)
    assert found is not None and sum(found) == len(units) and min(found) >= 1
    cuts = combinations(range(1, len(units)), len(budgets) - 1)
    ways = [
        tuple(b - a for a, b in zip((0, *cut), (*cut, len(units)), strict=True)) for cut in cuts
    ]
    assert worst(found) == pytest.approx(min(worst(way) for way in ways))


def test_a_larger_card_gets_more_layers() -> None:
    assert partition([1.0] * 30, [20.0, 10.0]) == (20, 10)


def test_the_output_layer_takes_room_on_the_last_card() -> None:
    assert partition([1.0] * 30, [20.0, 20.0], last=6.0) == (18, 12)


@pytest.mark.parametrize(("units", "budgets"), [([1.0], [9.0, 9.0]), ([1.0] * 4, [9.0, 0.0])])
def test_there_is_no_partition_for_too_few_units_or_no_room(
    units: list[float], budgets: list[float]
) -> None:
    assert partition(units, budgets) is None


def test_vllm_gives_the_remainder_to_the_stages_before_the_last() -> None:
    assert even(61, 4) == (15, 15, 16, 15)
    assert even(32, 2) == (16, 16)
    assert even(11, 4) == (3, 3, 3, 2)
