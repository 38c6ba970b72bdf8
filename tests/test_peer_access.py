"""Islands, and the three answers to "is P2P on?"."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.hardware import Gpu, GpuPair, HopKind, Host, P2p, Path, PcieHop, PcieLink, Vendor
from multigpu.islands import Island, connected, full_mesh, islands, members
from multigpu.parse.capture import read
from multigpu.peer_access import Verdict, groups, peer_access
from multigpu.transport import Transport, transport
from tests.hosts import captured
from tests.rigs.strategies import nvidia_hosts

OK, CNS = P2p.OK, P2p.CHIPSET_NOT_SUPPORTED


def rig(
    count: int,
    *bonded: tuple[int, int],
    grant: P2p | None = OK,
    path: Path | None = Path.PHB,
    processor: str | None = None,
) -> Host:
    """Matched cards whose named pairs have NVLink (and a grant with it)."""
    hop = PcieHop("0000:00:01.0", HopKind.ROOT_PORT, vendor=processor)
    link = PcieLink(hops=(hop,) if processor else ())
    gpus = tuple(Gpu(index, memory_mib=24576, pcie=link) for index in range(count))
    pairs = tuple(
        GpuPair(a, b, path, 4, OK, p2p_write=OK)
        if (a, b) in bonded
        else GpuPair(a, b, path, 0, grant, p2p_write=grant)
        for a, b in combinations(range(count), 2)
    )
    return Host("rig", gpus=gpus, pairs=pairs)


def amd(count: int, gfx: str | None, xgmi: int) -> Host:
    gpus = tuple(
        Gpu(index, memory_mib=196592, vendor=Vendor.AMD, gfx=gfx) for index in range(count)
    )
    pairs = tuple(
        GpuPair(a, b, Path.SYS, p2p_read=OK, xgmi_links=xgmi)
        for a, b in combinations(range(count), 2)
    )
    return Host("rig", gpus=gpus, pairs=pairs)


# --- islands ------------------------------------------------------------------------------------


def test_two_bridges_make_two_islands() -> None:
    found = islands(rig(4, (0, 1), (2, 3)))
    assert found == (Island((0, 1), "NVLink", True), Island((2, 3), "NVLink", True))


def test_an_island_without_a_link_between_every_pair_is_no_full_mesh() -> None:
    assert islands(rig(3, (0, 1), (1, 2))) == (Island((0, 1, 2), "NVLink", False),)


def test_xgmi_makes_islands_too() -> None:
    assert islands(amd(4, "gfx942", 1)) == (Island((0, 1, 2, 3), "XGMI", True),)


def test_cards_without_links_are_in_no_island() -> None:
    assert islands(rig(4)) == ()


def test_a_lost_card_is_in_no_island() -> None:
    host = rig(2, (0, 1))
    lost = replace(host.gpus[1], error="GPU is lost")
    assert islands(replace(host, gpus=(host.gpus[0], lost))) == ()


def test_a_full_mesh_is_unknown_while_no_link_was_counted() -> None:
    assert full_mesh(rig(3, (0, 1), (0, 2), (1, 2)), (0, 1, 2)) is True
    assert full_mesh(rig(3, (0, 1)), (0, 1, 2)) is False
    assert full_mesh(Host("rig", gpus=rig(3).gpus), (0, 1, 2)) is None


def test_members_are_written_like_a_list_of_processors() -> None:
    assert members((0, 1, 2, 3)) == "0-3"
    assert members((5, 0, 2, 4)) == "0,2,4-5"


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_connected_sets_part_the_cards_and_keep_every_edge(edges: list[tuple[int, int]]) -> None:
    sets = connected(edges)
    cards = [card for found in sets for card in found]
    assert len(cards) == len(set(cards))
    assert all(any(a in s and b in s for s in sets) for a, b in edges)


# --- the driver ---------------------------------------------------------------------------------


def test_a_grant_on_all_pairs_is_a_yes_and_a_refusal_names_its_reason() -> None:
    assert peer_access(rig(2), (0, 1)).driver.verdict is Verdict.YES
    refused = peer_access(rig(2, grant=CNS), (0, 1)).driver
    assert refused.verdict is Verdict.NO
    assert "chipset not supported" in refused.reason


def test_what_was_not_seen_is_no_refusal() -> None:
    answers = peer_access(rig(2, grant=None), (0, 1))
    assert {answers.driver.verdict, answers.nccl.verdict} == {Verdict.UNKNOWN}
    assert answers.custom_all_reduce.verdict is Verdict.UNKNOWN


def test_one_direction_alone_is_no_grant_and_is_named() -> None:
    host = rig(2)
    pair = replace(host.pairs[0], p2p_write=P2p.NOT_SUPPORTED)
    answers = peer_access(replace(host, pairs=(pair,)), (0, 1))
    assert answers.driver.verdict is Verdict.NO
    assert "writing not supported" in answers.driver.reason
    assert answers.nccl.reason.startswith("shared memory")


def test_some_pairs_granted_is_a_partly_that_names_them() -> None:
    answer = peer_access(rig(4, (0, 1), (2, 3), grant=CNS), range(4)).driver
    assert answer.verdict is Verdict.PARTLY
    assert "granted on 0-1, 2-3" in answer.reason


# --- NCCL ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "processor", "count", "expected"),
    [
        (Path.PIX, None, 4, Transport.PCIE),
        (Path.PXB, None, 2, Transport.PCIE),
        (Path.PHB, "0x1022", 2, Transport.PCIE),
        (Path.SYS, "1022", 2, Transport.PCIE),
        (Path.PHB, "0x1022", 4, Transport.SHM),
        (Path.PHB, "0x8086", 2, Transport.SHM),
        (Path.NODE, "0x8086", 2, Transport.SHM),
        (Path.PHB, None, 2, Transport.UNKNOWN),
        (None, "0x1022", 2, Transport.UNKNOWN),
    ],
)
def test_nccl_crosses_host_bridges_only_with_two_cards_on_an_amd_processor(
    path: Path | None, processor: str | None, count: int, expected: Transport
) -> None:
    host = rig(count, path=path, processor=processor)
    assert transport(host, host.pairs[0], range(count)) is expected


def test_nvlink_is_taken_whatever_the_way_under_it() -> None:
    host = rig(2, (0, 1), path=Path.SYS, processor="0x8086")
    assert peer_access(host, (0, 1)).nccl.reason == "P2P over NVLink"


def test_a_third_card_with_nvlink_to_both_is_a_way() -> None:
    host = rig(3, (0, 1), (1, 2), path=Path.SYS)
    assert transport(host, host.pair(0, 2), (0, 1, 2)) is Transport.NVLINK
    assert transport(host, host.pair(0, 2), (0, 2)) is not Transport.NVLINK


def test_a_refused_pair_goes_through_shared_memory() -> None:
    host = rig(2, grant=CNS, path=Path.PIX)
    assert peer_access(host, (0, 1)).nccl.verdict is Verdict.NO


def test_a_grant_that_nccl_does_not_use_by_default_names_the_switch() -> None:
    answer = peer_access(rig(4, path=Path.PHB), range(4)).nccl
    assert answer.verdict is Verdict.NO
    assert "NCCL_P2P_LEVEL" in answer.reason


def test_no_collective_spans_two_vendors() -> None:
    host = rig(2)
    radeon = replace(host.gpus[1], vendor=Vendor.AMD)
    answers = peer_access(replace(host, gpus=(host.gpus[0], radeon)), (0, 1))
    assert answers.nccl.verdict is Verdict.NO
    assert answers.custom_all_reduce.verdict is Verdict.BY_DESIGN


# --- vLLM's custom all-reduce --------------------------------------------------------------------


def test_two_cards_need_only_the_grant() -> None:
    assert peer_access(rig(2), (0, 1)).custom_all_reduce.verdict is Verdict.YES
    assert peer_access(rig(2, grant=CNS), (0, 1)).custom_all_reduce.verdict is Verdict.NO


@pytest.mark.parametrize("count", [3, 5, 7])
def test_an_odd_number_of_cards_is_off_by_design(count: int) -> None:
    everyone = tuple(combinations(range(count), 2))
    answer = peer_access(rig(count, *everyone), range(count)).custom_all_reduce
    assert answer.verdict is Verdict.BY_DESIGN


def test_four_cards_over_pcie_are_off_by_design_and_over_a_full_mesh_on() -> None:
    everyone = tuple(combinations(range(4), 2))
    assert peer_access(rig(4), range(4)).custom_all_reduce.verdict is Verdict.BY_DESIGN
    assert peer_access(rig(4, *everyone), range(4)).custom_all_reduce.verdict is Verdict.YES
    bridged = rig(4, (0, 1), (2, 3))
    assert peer_access(bridged, range(4)).custom_all_reduce.verdict is Verdict.BY_DESIGN
    assert peer_access(bridged, (2, 3)).custom_all_reduce.verdict is Verdict.YES


def test_on_rocm_the_architecture_and_the_mesh_decide() -> None:
    assert peer_access(amd(8, "gfx942", 1), range(8)).custom_all_reduce.verdict is Verdict.YES
    assert peer_access(amd(8, "gfx942", 1), range(8)).nccl.reason == "P2P over XGMI"
    assert peer_access(amd(4, "gfx942", 0), range(4)).custom_all_reduce.verdict is Verdict.BY_DESIGN
    assert peer_access(amd(2, "gfx1100", 0), (0, 1)).custom_all_reduce.verdict is Verdict.BY_DESIGN
    assert peer_access(amd(2, None, 0), (0, 1)).custom_all_reduce.verdict is Verdict.UNKNOWN


# --- groups -------------------------------------------------------------------------------------


def test_groups_are_all_cards_and_each_smaller_island() -> None:
    assert groups(rig(4, (0, 1), (2, 3))) == ((0, 1, 2, 3), (0, 1), (2, 3))
    assert groups(rig(2, (0, 1))) == ((0, 1),)
    assert groups(rig(1)) == ()


def test_a_single_card_has_no_peer() -> None:
    with pytest.raises(ValueError):
        peer_access(rig(1), (0,))


@given(nvidia_hosts())
def test_every_random_machine_has_three_answers_for_each_group(host: Host) -> None:
    for group in groups(host):
        answers = peer_access(host, group)
        for answer in (answers.driver, answers.nccl, answers.custom_all_reduce):
            assert answer.reason
        if answers.custom_all_reduce.verdict is Verdict.YES and len(group) > 2:
            assert full_mesh(host, group)
        if answers.driver.verdict is Verdict.NO:
            assert answers.custom_all_reduce.verdict is not Verdict.YES


def test_a_grant_in_one_direction_leaves_custom_all_reduce_unknown() -> None:
    host = read(captured("2x3090-nvlink"), "rig")
    pair = replace(host.pairs[0], p2p_write=P2p.CHIPSET_NOT_SUPPORTED)
    answer = peer_access(replace(host, pairs=(pair,)), (0, 1)).custom_all_reduce
    assert (answer.verdict, answer.reason) == (Verdict.UNKNOWN, "granted in one direction only")
