"""What the host counts of the kernel's log, and that it agrees with the controller's reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.host import exporter_gpus, kernel_log, kernel_words
from multigpu.host.exporter_nvml import Card
from multigpu.parse.kernel.kernel_log import read_kernel

ROOT = Path(__file__).parent.parent
XID_79 = "NVRM: Xid (PCI:0000:0a:00): 79, pid=1, name=x, GPU has fallen off the bus."
SAME = ("xid", "off-the-bus", "init-failed", "amdgpu-reset", "amdgpu-timeout", "amdgpu-ras")
LINES = (
    (XID_79, "0000:0a:00.0", 79, None),
    ("NVRM: Xid (PCI:0000:01:00 GPU-I:00): 13, Graphics Exception", "0000:01:00.0", 13, None),
    ("NVRM: GPU 0000:0a:00.0: GPU has fallen off the bus.", "0000:0a:00.0", None, "off-the-bus"),
    ("NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x26)", "0000:01:00.0", None, "init-failed"),
    ("amdgpu 0000:03:00.0: amdgpu: GPU reset begin!", "0000:03:00.0", None, "amdgpu-reset"),
    (
        "amdgpu 0000:03:00.0: amdgpu: ring gfx_0.0.0 timeout, signaled seq=1",
        "0000:03:00.0",
        None,
        "amdgpu-timeout",
    ),
    (
        "amdgpu 0000:03:00.0: amdgpu: 4 uncorrectable hardware errors detected in umc block",
        "0000:03:00.0",
        None,
        "amdgpu-ras",
    ),
)


@pytest.mark.parametrize(("line", "address", "xid", "event"), LINES)
def test_a_line_is_counted_as_the_controller_reads_it(
    line: str, address: str, xid: int | None, event: str | None
) -> None:
    found = kernel_words.event(line)
    assert found is not None
    assert (found.pci_address, found.xid, found.event) == (address, xid, event)
    (read,) = read_kernel(line).value
    assert (read.address, read.kind) == (address, event or "xid")
    assert read.code == xid


def captured() -> list[Path]:
    folder = ROOT.parent / "shared/rigs"
    found = (p for p in folder.rglob("*") if p.is_file() and p.stat().st_size < 3_000_000)
    return sorted(p for p in found if p.suffix in (".txt", ".log", ".md") and _is_kernel(p))


def _is_kernel(path: Path) -> bool:
    text = path.read_text(errors="replace")
    return "NVRM: Xid (" in text or "amdgpu 0000:" in text


@pytest.mark.skipif(not captured(), reason="no captured logs here")
def test_captured_logs_give_the_xids_that_the_controller_reads() -> None:
    seen = 0
    for path in captured():
        for line in path.read_text(errors="replace").splitlines():
            found = kernel_words.event(line)
            read = [e for e in read_kernel(line).value if e.kind == "xid" and e.address]
            ours = [(found.pci_address, found.xid)] if found and found.xid is not None else []
            assert ours == [(e.address, e.code) for e in read], line
            seen += len(ours)
    assert seen > 5


@given(st.text())
def test_no_line_breaks_it(text: str) -> None:
    kernel_words.event(text)
    for prefix in ("NVRM: Xid (PCI:", "amdgpu 0000:03:00.0: "):
        kernel_words.event(prefix + text)
    kernel_log.records(text.encode("utf-8", "replace"))


def test_a_record_of_kmsg_is_its_first_line() -> None:
    raw = f"4,812,5000000,-;{XID_79}\n SUBSYSTEM=pci\n DEVICE=+pci:0000:0a:00.0\n".encode()
    assert kernel_log.records(raw) == [kernel_log.Record(812, 5.0, XID_79)]


def test_what_was_counted_is_not_counted_again_after_a_restart() -> None:
    counts = kernel_log.Counts()
    records = [kernel_log.Record(n, float(n), XID_79) for n in (3, 4)]
    for record in records:
        counts.take(record)
    again = kernel_log.Counts(json.loads(json.dumps(counts.document())))
    for record in [*records, kernel_log.Record(5, 5.0, XID_79)]:
        again.take(record)
    seen = again.document()["gpus"]["0000:0a:00.0"]["xid"]["79"]
    assert (seen["count"], seen["last_uptime_s"]) == (3, 5.0)
    assert [event["xid"] for event in again.document()["events"]] == [79, 79, 79]


def test_a_log_that_is_flooded_keeps_its_bounds() -> None:
    counts = kernel_log.Counts()
    for n in range(400):
        line = f"NVRM: Xid (PCI:0000:{n % 256:02x}:00): {n}, x"
        counts.take(kernel_log.Record(n, 1.0, line))
    document = counts.document()
    assert len(document["gpus"]) == kernel_log.MOST_CARDS
    assert len(document["events"]) == kernel_log.MOST_EVENTS


def written(path: Path, **more: Any) -> dict[str, Any]:
    counts = kernel_log.Counts()
    counts.take(kernel_log.Record(1, 1.0, XID_79))
    document = {**counts.document(), **more}
    kernel_log.write(str(path), document)
    return document


def test_the_file_is_whole_and_for_all_to_read(tmp_path: Path) -> None:
    path = tmp_path / "xid.json"
    document = written(path)
    assert kernel_log.read_counts(str(path)) == document
    assert path.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in tmp_path.iterdir()] == ["xid.json"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"schema": 2}, "another shape"),
        ({"error": "/dev/kmsg: Permission denied"}, "Permission denied"),
        ({"written_uptime_s": -1e9}, "s old"),
    ],
)
def test_counts_that_nobody_keeps_are_refused(
    tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    written(tmp_path / "xid.json", **more)
    with pytest.raises(ValueError, match=said):
        kernel_log.read_counts(str(tmp_path / "xid.json"))


def test_counts_become_samples_of_the_card_at_that_address(tmp_path: Path) -> None:
    document = written(tmp_path / "xid.json")
    card = Card(index=3, uuid="GPU-3", pci_address="0000:0a:00.0")
    found = exporter_gpus.kernel_samples(document, [card])
    (xid,) = [sample for sample in found if sample.name == "multigpu_gpu_xid_total"]
    assert (xid.value, xid.labels["gpu"], xid.labels["code"]) == (1, "3", "79")
    (alone,) = [s for s in exporter_gpus.kernel_samples(document, []) if s.name == xid.name]
    assert alone.labels == {"pci_address": "0000:0a:00.0", "code": "79"}


@pytest.mark.process
def test_the_program_follows_a_fifo(tmp_path: Path) -> None:
    source, output = tmp_path / "kmsg", tmp_path / "xid.json"
    os.mkfifo(source)
    argv = ("--source", str(source), "--output", str(output), "--beat-s", "5")
    with subprocess.Popen(
        [sys.executable, "-m", "multigpu.host", "kernel-log", *argv], cwd=ROOT
    ) as process:
        try:
            wait_for(lambda: output.exists())
            source.write_text(XID_79 + "\n")
            wait_for(lambda: kernel_log.read_counts(str(output))["gpus"] != {})
        finally:
            process.kill()
    (event,) = kernel_log.read_counts(str(output))["events"]
    assert (event["pci"], event["xid"], event["uuid"]) == ("0000:0a:00.0", 79, None)


@pytest.mark.process
def test_a_log_that_cannot_be_read_is_said_in_the_file_until_it_can(tmp_path: Path) -> None:
    source, output = tmp_path / "kmsg", tmp_path / "xid.json"
    program = [sys.executable, "-m", "multigpu.host", "kernel-log", "--beat-s", "0.3"]
    words = ("--output", str(output))
    environment = {**os.environ, kernel_log.SOURCE_VARIABLE: str(source)}
    with subprocess.Popen([*program, *words], cwd=ROOT, env=environment) as process:
        try:
            wait_for(output.exists)
            with pytest.raises(ValueError, match="No such file"):
                kernel_log.read_counts(str(output))
            source.write_text(XID_79 + "\n")
            wait_for(lambda: json.loads(output.read_text())["gpus"] != {})
            assert kernel_log.read_counts(str(output))["error"] is None
        finally:
            process.kill()


def wait_for(holds: Any, limit_s: float = 10.0) -> None:
    """Until it holds. Fails after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
