"""Bandwidth tests of real machines: what is known of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from multigpu.parse.nccl import nccl_log, nccl_tests, nvbandwidth, p2p_bandwidth
from multigpu.parse.nccl.nccl_test_values import NcclTest
from multigpu.parse.nccl.nvbandwidth_values import Nvbandwidth
from multigpu.parse.nccl.p2p_bandwidth import Measure, P2pBandwidth
from multigpu.parse.reading import Kind

KINDS = (*nccl_log.KINDS, *nccl_tests.KINDS, *nvbandwidth.KINDS, *p2p_bandwidth.KINDS)


def _read(path: Path, name: str) -> object:
    text = path.read_text(encoding="utf-8")

    def sure(kind: Kind) -> float:
        return kind.recognise(text)

    kind = max(KINDS, key=sure)
    assert kind.name == name
    return kind.read(text).value


def _tests(path: Path) -> tuple[NcclTest, ...]:
    found = _read(path, "nccl-tests")
    assert isinstance(found, tuple)
    return found


def _p2p(path: Path) -> P2pBandwidth:
    found = _read(path, "p2p-bandwidth-latency")
    assert isinstance(found, P2pBandwidth)
    return found


def eight_a100(path: Path) -> None:
    (test,) = _tests(path)
    assert len(test.ranks) == 8 and {r.name for r in test.ranks} == {"A100-SXM4-40GB"}
    assert test.avg_busbw_gb_s == 68.4048 and test.out_of_bounds == 0
    assert {row.root for row in test.rows} == {None}  # old columns
    assert len(test.rows) == 34  # the NCCL INFO line in the table costs none
    assert test.wrong is None  # the error column says N/A
    assert test.peak is not None and test.peak.size_bytes == 8 << 30
    assert test.peak.busbw_gb_s == 235.26


def two_2080ti(path: Path) -> None:
    tests = _tests(path)
    first, *others = tests
    assert (first.collective, first.avg_busbw_gb_s) == ("all_reduce", 2.05774)
    assert first.peak is not None and first.peak.size_bytes == 1 << 30
    assert first.peak.busbw_gb_s == 4.0
    names = ["all_gather", "broadcast", "reduce", "reduce", "alltoall"]
    assert [test.collective for test in others] == names
    assert len({test.collective for test in tests}) == 5
    assert all(len(test.rows) == 28 and test.wrong == 0 for test in tests)
    alone = tests[4]
    assert len(alone.ranks) == 1 and alone.peak is None  # one card: no link was used
    assert [rank.pci_bus_id for rank in first.ranks] == ["0000:b4:00.0", "0000:b5:00.0"]


def _mi300x(path: Path) -> NcclTest:
    (test,) = _tests(path)
    assert {rank.name for rank in test.ranks} == {"AMD Instinct MI300X"}
    assert test.collective == "all_reduce" and test.wrong is None
    return test


def eight_mi300x(path: Path) -> None:
    test = _mi300x(path)
    assert len(test.ranks) == 8 and len(test.rows) == 5
    assert [rank.pci_bus for rank in test.ranks] == list(range(0xC0, 0xC8))
    assert test.rows[0].out_of_place is not None
    assert test.rows[0].out_of_place.busbw_gb_s == 0.14
    assert test.avg_busbw_gb_s == 234.7
    assert test.peak is not None and test.peak.busbw_gb_s == 440.64


def slow_mi300x(path: Path) -> None:
    test = _mi300x(path)
    assert len(test.rows) == 3 and test.avg_busbw_gb_s == 173.7 and test.failures == ()
    assert test.peak is not None and test.peak.busbw_gb_s == 173.34


def refused_2080ti(path: Path) -> None:
    run = _p2p(path)
    assert run.access == ((0, 1, False), (1, 0, False))
    # The matrix alone says the same as the sentences above it.
    matrix = path.read_text(encoding="utf-8").partition("P2P Connectivity Matrix")
    assert p2p_bandwidth.read_p2p_bandwidth("".join(matrix[1:])).value.access == run.access
    for enabled in (False, True):
        there, back = (run.cell(Measure.UNIDIRECTIONAL, enabled, a, 1 - a) for a in (0, 1))
        assert (there, back) == ((5.72, 5.72) if enabled else (5.71, 5.70))
    assert run.cell(Measure.BIDIRECTIONAL, False, 0, 1) == 6.12
    assert run.cell(Measure.BIDIRECTIONAL, True, 0, 1) == 6.10
    assert run.enabled_repeats_disabled(0, 1) is True
    assert run.cell(Measure.LATENCY_GPU, False, 1, 0) == 13.95


def eight_a100_excerpt(path: Path) -> None:
    (table,) = _p2p(path).matrices
    assert (table.measure, table.p2p_enabled) == (Measure.UNIDIRECTIONAL, True)
    assert table.transfer == "writes" and len(table.cells) == 8
    links = [cell for row in table.cells for cell in row if cell is not None]
    assert len(links) == 56 and all(270 < cell < 277 for cell in links)
    assert all(table.cells[i][i] is None for i in range(8))
    assert len(table.local) == 8
    assert all(cell is not None and 1540 < cell < 1600 for cell in table.local)


def four_rtx6000ada(path: Path) -> None:
    run = _p2p(path)
    assert len(run.devices) == 4 and len(run.access) == 12
    assert all(granted for _, _, granted in run.access)
    assert all(len(t.cells) == 4 and all(len(r) == 4 for r in t.cells) for t in run.matrices)
    assert len(run.matrices) == 8
    assert [d.pci_bus_id[5:7] for d in run.devices] == ["01", "41", "c1", "e1"]
    assert run.enabled_repeats_disabled(0, 3) is False


def two_rtx6000ada(path: Path) -> None:
    run = _p2p(path)
    assert run.can_access(0, 1) is True and run.can_access(1, 0) is True
    assert run.cell(Measure.UNIDIRECTIONAL, False, 0, 1) == 22.23
    assert run.cell(Measure.UNIDIRECTIONAL, True, 0, 1) == 26.32
    assert run.enabled_repeats_disabled(0, 1) is False


def gh200(path: Path) -> None:
    run = _read(path, "nvbandwidth")
    assert isinstance(run, Nvbandwidth)
    assert run.version == "v0.6" and run.driver_version == "550.54.15"
    assert [test.total for test in run.tests[:4]] == [1985.60, 607.26, 176.92, 187.26]
    assert len(run.tests[0].cells) == 2 and len(run.tests[0].cells[0]) == 3
    assert len(run.devices) == 1 and run.devices[0].pci_bus_id == "0009:01:00.0"
    assert run.devices[0].name == "NVIDIA GH200 480GB"
    latency = run.test("host_device_latency_sm")
    assert latency is not None and (latency.unit, latency.total) == ("ns", 772.58)
    assert run.waived == 17


TRUTH: dict[str, Callable[[Path], None]] = {
    "e_bandwidth/nccl_allreduce_8x_a100_oldformat.log": eight_a100,
    "e_bandwidth/nvbandwidth_v0.6_gh200_edited.log": gh200,
    "e_bandwidth/p2pbw_2x_2080ti_no_p2p.txt": refused_2080ti,
    "e_bandwidth/nccl_tests_2x_2080ti.txt": two_2080ti,
    "e_bandwidth/p2pbw_8x_a100_excerpt.txt": eight_a100_excerpt,
    "e_bandwidth/rccl_allreduce_8x_mi300x_pass_fixture.log": eight_mi300x,
    "e_bandwidth/p2pbw_4x_rtx6000ada_sys.txt": four_rtx6000ada,
    "e_bandwidth/p2pbw_2x_rtx6000ada_p2p_ok.txt": two_rtx6000ada,
    "e_bandwidth/rccl_allreduce_below_threshold_fixture.log": slow_mi300x,
}
