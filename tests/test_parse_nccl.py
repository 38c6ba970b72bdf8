"""Readers of NCCL logs and of nccl-tests."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.hardware import Gpu
from multigpu.parse.nccl.nccl_log import KINDS, read_nccl_log, transport
from multigpu.parse.nccl.nccl_test_values import NcclTest, NcclTestCell, NcclTestRank, NcclTestRow
from multigpu.parse.nccl.nccl_tests import KINDS as TABLE_KINDS
from multigpu.parse.nccl.nccl_tests import read_nccl_tests
from multigpu.parse.nccl.nccl_values import NcclPair
from tests.rigs import bandwidth, nccl
from tests.rigs.dialect import LAUNCHERS, NCCL, NCCL_TESTS, Dialect

# As written in a channel line -> as the reader names it.
WAYS = {
    "P2P/IPC": "P2P/IPC",
    "P2P/IPC/read": "P2P/IPC/read",
    "P2P/CUMEM/read": "P2P/CUMEM/read",
    "P2P/direct pointer": "P2P/direct pointer",
    "P2P/indirect/3[3]": "P2P/indirect",
    "SHM/direct/direct": "SHM/direct/direct",
    "direct shared memory": "SHM",
    "NET/IB/1": "NET/IB",
    "NET/IB/0(2)/GDRDMA": "NET/IB/GDRDMA",
    "NET/Socket/0": "NET/Socket",
    "NET/AWS Libfabric/0/GDRDMA": "NET/AWS Libfabric/GDRDMA",
    "C2C": "C2C",
}
DIALECTS = st.builds(
    Dialect,
    nccl=st.sampled_from(NCCL),
    rccl=st.booleans(),
    launcher=st.sampled_from(LAUNCHERS),
    nccl_tests=st.sampled_from(NCCL_TESTS),
)
BUSES = st.sampled_from([f"{d:04x}:{b:02x}:00.0" for d in (0, 9) for b in range(1, 250, 7)])


@st.composite
def jobs(draw: st.DrawFn) -> tuple[tuple[Gpu, ...], dict[tuple[int, int], tuple[str, ...]]]:
    """Cards, and the transports between some of their pairs."""
    buses = draw(st.lists(BUSES, min_size=2, max_size=8, unique=True))
    gpus = tuple(Gpu(index, pci_bus_id=bus) for index, bus in enumerate(buses))
    pairs = draw(st.sets(st.sampled_from(list(combinations(range(len(gpus)), 2)))))
    written = st.lists(st.sampled_from(sorted(WAYS)), min_size=1, max_size=4).map(tuple)
    return gpus, {pair: draw(written) for pair in sorted(pairs)}


@given(jobs(), DIALECTS)
def test_every_pair_has_its_transports(
    job: tuple[tuple[Gpu, ...], dict[tuple[int, int], tuple[str, ...]]], dialect: Dialect
) -> None:
    gpus, ways = job
    log = read_nccl_log(nccl.render(gpus, ways, dialect)).value
    addresses = nccl.release(dialect) < (2, 19)
    expected = []
    for (a, b), written in ways.items():
        counts = Counter(WAYS[way] for way in written)
        ends = [gpus[end].pci_bus_id if addresses else str(end) for end in (a, b)]
        expected.append((a, b, {way: 2 * n for way, n in counts.items()}, *ends))
    found = [(p.a, p.b, dict(p.transports), p.device_a, p.device_b) for p in log.pairs]
    assert found == expected
    assert [rank.pci_bus_id for rank in log.ranks] == [gpu.pci_bus_id for gpu in gpus]
    assert [rank.cuda_device for rank in log.ranks] == list(range(len(gpus)))
    assert log.ranks_total == len(gpus) and log.hosts == ("rig-7",)


@given(jobs(), DIALECTS, st.sampled_from(["IB", "Socket", "AWS Libfabric"]), st.integers(1, 32))
def test_what_is_true_of_the_whole_log_is_read(
    job: tuple[tuple[Gpu, ...], dict[tuple[int, int], tuple[str, ...]]],
    dialect: Dialect,
    network: str,
    channels: int,
) -> None:
    gpus, ways = job
    overrides = {"NCCL_P2P_DISABLE": "1", "NCCL_TOPO_DUMP_FILE": "/tmp/a.xml"}
    warnings = ("Call to ibv_modify_qp failed", "Cuda failure 'out of memory'")
    text = nccl.render(
        *(gpus, ways, dialect),
        network=network,
        warnings=warnings,
        overrides=overrides,
        channels=channels,
    )
    log = read_nccl_log(text).value
    library = f"{dialect.nccl}-HEAD:2b22ab0" if dialect.rccl else f"{dialect.nccl}+cuda13.0"
    assert (log.version, log.rccl, log.network) == (library, dialect.rccl, network)
    assert (log.warnings, dict(log.overrides)) == (warnings, overrides)
    assert (log.channels, log.rings, log.trees, log.p2p_channels) == (channels,) * 3 + (16,)
    assert log.nvls is (False if nccl.release(dialect) >= (2, 18) else None)
    assert KINDS[0].recognise(text) >= (0.95 if ways else 0.8)


def test_one_pair_with_two_classes_is_mixed() -> None:
    pair = NcclPair(0, 1, (("P2P/IPC", 4), ("NET/IB/GDRDMA", 2), ("P2P/CUMEM", 1)))
    assert pair.classes == ("P2P", "NET") and pair.verdict == "mixed" and pair.gpu_direct_rdma


def test_the_network_says_nothing_of_how_gpus_talk() -> None:
    line = "rig:1:2 [0] NCCL INFO Using network Socket\n"
    log = read_nccl_log(line).value
    assert (log.network, log.pairs, log.verdict) == ("Socket", (), None)


def test_ranks_of_two_communicators_on_other_cards_are_other_pairs() -> None:
    text = (
        "a:1:2 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM\n"
        "a:1:2 [2] NCCL INFO Channel 00/0 : 0[2] -> 1[3] via SHM/direct/direct\n"
    )
    pairs = read_nccl_log(text).value.pairs
    assert [(p.device_a, p.device_b, p.verdict) for p in pairs] == [
        ("0", "1", "P2P"),
        ("2", "3", "SHM"),
    ]


def test_short_bus_ids_of_virtual_machines_are_addresses() -> None:
    text = (
        "a:1:2 [0] NCCL INFO comm 0x1 rank 0 nranks 2 cudaDev 0 busId 40 - Init COMPLETE\n"
        "a:1:2 [1] NCCL INFO comm 0x1 rank 1 nranks 2 cudaDev 1 busId 50 - Init COMPLETE\n"
        "a:1:2 [0] NCCL INFO Channel 00 : 0[40] -> 1[50] via P2P/IPC\n"
    )
    (pair,) = read_nccl_log(text).value.pairs
    assert (pair.device_a, pair.device_b) == ("0000:00:04.0", "0000:00:05.0")


def test_what_rccl_appends_is_no_part_of_a_transport() -> None:
    assert transport("P2P/IPC comm 0x55b6aa nRanks 02") == "P2P/IPC"
    assert transport("NET/IB/3(1)/GDRDMA/Shared") == "NET/IB/GDRDMA/Shared"


@given(st.text())
def test_any_text_is_read_as_a_log_without_an_error(text: str) -> None:
    assert KINDS[0].recognise(text) <= 1
    read_nccl_log(text)
    read_nccl_log(f"h:1:2 [0] NCCL INFO Channel 00 : 0[{text}] -> 1[{text}] via {text}\n")
    read_nccl_log(f"h:1:2 [0] NCCL INFO comm 0x1 rank 0 nranks 2 cudaDev 0 busId {text}\n")


# nccl-tests


@st.composite
def times(draw: st.DrawFn) -> float:
    """Times with as many digits as the tool prints."""
    value = draw(st.floats(0.01, 900_000))
    return round(value, 2 if value < 99 else 1 if value < 9_990 else 0)


RATES = st.integers(0, 99_999).map(lambda n: n / 100)


@st.composite
def rows(draw: st.DrawFn, dialect: Dialect) -> tuple[NcclTestRow, ...]:
    """Rows of doubling size, checked or not, with or without the in-place half."""
    checked = draw(st.booleans())
    old = dialect.nccl_tests == "2.0"

    def half() -> NcclTestCell:
        cell = NcclTestCell(draw(times()), draw(RATES), draw(RATES))
        if not checked:
            return cell
        if old:
            return replace(cell, error=draw(st.sampled_from([0.0, 5e-07, 1e-06])))
        return replace(cell, wrong=draw(st.sampled_from([0, 0, 3])))

    reduces = draw(st.booleans())
    root = None if old or reduces else draw(st.integers(0, 7))
    return tuple(
        NcclTestRow(
            *(8 << power, 2 << power, draw(st.sampled_from(["float", "half", "bfloat16"]))),
            redop="sum" if reduces else None,
            root=root,
            out_of_place=half(),
            in_place=half(),
        )
        for power in range(draw(st.integers(1, 12)))
    )


@st.composite
def runs(draw: st.DrawFn, dialect: Dialect) -> NcclTest:
    """One run of one collective."""
    count = draw(st.integers(1, 8))
    ranks = tuple(
        NcclTestRank(
            rank=rank,
            host="rig-7",
            pid=4000 + rank,
            device=rank,
            pci_bus_id=None if dialect.nccl_tests == "2.0" else f"0000:{rank + 1:02x}:00.0",
            pci_bus=rank + 1 if dialect.nccl_tests == "2.0" else None,
            name="NVIDIA GeForce RTX 3090",
        )
        for rank in range(count)
    )
    return NcclTest(
        collective=draw(st.sampled_from(["all_reduce", "all_gather", "alltoall", "sendrecv"])),
        n_threads=1,
        n_gpus=count,
        ranks=ranks,
        rows=draw(rows(dialect)),
        out_of_bounds=draw(st.sampled_from([0, 2])),
        avg_busbw_gb_s=draw(RATES),
    )


@given(st.data(), DIALECTS, st.booleans())
def test_tables_are_read_back_with_log_lines_between_and_in_rows(
    data: st.DataObject, dialect: Dialect, interleaved: bool
) -> None:
    tests = tuple(data.draw(st.lists(runs(dialect), min_size=1, max_size=3)))
    text = bandwidth.render_nccl_tests(tests, dialect, interleaved=interleaved)
    assert read_nccl_tests(text).value == tests
    assert TABLE_KINDS[0].recognise(text) == 0.9


@given(st.data(), DIALECTS)
def test_a_cut_table_yields_the_rows_before_the_cut(data: st.DataObject, dialect: Dialect) -> None:
    test = data.draw(runs(dialect))
    text = bandwidth.render_nccl_tests((test,), dialect)
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    found = [row for part in read_nccl_tests(cut).value for row in part.rows]
    assert tuple(found[:-1]) == test.rows[: len(found)][:-1]
    assert len(found) >= cut.count("\n", cut.find("(us)")) - 1 or len(found) == len(test.rows)


def test_the_peak_is_the_row_of_the_largest_size() -> None:
    row = NcclTestRow(8, 2, "float", out_of_place=NcclTestCell(busbw_gb_s=9.0))
    large = NcclTestRow(1 << 30, 2, "float", out_of_place=NcclTestCell(busbw_gb_s=4.0))
    two = (NcclTestRank(0), NcclTestRank(1))
    assert NcclTest(ranks=two, rows=(large, row)).peak == large and large.busbw_gb_s == 4.0
    assert NcclTest(ranks=two[:1], rows=(large,)).peak is None
    assert NcclTest().peak is None and NcclTest(rows=(row,)).wrong is None


def test_rows_without_a_header_are_read() -> None:
    text = "  1024 256 float sum -1 13.21 0.08 0.14 0 12.10 0.08 0.15 7\n"
    (test,) = read_nccl_tests(text).value
    assert test.rows[0].redop == "sum" and test.rows[0].root is None and test.wrong == 7
    assert TABLE_KINDS[0].recognise(text) == 0.8


def test_a_table_that_lost_its_signs_in_markdown_keeps_ranks_and_columns() -> None:
    (run,) = read_nccl_tests(
        " nThread 1 nGpus 2 minBytes 8 maxBytes 8 step: 2(factor) warmup iters: 5\n"
        " Using devices\n"
        "  Rank  0 Group  0 Pid    127 on worker-0 device  0 [0000:1b:00] NVIDIA A10G\n"
        "       size         count    type   redop     time   algbw   busbw  error     time   "
        "algbw   busbw  error\n"
        "           8             2   float     sum    33.50    0.00    0.00  0e+00    32.10    "
        "0.00    0.00  0e+00\n"
        " Avg bus bandwidth    : 0.5\n"
    ).value
    assert (run.n_gpus, run.avg_busbw_gb_s) == (2, 0.5)
    assert [(rank.host, rank.pci_bus_id) for rank in run.ranks] == [("worker-0", "0000:1b:00.0")]
    (row,) = run.rows
    assert row.out_of_place is not None
    assert (row.out_of_place.wrong, row.out_of_place.error) == (None, 0.0)


def test_a_run_that_broke_off_says_why() -> None:
    text = "rig-7: Test NCCL failure common.cu:1005 'unhandled cuda error / '\n"
    assert read_nccl_tests(text).value[0].failures == (text[7:].strip(),)


@given(st.text())
def test_any_text_is_read_as_a_table_without_an_error(text: str) -> None:
    assert TABLE_KINDS[0].recognise(text) <= 1
    read_nccl_tests(text)
    read_nccl_tests(f"# size count type\n 8 2 float sum {text}\n{text}\n 16 4 {text} 1 2 3 4\n")


@pytest.mark.parametrize("read", [read_nccl_log, read_nccl_tests])
def test_a_long_line_is_read_quickly(read: object) -> None:
    assert callable(read)
    start = time.process_time()
    read("a" * 100_000 + " NCCL INFO " + "1:" * 50_000 + "\n" + " 8 2 float " + "1 " * 50_000)
    assert time.process_time() - start < 5
