"""What bandwidth tests print: nccl-tests, p2pBandwidthLatencyTest, nvbandwidth.

Formats: NVIDIA/nccl-tests src/common.cu, NVIDIA/cuda-samples p2pBandwidthLatencyTest.cu,
NVIDIA/nvbandwidth output.cpp and json_output.cpp. The numbers are simulated.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tests.rigs.dialect import Dialect

if TYPE_CHECKING:
    from multigpu.parse.nccl.nccl_test_values import (
        NcclTest,
        NcclTestCell,
        NcclTestRank,
        NcclTestRow,
    )

Cells = Sequence[Sequence[float | None]]
LOG = "rig-7:4000:4100 [1] NCCL INFO AllReduce: opCount 0 sendbuff 0x7 count 2 [nranks=2]"


def render_nccl_tests(
    tests: Iterable[NcclTest], dialect: Dialect, *, interleaved: bool = False
) -> str:
    """Several runs from one shell; `interleaved` breaks rows with lines of NCCL_DEBUG=INFO."""
    parts = []
    for test in tests:
        old = dialect.nccl_tests == "2.0"
        mark = dialect.launcher if dialect.launcher.startswith("[1,") and not interleaved else ""
        lines = [f"root@rig-7:~/nccl-tests# ./build/{test.collective}_perf -b 8 -e 8G -f 2"]
        lines.append(
            f"# nThread {test.n_threads} nGpus {test.n_gpus} minBytes 8 maxBytes 8589934592 "
            "step: 2(factor) warmup iters: 5 iters: 20 validation: 1 "
        )
        lines += ["#", "# Using devices", *(_rank(rank, old) for rank in test.ranks), "#"]
        lines += _header(old)
        lines += [_row(row, old, interleaved) for row in test.rows]
        verdict = "OK" if test.out_of_bounds == 0 else "FAILED"
        lines.append(f"# Out of bounds values : {test.out_of_bounds} {verdict}")
        lines.append(f"# Avg bus bandwidth    : {test.avg_busbw_gb_s:g} ")
        parts.append("".join(mark + line + "\n" for line in (*lines, "#", "")))
    return "".join(parts)


def _rank(rank: NcclTestRank, old: bool) -> str:
    group = "" if old else "Group  0 "
    bus = f"0x{rank.pci_bus:02x}" if rank.pci_bus is not None else (rank.pci_bus_id or "")[:-2]
    return (
        f"#  Rank {rank.rank:2} {group}Pid {rank.pid:6} on {rank.host:>10} device {rank.device:2} "
        f"[{bus}] {rank.name}"
    )


def _header(old: bool) -> list[str]:
    root, wrong = ("", " error") if old else ("    root", "#wrong")
    columns = f"     time   algbw   busbw {wrong}"
    return [
        "#                                                     out-of-place            in-place",
        f"#       size         count      type   redop{root}{columns}{columns}",
        "#        (B)    (elements)                     (us)  (GB/s)  (GB/s)       (us)  (GB/s)",
    ]


def _row(row: NcclTestRow, old: bool, interleaved: bool) -> str:
    """printf formats of common.cu; a log line breaks after the words and after the first half."""
    words = f"{row.size_bytes:12}  {row.count:12}  {row.type:>8}  {row.redop or 'none':>6}"
    if not old:
        words += f"  {row.root if row.root is not None else -1:6}"
    pieces = [words, _half(row.out_of_place, old), _half(row.in_place, old)]
    return (f"{LOG}\n{LOG}\n" if interleaved else "").join(pieces)


def _half(cell: NcclTestCell | None, old: bool) -> str:
    if cell is None or cell.time_us is None:
        return ""
    time = f"{cell.time_us:7.2f}"
    if cell.time_us >= 9_990:
        time = f"{cell.time_us:7.0f}"
    elif cell.time_us >= 99:
        time = f"{cell.time_us:7.1f}"
    last = cell.error if old else cell.wrong
    wrong = "N/A" if last is None else f"{last:g}"
    return f"  {time}  {cell.algbw_gb_s:6.2f}  {cell.busbw_gb_s:6.2f}  {wrong:>5}"


def _table(label: str, cells: Cells, width: int, places: int) -> list[str]:
    """Columns of `width` and a blank, as p2pBandwidthLatencyTest prints them."""
    head = f"{label:>6}" + "".join(f"{i:{width}} " for i in range(len(cells)))
    rows = [
        f"{i:{width}} " + "".join(f"{cell or 0:{width}.{places}f} " for cell in row)
        for i, row in enumerate(cells)
    ]
    return [head, *rows]


def render_p2p(
    devices: Iterable[tuple[int, str, str]],
    access: Sequence[tuple[int, int, bool]],
    matrices: Iterable[tuple[str, bool, str | None, Cells]],
    dialect: Dialect,
) -> str:
    """`devices` are number, name, address; `matrices` kind, P2P enabled, transfer, cells.

    Kinds are Unidirectional, Bidirectional, Latency (old), GPU and CPU (latency, in that order).
    """
    lines = ["[P2P (Peer-to-Peer) GPU Bandwidth Latency Test]"]
    for number, name, address in devices:
        domain, bus, rest = address.split(":")
        where = f"pciBusID: {int(bus, 16):x}, pciDeviceID: {int(rest[:2], 16):x}"
        lines.append(f"Device: {number}, {name}, {where}, pciDomainID:{int(domain, 16):x}")
    for a, b, granted in access:
        lines.append(f"Device={a} {'CAN' if granted else 'CANNOT'} Access Peer Device={b}")
    lines += [
        "",
        "***NOTE: In case a device doesn't have P2P access to other one, it falls back to",
    ]
    lines.append("So you can see lesser Bandwidth (GB/s) in those cases. (simulated)")
    lines += ["", *_connectivity(access)]
    for kind, enabled, transfer, cells in matrices:
        lines += _p2p_matrix(kind, enabled, transfer, cells)
    return "\n".join(lines) + "\n"


def _connectivity(access: Sequence[tuple[int, int, bool]]) -> list[str]:
    """Rows begin with a number and a tab."""
    size = max((a for a, _, _ in access), default=0) + 1
    granted = {(a, b): said for a, b, said in access}
    rows = [
        f"{a:6}\t" + "".join(f"{int(a == b or granted[a, b]):6}" for b in range(size))
        for a in range(size)
    ]
    head = r"     D\D" + "".join(f"{b:6}" for b in range(size))
    return ["P2P Connectivity Matrix", head, *rows]


def _p2p_matrix(kind: str, enabled: bool, transfer: str | None, cells: Cells) -> list[str]:
    how = f"P2P={'Enabled' if enabled else 'Disabled'}"
    mark = f" (P2P {transfer.capitalize()})" if transfer else ""
    if kind.endswith("directional"):
        table = _table("D\\D", cells, 6, 2)
        return [f"{kind} {how} Bandwidth{mark} Matrix (GB/s)", *table]
    title = f"{how} Latency{mark} Matrix (us)"
    if kind == "CPU":  # below the table of the GPU, under the same title
        return ["", *_table("CPU", cells, 6, 2)]
    return [title, *_table("D\\D" if kind == "Latency" else "GPU", cells, 6, 2)]


def render_nvbandwidth(run: Any, dialect: Dialect) -> str:
    """Text of a run: an object with the attributes of the reader's value."""
    lines = [f"nvbandwidth Version: {run.version}", f"Built from Git version: {run.git_version}"]
    new = dialect.nvbandwidth == "v0.10.0"
    for label, version in (
        ("CUDA Runtime Version", run.cuda_runtime_version),
        ("CUDA Driver Version" + (" (API)" if new else ""), run.cuda_driver_version),
    ):
        said = f"{version // 1000}.{version % 1000 // 10} ({version})" if new else str(version)
        lines.append(f"{label}: {said}")
    lines += [f"Driver Version: {run.driver_version}", ""]
    for device in run.devices:
        where = "0000" + device.pci_bus_id[:-2]
        lines.append(f"Device {device.device}: {device.name} ({where})")
    for test in run.tests:
        lines += ["", f"Running {test.name}.", *_nvbandwidth_test(test, dialect)]
    lines += ["NOTE: The reported results may not reflect the full capabilities of the platform."]
    return "\n".join(lines) + "\n"


def _nvbandwidth_test(test: Any, dialect: Dialect) -> list[str]:
    if test.status == "waived":
        return ["Waived: " if dialect.nvbandwidth != "v0.6" else "Waived:"]
    head = " " + "".join(f"{i:10}" for i in range(len(test.cells[0])))
    indent = "" if dialect.nvbandwidth == "v0.4" else " "
    rows = [
        f"{indent}{i}" + "".join("       N/A" if c is None else f"{c:10.2f}" for c in row)
        for i, row in enumerate(test.cells)
    ]
    lines = [test.description, indent + head, *rows, "", f"SUM {test.name} {test.total:.2f}"]
    if dialect.nvbandwidth == "v0.10.0":
        lines.append(f"COEFFICIENT_OF_VARIATION {test.name} 0.00")
    return lines


def render_nvbandwidth_json(run: Any) -> str:
    """Of `nvbandwidth -j`: cells are strings, devices are not printed."""
    cases = []
    for test in run.tests:
        case: dict[str, object] = {"name": test.name, "status": test.status.capitalize()}
        if test.cells:
            case["bandwidth_description"] = test.description
            case["bandwidth_matrix"] = [
                ["N/A" if cell is None else f"{cell:g}" for cell in row] for row in test.cells
            ]
            case["sum"] = test.total
        cases.append(case)
    root = {
        "CUDA Runtime Version": run.cuda_runtime_version,
        "Driver Version": run.driver_version,
        "git_version": run.git_version,
        "testcases": cases,
        "version": run.version,
    }
    return json.dumps({"nvbandwidth": root}, indent=3)
