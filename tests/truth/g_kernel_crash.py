"""Kernel logs of machines that broke: what is known of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from multigpu import xids
from multigpu.hardware import KernelEvent
from multigpu.parse.kernel.kernel_log import KINDS, read_kernel


def _events(path: Path, kind: str) -> list[KernelEvent]:
    text = path.read_text(encoding="utf-8")
    assert KINDS[0].recognise(text) > 0.8
    return [event for event in read_kernel(text).value if event.kind == kind]


def gsp_timeout(path: Path) -> None:
    events = _events(path, "xid")
    assert len(events) == 5
    assert {(e.code, e.address) for e in events} == {(119, "0000:9b:00.0")}
    assert (events[0].pid, events[0].process) == (2024380, "nvidia-smi")
    assert events[0].time == "Sun Feb 23 16:24:18 2025"
    assert events[0].text and "waiting for RPC response from GPU4 GSP" in events[0].text
    row = xids.xid(119)
    assert row is not None and "GSP" in row.meaning and row.remedy is xids.Remedy.RESET_GPU


def off_the_bus_and_switches(path: Path) -> None:
    (lost,) = _events(path, "xid")
    assert (lost.code, lost.address, lost.pid, lost.process) == (79, "0000:91:00.0", None, None)
    assert lost.lines == 2 and lost.uuid == "GPU-b6c3b2be-c55b-d076-fa0e-d464e4c7e08b"
    switches = _events(path, "sxid")
    assert {(e.code, e.address, e.fatal) for e in switches} == {
        (20034, "0000:05:00.0", True),
        (20034, "0000:06:00.0", True),
        (20034, "0000:07:00.0", True),
    }
    assert sum(e.lines for e in switches) == 8
    (handle,) = _events(path, "device-handle")
    assert handle.address == "0000:91:00.0" and handle.text
    assert handle.text.endswith("for GPU0000:91:00.0: Unknown Error")


def row_remap(path: Path) -> None:
    (event,) = _events(path, "xid")
    assert (event.code, event.pid, event.address) == (63, 1896, "0000:10:1c.0")
    assert event.text and event.text.startswith("Row Remapper: New row marked for remapping")
    unread = [line.text.split() for line in read_kernel(path.read_text(encoding="utf-8")).unread]
    assert ["Pending", ":", "Yes"] in unread  # the table below is for the reader of nvidia-smi -q


def page_fault(path: Path) -> None:
    (event,) = _events(path, "xid")
    assert (event.time, event.address, event.code) == ("May 15 08:57:36", "0000:01:00.0", 31)
    assert (event.pid, event.process) == (80798, "llama-server")


def crash_in_nccl(path: Path) -> None:
    crashes = _events(path, "segfault")
    assert len(crashes) == 2 and not _events(path, "xid")
    assert all(e.text and "in libnccl.so.2" in e.text for e in crashes)
    assert {(e.process, e.pid) for e in crashes} == {("pt_main_thread", 2536443)}


def no_xid(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    reading = read_kernel(text)
    assert KINDS[0].recognise(text) > 0.8 and reading.value == ()
    assert text.startswith("6,3973,227996636,-;nvidia-peermem")
    assert len(reading.unread) == reading.lines == 8


TRUTH: dict[str, Callable[[Path], None]] = {
    "g_kernel_crash/xid119_gsp_timeout_dmesg_T.log": gsp_timeout,
    "g_kernel_crash/xid79_sxid20034_readme.md": off_the_bus_and_switches,
    "g_kernel_crash/xid63_row_remap_snippet.md": row_remap,
    "g_kernel_crash/xid31_4gpu_llama_server_journal.txt": page_fault,
    "g_kernel_crash/libnccl_segfault_dmesg.log": crash_in_nccl,
    "g_kernel_crash/peermem_and_kmsg_raw.log": no_xid,
}
