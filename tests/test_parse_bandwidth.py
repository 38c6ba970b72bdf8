"""Readers of p2pBandwidthLatencyTest and nvbandwidth."""

from __future__ import annotations

import time
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.parse.nccl import nvbandwidth, p2p_bandwidth
from multigpu.parse.nccl.nvbandwidth import read_nvbandwidth
from multigpu.parse.nccl.nvbandwidth_values import Nvbandwidth, NvbandwidthDevice, NvbandwidthTest
from multigpu.parse.nccl.p2p_bandwidth import (
    Measure,
    P2pBandwidth,
    P2pDevice,
    P2pMatrix,
    read_p2p_bandwidth,
)
from multigpu.parse.nccl.pair_matrix import Matrix, off_diagonal
from tests.rigs import bandwidth
from tests.rigs.dialect import NVBANDWIDTH, Dialect

CELLS = st.integers(1, 999_999).map(lambda n: n / 100)
TABLES = {
    "Unidirectional": Measure.UNIDIRECTIONAL,
    "Bidirectional": Measure.BIDIRECTIONAL,
    "Latency": Measure.LATENCY,
    "GPU": Measure.LATENCY_GPU,
    "CPU": Measure.LATENCY_CPU,
}


def squares(size: int) -> st.SearchStrategy[Matrix]:
    row = st.tuples(*[CELLS] * size)
    return st.tuples(*[row] * size)


@st.composite
def p2p_runs(draw: st.DrawFn) -> tuple[P2pBandwidth, str]:
    """A run and what it prints; a latency table of the CPU always follows one of the GPU."""
    size = draw(st.integers(1, 8))
    devices = tuple(
        P2pDevice(i, "NVIDIA GeForce RTX 3090", f"000{i % 2}:{9 * i + 1:02x}:00.0")
        for i in range(size)
    )
    access = tuple((a, b, draw(st.booleans())) for a, b in permutations(range(size), 2))
    written, tables = [], []
    for kind in draw(st.permutations(["Unidirectional", "Bidirectional", "Latency", "GPU"])):
        enabled = draw(st.booleans())
        transfer = draw(st.sampled_from([None, "writes", "reads"]))
        for each in (kind, "CPU") if kind == "GPU" else (kind,):
            cells = draw(squares(size))
            written.append((each, enabled, transfer, cells))
            local = tuple(cells[i][i] for i in range(size))
            measured = TABLES[each]
            tables.append(P2pMatrix(measured, enabled, off_diagonal(cells), transfer, local))
    text = bandwidth.render_p2p(
        [(d.device, d.name, d.pci_bus_id) for d in devices], access, written, Dialect()
    )
    return P2pBandwidth(devices, access, tuple(tables)), text


@given(p2p_runs())
def test_a_run_of_the_cuda_sample_is_read_back(run: tuple[P2pBandwidth, str]) -> None:
    value, text = run
    reading = read_p2p_bandwidth(text)
    assert reading.value == value and reading.unread == ()
    assert p2p_bandwidth.KINDS[0].recognise(text) > 0.9
    assert nvbandwidth.KINDS[0].recognise(text) == 0


@given(p2p_runs(), st.data())
def test_a_cut_run_of_the_cuda_sample_yields_the_tables_before(
    run: tuple[P2pBandwidth, str], data: st.DataObject
) -> None:
    value, text = run
    cut = text[: data.draw(st.integers(0, len(text)))].rpartition("\n")[0]
    found = read_p2p_bandwidth(cut).value
    assert found.matrices[:-1] == value.matrices[: max(0, len(found.matrices) - 1)]
    if "Connectivity" in cut:
        assert found.access == value.access


def test_enabled_that_repeats_disabled_is_told() -> None:
    def run(enabled: float) -> P2pBandwidth:
        tables = (
            P2pMatrix(Measure.UNIDIRECTIONAL, False, ((None, 5.71), (5.70, None))),
            P2pMatrix(Measure.UNIDIRECTIONAL, True, ((None, enabled), (enabled, None))),
        )
        return P2pBandwidth(matrices=tables)

    assert run(5.72).enabled_repeats_disabled(0, 1) is True
    assert run(6.9).enabled_repeats_disabled(0, 1) is False
    assert run(5.72).enabled_repeats_disabled(0, 5) is None
    assert P2pBandwidth().enabled_repeats_disabled(0, 1) is None


def test_access_is_known_from_the_matrix_alone() -> None:
    head = "P2P Connectivity Matrix\n     D\\D     0     1\n"
    text = head + "     0\t     1     0\n     1\t     1     1\n"
    assert read_p2p_bandwidth(text).value.access == ((0, 1, False), (1, 0, True))
    assert p2p_bandwidth.KINDS[0].recognise(text) == 0.9


@st.composite
def nvbandwidth_runs(draw: st.DrawFn) -> Nvbandwidth:
    """A run with some tests waived and an N/A diagonal in those between GPUs."""
    count = draw(st.integers(1, 8))
    tests = []
    for name in draw(
        st.lists(
            st.sampled_from(
                ["host_to_device_memcpy_ce", "device_to_device_memcpy_read_ce", "device_local_copy"]
            ),
            unique=True,
        )
    ):
        if draw(st.booleans()):
            tests.append(NvbandwidthTest(name, "waived"))
            continue
        square = name.startswith("device_to")
        cells = tuple(
            tuple(None if square and a == b else draw(CELLS) for b in range(count))
            for a in range(count if square else 1)
        )
        total = round(sum(c for row in cells for c in row if c is not None), 2)
        words = "memcpy CE GPU(row) -> GPU(column) bandwidth (GB/s)"
        tests.append(NvbandwidthTest(name, "passed", words, "GB/s", cells, total))
    return Nvbandwidth(
        version=draw(st.sampled_from(NVBANDWIDTH)),
        git_version="v0.8-3-gabc",
        cuda_runtime_version=draw(st.sampled_from([12040, 13020])),
        cuda_driver_version=13000,
        driver_version="580.105.08",
        devices=tuple(
            NvbandwidthDevice(i, "NVIDIA H100 80GB HBM3", f"0009:{i + 1:02x}:00.0")
            for i in range(count)
        ),
        tests=tuple(tests),
        waived=sum(test.status == "waived" for test in tests),
    )


@given(nvbandwidth_runs(), st.sampled_from(NVBANDWIDTH))
def test_the_text_of_nvbandwidth_is_read_back(run: Nvbandwidth, release: str) -> None:
    text = bandwidth.render_nvbandwidth(run, Dialect(nvbandwidth=release))
    reading = read_nvbandwidth(text)
    assert reading.value == run and reading.unread == ()
    assert nvbandwidth.KINDS[0].recognise(text) > 0.9
    assert p2p_bandwidth.KINDS[0].recognise(text) == 0


@given(nvbandwidth_runs())
def test_the_json_of_nvbandwidth_is_read_back(run: Nvbandwidth) -> None:
    text = bandwidth.render_nvbandwidth_json(run)
    value = read_nvbandwidth(text).value
    assert [(t.name, t.status) for t in value.tests] == [(t.name, t.status) for t in run.tests]
    for read, test in zip(value.tests, run.tests, strict=True):
        assert (read.unit, read.total) == (test.unit, test.total)
        flat = [cell for row in test.cells for cell in row]
        assert [cell for row in read.cells for cell in row] == [
            cell if cell is None else pytest.approx(cell, rel=1e-5) for cell in flat
        ]
    assert (value.version, value.driver_version) == (run.version, run.driver_version)
    assert (value.cuda_runtime_version, value.waived) == (run.cuda_runtime_version, run.waived)
    assert nvbandwidth.KINDS[0].recognise(text) > 0.9


@given(nvbandwidth_runs(), st.data())
def test_cut_json_yields_the_tests_before_the_cut(run: Nvbandwidth, data: st.DataObject) -> None:
    text = bandwidth.render_nvbandwidth_json(run)
    cut = text[: data.draw(st.integers(0, len(text)))]
    whole = read_nvbandwidth(text).value.tests
    found = read_nvbandwidth(cut).value.tests
    assert [t.name for t in found] == [t.name for t in whole][: len(found)]


def test_bytes_that_arrived_wrong_are_an_error_of_their_test() -> None:
    run = read_nvbandwidth(
        "nvbandwidth Version: v0.7\n"
        "Running device_to_device_memcpy_read_ce.\n"
        " Invalid value when checking the pattern at 0x70a640000000\n"
        " Current offset : 11136 \n"
        "ASSERT in expression h_errorFlag == 0 in void memcmpPatternHelper() : memcpy.cpp:165\n"
    )
    (test,) = run.value.tests
    assert (test.name, test.status) == ("device_to_device_memcpy_read_ce", "error")
    assert run.value.error == "Invalid value when checking the pattern at 0x70a640000000"
    assert run.unread == ()


def test_a_fragment_of_nvbandwidth_is_recognised_and_read() -> None:
    text = "memcpy CE CPU(row) <- GPU(column) bandwidth (GB/s)\n           0\n 0    295.15\n"
    (test,) = read_nvbandwidth(text + "\nSUM device_to_host_memcpy_ce 295.15\n").value.tests
    assert (test.name, test.cells, test.least) == ("device_to_host_memcpy_ce", ((295.15,),), 295.15)
    assert nvbandwidth.KINDS[0].recognise(text) == 0.9


@pytest.mark.parametrize("read", [read_p2p_bandwidth, read_nvbandwidth])
@given(text=st.text())
def test_any_text_is_read_without_an_error(read: object, text: str) -> None:
    assert callable(read)
    read(text)
    read(f"P2P Connectivity Matrix\nUnidirectional P2P=Enabled Bandwidth Matrix (GB/s)\n{text}")
    read(f"Device: 0, x, pciBusID: {text}, pciDeviceID: 0, pciDomainID:0\n  0 {text}\n")
    read(f"nvbandwidth Version: {text}\nRunning a.\nmemcpy (GB/s)\n 0 1\n0 {text}\nSUM a {text}\n")
    read(f'{{"nvbandwidth": {{"testcases": [{{"name": 1}}, {text}')


@pytest.mark.parametrize("read", [read_p2p_bandwidth, read_nvbandwidth])
def test_a_long_line_is_read_quickly(read: object) -> None:
    assert callable(read)
    start = time.process_time()
    head = "Unidirectional P2P=Enabled Bandwidth Matrix (GB/s)\nmemcpy (GB/s)\n"
    read(head + "0 " * 100_000 + "x\n" + " " * 100_000 + "x\n" + "Device 0: " + "a " * 100_000)
    assert time.process_time() - start < 5
