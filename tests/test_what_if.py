"""Hosts as a person writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.errors import MultigpuError, WishError
from multigpu.gpus.gpu_data import models
from multigpu.gpus.what_if import MOST_CARDS, host
from multigpu.hardware import Host, P2p, Path, Vendor


def names(found: Host) -> list[str]:
    return [gpu.name or "" for gpu in found.gpus]


@pytest.mark.parametrize(
    ("text", "cards"),
    [
        ("RTX 3090", ["RTX 3090"]),
        ("2x RTX 3090", ["RTX 3090"] * 2),
        ("2×3090", ["RTX 3090"] * 2),
        ("2 RTX 3090", ["RTX 3090"] * 2),
        ("RTX 4090 + RTX 3090", ["RTX 4090", "RTX 3090"]),
        ("2x RTX 3090 + RTX 3060", ["RTX 3090", "RTX 3090", "RTX 3060"]),
        ("2x RTX 3090, RTX 3060", ["RTX 3090", "RTX 3090", "RTX 3060"]),
    ],
)
def test_cards_come_in_the_order_they_are_written(text: str, cards: list[str]) -> None:
    assert names(host(text)) == [f"NVIDIA GeForce {card}" for card in cards]
    assert [gpu.index for gpu in host(text).gpus] == list(range(len(cards)))


def test_a_host_that_nobody_has_says_so_and_simulates_nothing() -> None:
    found = host("RTX 3090")
    assert (found.name, found.simulated, found.partial) == ("what-if", False, True)


def test_memory_is_that_of_the_card_and_all_of_it_is_free_that_cuda_reports() -> None:
    (card,) = host("RTX 4090").gpus
    assert card.memory_mib == 24564
    assert card.memory_free_mib is not None and 23500 < card.memory_free_mib < 24564


def test_every_card_sits_in_a_slot_as_good_as_itself_unless_told() -> None:
    card, small = host("RTX 5090 + RTX 4060").gpus
    assert (card.pcie.gen_max, card.pcie.width_current) == (5, 16)
    assert (small.pcie.gen_max, small.pcie.width_current) == (4, 8)


@pytest.mark.parametrize(
    ("pcie", "links"),
    [
        ("x8", [(4, 8), (4, 8)]),
        ("x8,x4", [(4, 8), (4, 4)]),
        ("8,4", [(4, 8), (4, 4)]),
        ("8x, 4x", [(4, 8), (4, 4)]),
        ("4.0x8", [(4, 8), (4, 8)]),
        ("gen3 x16", [(3, 16), (3, 16)]),
        ("PCIe 3.0 x4, gen5 x16", [(3, 4), (4, 16)]),
        ("gen3", [(3, 16), (3, 16)]),
    ],
)
def test_slots_are_one_for_all_or_one_each(pcie: str, links: list[tuple[int, int]]) -> None:
    found = host("2x RTX 3090", pcie)
    assert [(gpu.pcie.gen_max, gpu.pcie.width_path) for gpu in found.gpus] == links


@pytest.mark.parametrize("text", ["2x RTX 3090", "RTX 3090 x2", "3090x2", "RTX 3090 x 2 @220W"])
def test_the_count_may_stand_before_or_behind_the_name(text: str) -> None:
    assert [gpu.name for gpu in host(text).gpus] == ["NVIDIA GeForce RTX 3090"] * 2


def test_a_power_cap_stands_behind_the_name() -> None:
    capped, free = host("RTX 3090 @220W + RTX 3090").gpus
    assert (capped.power_limit_w, free.power_limit_w, capped.power_limit_default_w) == (
        220,
        350,
        350,
    )


def test_geforce_cards_have_no_peer_access_until_told() -> None:
    (stock,), (patched,) = host("2x RTX 4090").pairs, host("2x RTX 4090", p2p=True).pairs
    assert (stock.path, stock.p2p_read, stock.bonded) == (Path.PHB, P2p.NOT_SUPPORTED, False)
    assert (patched.p2p_read, patched.p2p_write) == (P2p.OK, P2p.OK)


@pytest.mark.parametrize("card", ["RTX A6000", "L40S", "GTX 1080 Ti", "R9700", "A100 80GB PCIe"])
def test_other_cards_have_peer_access_over_pcie(card: str) -> None:
    (pair,) = host(f"2x {card}").pairs
    assert (pair.p2p_read, pair.bonded) == (P2p.OK, False)


def test_a_bridge_bonds_cards_in_pairs() -> None:
    found = host("4x RTX 3090", nvlink=True)
    bonded = {(pair.a, pair.b): pair for pair in found.pairs if pair.bonded}
    assert set(bonded) == {(0, 1), (2, 3)}
    assert (bonded[0, 1].nvlinks, bonded[0, 1].nvlink_gb_s) == (4, 56.25)
    assert bonded[0, 1].p2p_read is P2p.OK


@pytest.mark.parametrize(
    ("card", "links", "gb_s"), [("h100_sxm", 18, 450), ("A100 40GB", 12, 300), ("B200", 18, 900)]
)
def test_sxm_cards_are_joined_all_to_all_without_being_told(
    card: str, links: int, gb_s: float
) -> None:
    found = host(f"4x {card}")
    assert {(pair.nvlinks, pair.nvlink_gb_s) for pair in found.pairs} == {(links, gb_s)}


def test_instinct_boards_are_joined_by_infinity_fabric() -> None:
    found = host("8x MI300X")
    assert {(pair.xgmi_links, pair.xgmi_gb_s) for pair in found.pairs} == {(1, 64)}
    assert found.gpus[0].vendor is Vendor.AMD


def test_two_sockets_share_the_cards_and_are_far_apart() -> None:
    found = host("4x L40S", numa_nodes=2)
    assert [gpu.numa_node for gpu in found.gpus] == [0, 0, 1, 1]
    assert found.pair(1, 2).path is Path.SYS  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "pcie", "nvlink", "said"),
    [
        ("2x RTX 3909", None, False, "GeForce RTX 3090"),
        ("A100", None, False, "A100-SXM4-80GB"),
        ("", None, False, "names no card"),
        ("2x", None, False, "no GPU data"),
        ("RTX 3090 +", None, False, "names no card"),
        ("0x RTX 3090", None, False, "between 1 and"),
        ("1000x RTX 3090", None, False, "between 1 and"),
        ("RTX 3090 x99", None, False, "between 1 and"),
        (f"1{'0' * 6000}x RTX 3090", None, False, "no GPU data"),
        ("2x RTX 3090", "x8,x8,x8", False, "3 slots for 2 cards"),
        ("2x RTX 3090", "x7", False, "no slot"),
        ("2x RTX 3090", "fast", False, "no slot"),
        ("2x RTX 3090", "", False, "no slot"),
        ("2x RTX 4090", None, True, "has no NVLink"),
        ("RTX 3090 + RTX 3090 Ti", None, True, "bonds cards"),
    ],
)
def test_what_is_not_understood_is_one_line(
    text: str, pcie: str | None, nvlink: bool, said: str
) -> None:
    with pytest.raises(WishError, match=said) as caught:
        host(text, pcie, nvlink=nvlink)
    assert "\n" not in str(caught.value)


NAMES = st.sampled_from([card.name for card in models()])
PARTS = st.builds(lambda n, name: f"{n}x {name}", st.integers(1, 3), NAMES)


@given(
    st.one_of(st.text(max_size=30), st.lists(PARTS, max_size=4).map(" + ".join)),
    st.one_of(st.none(), st.text(max_size=12), st.sampled_from(["x8", "gen3 x4", "4.0x16,x8"])),
    st.booleans(),
    st.sampled_from([None, True, False]),
    st.integers(-1, 4),
)
def test_a_host_comes_out_or_one_line_of_refusal(
    gpus: str, pcie: str | None, nvlink: bool, p2p: bool | None, numa_nodes: int
) -> None:
    try:
        found = host(gpus, pcie, nvlink=nvlink, p2p=p2p, numa_nodes=numa_nodes)
    except MultigpuError as error:
        assert "\n" not in str(error).replace(gpus, "").replace(pcie or "", "")
    else:
        count = len(found.gpus)
        assert 1 <= count <= MOST_CARDS
        assert len(found.pairs) == count * (count - 1) // 2
        assert found.usable == found.gpus
