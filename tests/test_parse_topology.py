"""Matrices and NVLink listings as the tools print and people paste them."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.hardware import Gpu, GpuPair, Host, P2p, Path
from multigpu.parse.nvidia_smi.nvlink import Nvlinks, read_nvlink_status
from multigpu.parse.nvidia_smi.topology import (
    KINDS,
    Topology,
    read_matrix,
    read_nvlink,
    read_pairs,
    read_topologies,
)
from tests.rigs.dialect import Dialect
from tests.rigs.strategies import dialects, nvidia_hosts
from tests.rigs.topology import nvlink_s, peer_access, topo


def test_a_good_topology_does_not_imply_peer_access() -> None:
    paths = "        GPU0    GPU1    CPU Affinity\nGPU0     X      PIX     0-23\nGPU1    PIX      X"
    grants = "        GPU0    GPU1\n GPU0   X       NS\n GPU1   NS      X\n"
    assert read_pairs(paths, "", grants, "") == (GpuPair(0, 1, Path.PIX, 0, P2p.NOT_SUPPORTED),)


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


def test_two_matrices_in_one_text_are_told_apart() -> None:
    text = (
        "root@rig:~# nvidia-smi topo -m\n        GPU0    GPU1    CPU Affinity    NUMA Affinity\n"
        "GPU0     X      PHB     0-11            N/A\nGPU1    PHB      X      0-11            N/A\n"
        "root@rig:~# nvidia-smi topo -p2p w\n        GPU0    GPU1\n GPU0   X       CNS\n"
        " GPU1   CNS     X\n"
    )
    paths, grants = read_topologies(text).value
    assert (paths.asked, paths.cells[0, 1], paths.grants) == ("-m", "PHB", False)
    assert (grants.asked, grants.cells[0, 1], grants.grants) == ("-p2p w", "CNS", True)


def test_network_cards_go_by_the_names_of_the_legend() -> None:
    text = "\tGPU0\tNIC0\nGPU0\t X \tPHB\nNIC0\tPHB\t X \n\nNIC Legend:\n\n  NIC0: mlx5_bond_0\n"
    (topology,) = read_topologies(text).value
    assert (topology.nics, topology.nic_cells) == (("mlx5_bond_0",), {(0, "mlx5_bond_0"): "PHB"})


@pytest.mark.parametrize(
    ("sides", "cpu", "numa"),
    [
        ("0-7\t0\t\tN/A", "0-7", "0"),
        ("0-51,104-155\t0\t\tN/A", "0-51,104-155", "0"),
        ("\t\t\tN/A", None, None),
        ("0\t0-1\t\tN/A", "0", "0-1"),
        ("\t1\t\tN/A", None, "1"),
        ("0-7\t\t\tN/A", "0-7", None),
    ],
)
def test_an_empty_field_between_tabs_is_padding_or_an_unknown_affinity(
    sides: str, cpu: str | None, numa: str | None
) -> None:
    text = f"\tGPU0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\nGPU0\t X \t{sides}\n"
    (topology,) = read_topologies(text).value
    assert (topology.cpu_affinity[0], topology.numa_affinity[0]) == (cpu, numa)


def test_words_that_a_program_glued_together_keep_their_columns() -> None:
    (matrix,) = read_topologies(
        "        GPU0    GPU1    NIC0    NIC1    NIC2    CPU Affinity    NUMA Affinity\n"
        "GPU0     X      NV18    NODENODEPIX     0-55,112-167    0\n"
        "GPU1    NV18     X      SYS     PXBSYS     0-55,112-167    1\n"
    ).value[:1]
    assert [matrix.nic_cells[0, f"NIC{n}"] for n in range(3)] == ["NODE", "NODE", "PIX"]
    assert [matrix.nic_cells[1, f"NIC{n}"] for n in range(3)] == ["SYS", "PXB", "SYS"]
    assert matrix.cpu_affinity[1] == "0-55,112-167" and matrix.numa_affinity[1] == "1"


def test_a_header_that_stands_behind_its_command_is_the_header() -> None:
    (matrix,) = read_topologies(
        "$ nvidia-smi topo -m                   GPU0    GPU1    CPU Affinity    NUMA Affinity\n"
        "GPU0     X      PHB     0-23    0\n"
        "GPU1    PHB      X      0-23    0\n"
    ).value
    assert (matrix.asked, matrix.cells) == ("-m", {(0, 1): "PHB", (1, 0): "PHB"})
    assert matrix.cpu_affinity[1] == "0-23"


def test_a_lone_number_of_a_pasted_row_is_nobodys_affinity() -> None:
    text = "      GPU0  CPU Affinity  NUMA Affinity\nGPU0   X                  3\n"
    (topology,) = read_topologies(text).value
    assert (topology.cpu_affinity[0], topology.numa_affinity[0]) == (None, None)


def test_a_card_that_is_lost_does_not_hide_the_others() -> None:
    text = "\tGPU0\tGPU1\tGPU2\nGPU0\t X \tERR!\tPHB\nGPU1\tERR!\t X \tERR!\nGPU2\tPHB\tERR!\t X \n"
    assert read_matrix(text) == {(0, 2): "PHB", (2, 0): "PHB"}


def test_a_cut_matrix_keeps_the_cells_that_came() -> None:
    text = "\tGPU0\tGPU1\tGPU2\nGPU0\t X \tNV4\tNV4\nGPU1\tNV4"
    (topology,) = read_topologies(text).value
    assert topology.gpus == (0, 1, 2)
    assert topology.cells == {(0, 1): "NV4", (0, 2): "NV4", (1, 0): "NV4"}


def test_the_grant_to_write_is_kept_apart_from_the_grant_to_read() -> None:
    read = " \tGPU0\tGPU1\t\n GPU0\tX\tOK\t\n GPU1\tOK\tX\t\n"
    (pair,) = read_pairs("", "", read, "", read.replace("OK", "TNS"))
    assert (pair.p2p_read, pair.p2p_write) == (P2p.OK, P2p.TOPOLOGY_NOT_SUPPORTED)


@pytest.mark.parametrize(
    "sentence",
    [
        "Device does not have or support Nvlink",
        "Unable to retrieve NVLink information as all links are inActive",
        "Nvlink queries are not supported for Devices in MIG mode",
    ],
)
def test_a_refusal_is_kept_in_the_tools_words(sentence: str) -> None:
    reading = read_nvlink_status(f"GPU 0: H100 (UUID: GPU-1)\n{sentence}\n")
    assert reading.value == (Nvlinks(0, "GPU-1", "H100", (), sentence),)
    assert reading.unread == ()


def test_an_inactive_link_keeps_its_place() -> None:
    text = "GPU 0: RTX 3090 (UUID: GPU-1)\n\t Link 0: <inactive>\n\t Link 1: 14.062 GB/s\n"
    assert read_nvlink_status(text).value[0].gb_s == (None, 14.062)


def test_a_rate_that_is_no_rate_stays_unread() -> None:
    reading = read_nvlink_status("GPU 0: A100 (UUID: GPU-1)\n\t Link 0: 25 MB/s\n")
    assert reading.value[0].gb_s == ()
    assert [line.text for line in reading.unread] == ["\t Link 0: 25 MB/s"]


def placed(host: Host) -> Host:
    """The host with affinities, as the tools print them."""
    gpus = tuple(
        replace(gpu, cpu_affinity="0-51,104-155" if gpu.index % 2 else "0-7", numa_node=gpu.index)
        for gpu in host.gpus
    )
    return replace(host, gpus=gpus)


def nvlinks_of(gpu: Gpu) -> tuple[float | None, ...]:
    """What `nvlink -s` prints: nothing in MIG mode and when every link is inactive."""
    return () if gpu.mig or not any(gpu.nvlinks_gb_s) else gpu.nvlinks_gb_s


def cell(host: Host, a: int, b: int, pcie: bool) -> str:
    pair = host.pair(a, b)
    assert pair is not None and pair.path is not None
    return pair.path.value if pcie or not pair.nvlinks else f"NV{pair.nvlinks}"


@given(nvidia_hosts(), dialects(), st.booleans())
def test_a_matrix_is_read_as_it_was_before_it_was_printed(
    bare: Host, dialect: Dialect, pcie: bool
) -> None:
    host = placed(bare)
    reading = read_topologies(topo(host, dialect, pcie))
    (topology,) = reading.value
    indices = tuple(gpu.index for gpu in host.gpus)
    numa = {gpu.index: str(gpu.numa_node) for gpu in host.gpus}
    assert topology == Topology(
        gpus=indices,
        cells={(a, b): cell(host, a, b, pcie) for a, b in permutations(indices, 2)},
        nics=host.nics,
        nic_cells={(index, nic): "NODE" for index in indices for nic in host.nics},
        cpu_affinity={gpu.index: gpu.cpu_affinity for gpu in host.gpus},
        numa_affinity=numa if dialect.branch >= 450 else {},
        gpu_numa_id=dict.fromkeys(indices) if dialect.branch >= 530 else {},
    )
    assert reading.unread == ()


@given(nvidia_hosts(), dialects())
def test_pairs_are_read_as_they_were_before_they_were_printed(host: Host, dialect: Dialect) -> None:
    pairs = read_pairs(
        topo(host, dialect),
        topo(host, dialect, pcie=True),
        peer_access(host, dialect, "r"),
        nvlink_s(replace(host, gpus=tuple(replace(gpu, mig=None) for gpu in host.gpus)), dialect),
        peer_access(host, dialect, "w"),
    )
    assert pairs == host.pairs


@given(nvidia_hosts(), dialects(), st.data())
def test_links_are_read_as_they_were_before_they_were_printed(
    host: Host, dialect: Dialect, data: st.DataObject
) -> None:
    rates = st.lists(st.sampled_from([None, 14.062, 25.0, 26.562]), max_size=18).map(tuple)
    gpus = tuple(replace(gpu, nvlinks_gb_s=data.draw(rates)) for gpu in host.gpus)
    reading = read_nvlink_status(nvlink_s(replace(host, gpus=gpus), dialect))
    assert [(g.index, g.uuid, g.name, g.gb_s) for g in reading.value] == [
        (gpu.index, gpu.uuid, gpu.name, nvlinks_of(gpu)) for gpu in gpus
    ]
    assert reading.unread == ()


@given(nvidia_hosts(), dialects(), st.sampled_from(["-m", "-mp", "-p2p", "nvlink"]))
def test_each_listing_is_taken_for_what_it_is(host: Host, dialect: Dialect, which: str) -> None:
    bonded = replace(host, gpus=tuple(replace(g, mig=None) for g in host.gpus))
    text, expected = {
        "-m": (topo(bonded, dialect), "nvidia-smi-topo-m"),
        "-mp": (topo(bonded, dialect, pcie=True), "nvidia-smi-topo-mp"),
        "-p2p": (peer_access(bonded, dialect, "r"), "nvidia-smi-topo-p2p"),
        "nvlink": (nvlink_s(bonded, dialect), "nvidia-smi-nvlink-s"),
    }[which]
    assert [kind.name for kind in KINDS if kind.recognise(text) > 0.5] == [expected]


@pytest.mark.parametrize(
    ("piece", "expected"),
    [
        ("GPU0     X      PHB     0-11            N/A\n", "nvidia-smi-topo-m"),
        ("  PXB  = Connection traversing multiple PCIe bridges\n", "nvidia-smi-topo-m"),
        ("  CNS  = Chipset not supported\n", "nvidia-smi-topo-p2p"),
        ("\t Link 3: 26.562 GB/s\n\t Link 4: 26.562 GB/s\n", "nvidia-smi-nvlink-s"),
    ],
)
def test_a_piece_without_its_header_is_known_but_not_read(piece: str, expected: str) -> None:
    (kind,) = [kind for kind in KINDS if kind.recognise(piece) > 0.5]
    assert kind.name == expected
    assert kind.read(piece).value == ()


def test_peer_access_of_a_lone_card_is_no_topology() -> None:
    text = peer_access(Host("rig", gpus=(Gpu(0),)), Dialect(), "r")
    assert [kind.name for kind in KINDS if kind.recognise(text) > 0.5] == ["nvidia-smi-topo-p2p"]


LINES = st.sampled_from(
    ["GPU0", "GPU1", "X", "NV4", "\t", " ", "\n", "NIC0", "CPU Affinity", "Link 0:"]
)


@given(st.lists(LINES | st.text(max_size=5)).map("".join))
def test_no_text_makes_the_readers_crash(text: str) -> None:
    pairs = read_pairs(text, text, text, text, text)
    assert all(pair.a < pair.b for pair in pairs)
    assert all(0 <= kind.recognise(text) <= 1 for kind in KINDS)


def test_a_grant_in_one_direction_only_is_a_refusal() -> None:
    matrix = " \tGPU0\tGPU1\n GPU0\tX\tOK\n GPU1\tCNS\tX\n"
    (pair,) = read_pairs("", "", matrix, "", matrix.replace("OK", "U").replace("CNS", "OK"))
    assert (pair.p2p_read, pair.p2p_write) == (P2p.CHIPSET_NOT_SUPPORTED, P2p.UNKNOWN)
