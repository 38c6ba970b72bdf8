"""NCCL logs of real machines: what is known of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from multigpu.parse.nccl.nccl_log import KINDS, NcclLog, read_nccl_log
from multigpu.parse.nccl.nccl_tests import KINDS as TABLE
from multigpu.parse.nccl.nccl_tests import read_nccl_tests


def _log(path: Path) -> NcclLog:
    text = path.read_text(encoding="utf-8")
    assert KINDS[0].recognise(text) > TABLE[0].recognise(text)
    return read_nccl_log(text).value


def _all_by_ipc(path: Path) -> NcclLog:
    log = _log(path)
    assert log.version == "2.7.8+cuda10.2" and log.rccl is False
    assert sum(lines for pair in log.pairs for _, lines in pair.transports) == 100
    assert {way for pair in log.pairs for way, _ in pair.transports} == {"P2P/IPC"}
    assert log.verdict == "P2P" and len(log.pairs) == 6 and log.ranks_total == 4
    assert log.network == "IB"  # between hosts: no channel uses it
    buses = [rank.pci_bus_id for rank in log.ranks]
    assert buses == ["0000:1a:00.0", "0000:1c:00.0", "0000:88:00.0", "0000:8a:00.0"]
    assert (log.pairs[0].device_a, log.pairs[0].device_b) == ("0000:1a:00.0", "0000:1c:00.0")
    assert (log.channels, log.p2p_channels, log.rings, log.trees) == (12, 16, 12, 12)
    return log


def four_v100(path: Path) -> None:
    assert _all_by_ipc(path).hosts == ("r10i4n8",)


def four_v100_32g(path: Path) -> None:
    assert _all_by_ipc(path).hosts == ("r7i4n1",)


def bridged_a100(path: Path) -> None:
    log = _log(path)
    assert log.version == "2.27.7+cuda13.0" and log.hosts == ("mew0",)
    (pair,) = log.pairs
    assert pair.transports == (("P2P/direct pointer/read", 48),)
    assert (pair.a, pair.b, pair.verdict, pair.gpu_direct_rdma) == (0, 1, "P2P", False)
    assert {rank.pid for rank in log.ranks} == {64904}  # one process
    assert [rank.pci_bus_id for rank in log.ranks] == ["0000:17:00.0", "0000:65:00.0"]
    assert log.overrides == (("NCCL_TOPO_DUMP_FILE", "nccl_topo_dump.xml"),)
    (test,) = read_nccl_tests(path.read_text(encoding="utf-8")).value
    assert (test.collective, test.n_gpus, len(test.rows), test.wrong) == ("all_reduce", 2, 11, 0)
    assert test.avg_busbw_gb_s == 178.078 and test.out_of_bounds == 0
    assert test.peak is not None and test.peak.size_bytes == 8 << 30
    assert test.peak.out_of_place is not None and test.peak.in_place is not None
    assert (test.peak.out_of_place.busbw_gb_s, test.peak.in_place.busbw_gb_s) == (216.6, 216.61)


def samples_of_the_manual(path: Path) -> None:
    log = _log(path)
    assert log.version == "2.30.3+cuda13.0"
    (pair,) = log.pairs
    assert pair.verdict == "mixed"
    assert dict(pair.transports) == {"SHM/direct/direct": 2, "NET/Socket": 2, "P2P/CUMEM": 2}
    assert log.rings == 2 and log.trees == 2
    assert log.warnings == ("Failed to initialize any NET plugin",)
    assert log.overrides == (("NCCL_SHM_DISABLE", "1"),)
    assert log.hosts == ("node-01",)
    assert all(rank.pci_bus_id is None for rank in log.ranks)  # the manual writes busId XXXX
    unread = "\n".join(line.text for line in read_nccl_log(path.read_text("utf-8")).unread)
    for plugin in ("RAS thread started", "GIN plugin", "RMA plugin", "ENV/Plugin"):
        assert plugin in unread


TRUTH: dict[str, Callable[[Path], None]] = {
    "d_nccl_log/4x_v100_nvlink_nccl2.7.8.txt": four_v100,
    "d_nccl_log/4x_v100_32g_nccl2.7.txt": four_v100_32g,
    "d_nccl_log/2x_a100pcie_nvlink_bridge_nccl2.27_allreduce.txt": bridged_a100,
    "d_nccl_log/nccl_logging_doc_samples.rst": samples_of_the_manual,
}
