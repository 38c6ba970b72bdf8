"""Matrices and NVLink listings as the tools print and people paste them."""

from __future__ import annotations

import csv
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.hardware import GpuPair, P2p
from multigpu.hardware import Path as PciePath
from multigpu.parse.topology import read_matrix, read_nvlink, read_pairs

RIGS = Path(__file__).parents[1] / "../shared/rigs"

# What the ground truth of each file says: cards, and the cell of a pair.
MATRICES: dict[str, tuple[int, dict[tuple[int, int], str]]] = {
    "2gpu_nv2_old_columns.txt": (2, {(0, 1): "NV2"}),
    "2gpu_phb_old_columns.txt": (2, {(0, 1): "PHB"}),
    "8x_a100_nv12_compact_spaces.txt": (8, dict.fromkeys(combinations(range(8), 2), "NV12")),
    "2x_rtx4090_node_2nic.txt": (2, {(0, 1): "NODE"}),
    "4x_rtx6000ada_node_sys_4nic.txt": (
        4,
        {
            (0, 1): "NODE",
            (2, 3): "NODE",
            (0, 2): "SYS",
            (0, 3): "SYS",
            (1, 2): "SYS",
            (1, 3): "SYS",
        },
    ),
    "2x_2080ti_pix_and_p2p_p_NS.txt": (2, {(0, 1): "PIX"}),
    "l40s_topo_ansi_1gpu.txt": (1, {}),
    "2x_rtx6000ada_phb_2nic.txt": (2, {(0, 1): "PHB"}),
    "8x_h100_nv18_threads_ranges.txt": (8, dict.fromkeys(combinations(range(8), 2), "NV18")),
}
NVLINKS = {
    "nvlink_s_8x_a100.txt": dict.fromkeys(range(8), (25.0,) * 12),
    "nvlink_s_1gpu_good.txt": {7: (25.0,) * 12},
    "l40s_nvlink_s_unsupported.txt": {0: ()},
}

here = pytest.mark.skipif(not RIGS.exists(), reason="no captured topologies at hand")


def captured(name: str) -> str:
    return (RIGS / "b_topology" / name).read_text(encoding="utf-8")


@here
def test_every_captured_topology_has_its_ground_truth_here() -> None:
    with (RIGS / "INDEX.tsv").open(encoding="utf-8") as stream:
        rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        files = {row["file"] for row in rows if row["kind"] == "b_topology"}
    assert files == {f"b_topology/{name}" for name in {**MATRICES, **NVLINKS}}


@here
@pytest.mark.parametrize(("name", "expected"), MATRICES.items())
def test_a_captured_matrix_is_read_without_its_network_cards(
    name: str, expected: tuple[int, dict[tuple[int, int], str]]
) -> None:
    cards, cells = expected
    matrix = read_matrix(captured(name))
    assert {pair: cell for pair, cell in matrix.items() if pair[0] < pair[1]} == cells
    assert len(matrix) == cards * (cards - 1)


@here
@pytest.mark.parametrize(("name", "expected"), NVLINKS.items())
def test_a_captured_nvlink_listing_is_read_per_card(
    name: str, expected: dict[int, tuple[float, ...]]
) -> None:
    assert read_nvlink(captured(name)) == expected


@here
def test_a_good_topology_does_not_imply_peer_access() -> None:
    text = captured("2x_2080ti_pix_and_p2p_p_NS.txt")
    topo, _, p2p = text.partition("topo -p2p p\n")
    assert read_pairs(topo, "", p2p, "") == (GpuPair(0, 1, PciePath.PIX, 0, P2p.NOT_SUPPORTED),)


def test_a_matrix_with_tabs_underline_and_empty_fields_is_read() -> None:
    text = (
        "\t\x1b[4mGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m\n"
        "GPU0\t X \tNV4\tSYS\t0-7\t0\t\tN/A\nGPU1\tNV4\t X \tSYS\t\t\t\tN/A\n"
        "NIC0\tSYS\tSYS\t X \t\t\t\t\n"
    )
    assert read_matrix(text) == {(0, 1): "NV4", (1, 0): "NV4"}


def test_only_the_first_of_two_matrices_is_read() -> None:
    text = "  GPU0 GPU1\nGPU0 X PHB\nGPU1 PHB X\n\n  GPU0 GPU1\nGPU0 X OK\nGPU1 OK X\n"
    assert read_matrix(text)[0, 1] == "PHB"


@pytest.mark.parametrize(
    ("cell", "expected"),
    [("OK", P2p.OK), ("CNS", P2p.CHIPSET_NOT_SUPPORTED), ("DR", P2p.DISABLED_BY_REGISTRY)],
)
def test_a_grant_is_read_in_the_tools_own_words(cell: str, expected: P2p) -> None:
    text = f" \tGPU0\tGPU1\t\n GPU0\tX\t{cell}\t\n GPU1\t{cell}\tX\t\n"
    assert read_pairs("", "", text, "")[0].p2p_read is expected


def test_a_word_of_a_later_driver_leaves_the_pair_unknown() -> None:
    text = "  GPU0 GPU1\nGPU0 X QQQ\nGPU1 QQQ X\n"
    assert read_pairs(text, "", text, "") == (GpuPair(0, 1, None, None, None),)


def test_inactive_links_are_no_links() -> None:
    text = "GPU 0: RTX 3090 (UUID: GPU-1)\n\t Link 0: <inactive>\n\t Link 1: 14.062 GB/s\n"
    assert read_nvlink(text) == {0: (14.062,)}


LINES = st.sampled_from(
    ["GPU0", "GPU1", "X", "NV4", "\t", " ", "\n", "NIC0", "CPU Affinity", "Link 0:"]
)


@given(st.lists(LINES | st.text(max_size=5)).map("".join))
def test_no_text_makes_the_readers_crash(text: str) -> None:
    pairs = read_pairs(text, text, text, text)
    assert all(pair.a < pair.b for pair in pairs)
