"""The probe runs anywhere, ends in time and prints one whole ASCII document."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from multigpu.host import probe
from multigpu.host.probe import files, system
from multigpu.parse.capture import read
from multigpu.store.probe_program import program
from tests.hosts import captured

ROOMS = sorted(Path(probe.__file__).parent.glob("*.py"))
QUERY = "nvidia-smi -q -x"


def run(*arguments: str, path: str | None = None, by_stdin: bool = False) -> tuple[str, float]:
    """Output of the probe in its own process, as pyinfra or a person starts it, and its seconds."""
    environment = {**os.environ, "PATH": path or os.environ["PATH"]}
    argv = [sys.executable, *(["-"] if by_stdin else ["-m", "multigpu.host.probe"]), *arguments]
    source = program() if by_stdin else None
    started = time.monotonic()
    done = subprocess.run(
        argv, input=source, env=environment, capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout, time.monotonic() - started


def document(*arguments: str, path: str | None = None) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(run(*arguments, path=path)[0])
    return value


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """An empty directory of stand-in tools."""
    directory = tmp_path / "bin"
    directory.mkdir()
    return directory


def tool(directory: Path, name: str, script: str) -> None:
    """A stand-in tool, by its shell script."""
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="latin-1")
    path.chmod(0o755)


def plant(root: Path, files: dict[str, str]) -> None:
    """Files below a root directory."""
    for name, content in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.stem)
def test_the_probe_is_python_3_9_and_imports_only_the_standard_library(room: Path) -> None:
    tree = ast.parse(room.read_text(encoding="ascii"), feature_version=(3, 9))
    names = {n.name for node in ast.walk(tree) if isinstance(node, ast.Import) for n in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    others = {name for name in names if not f"{name}.".startswith("multigpu.host.probe.")}
    assert others <= sys.stdlib_module_names | {"__future__"}


def test_every_room_of_the_probe_travels() -> None:
    rooms = {room.stem for room in ROOMS} - {"__init__", "__main__"}
    assert rooms == {name for name in rooms if f"multigpu.host.probe.{name}" in program()}


def test_the_program_runs_where_multigpu_is_not_installed(tmp_path: Path) -> None:
    argv = [sys.executable, "-I", "-S", "-"]
    done = subprocess.run(
        argv, input=program(), cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True
    )
    assert read(done.stdout, "here").cpus == os.cpu_count()


def test_no_line_of_the_probe_ends_the_heredoc_that_carries_it() -> None:
    assert program().isascii()
    assert not {"EOF", "EOS", "MULTIGPU_PROBE"} & set(program().splitlines())


@pytest.mark.parametrize("by_stdin", [False, True])
def test_this_machine_is_captured_whole(by_stdin: bool) -> None:
    text, seconds = run(by_stdin=by_stdin)
    host = read(text, "here")
    assert text.isascii()
    assert seconds < 20
    assert host.cpus == os.cpu_count()
    assert host.python == tuple(sys.version_info[:3])
    assert host.memory_mib and host.kernel and host.disk_free_mib is not None


def test_a_tool_that_is_not_there_is_missing(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tools))
    assert probe.run_tool(["no-such-tool"], 1.0) == {"rc": None, "missing": True}


def test_a_tool_that_hangs_is_cut_with_its_children_and_keeps_what_it_said(tools: Path) -> None:
    pid = tools / "pid"
    tool(tools, "nvidia-smi", f"echo partial; sleep 60 & echo $! > {pid}; wait")
    text, seconds = run("--timeout", "1", path=f"{tools}:/usr/bin:/bin")
    record = json.loads(text)["tools"][QUERY]
    assert seconds < 6
    assert (record["timed_out"], record["stdout"][0]) == (True, "partial")
    assert "no answer within 1 s" in read(text, "here").problems[0]
    state = files.read_text(f"/proc/{pid.read_text().strip()}/stat")
    assert state is None or state.rpartition(")")[2].split()[0] == "Z"


def test_a_tool_that_leaves_the_group_and_holds_the_pipe_does_not_hold_the_probe(
    tools: Path,
) -> None:
    pid = tools / "pid"
    tool(tools, "systemd-detect-virt", f"setsid sh -c 'echo $$ > {pid}; exec sleep 60' & wait")
    seconds = run("--timeout", "1", path=f"{tools}:/usr/bin:/bin")[1]
    os.kill(int(pid.read_text()), signal.SIGKILL)
    assert seconds < 6


def test_bytes_that_are_not_utf_8_stay_as_escapes(tools: Path) -> None:
    tool(tools, "nvidia-smi", "printf 'caf\\351 \\342\\202\\254'; exit 3")
    text, _ = run(path=f"{tools}:/usr/bin:/bin")
    record = json.loads(text)["tools"][QUERY]
    assert text.isascii()
    assert (record["rc"], record["stdout"]) == (3, ["caf\\xe9 \u20ac"])


def test_a_tool_that_cannot_be_started_says_why(tools: Path) -> None:
    (tools / "nvidia-smi").write_text("", encoding="ascii")
    (tools / "nvidia-smi").chmod(0o755)
    text, _ = run(path=f"{tools}:/usr/bin:/bin")
    assert "could not be started" in read(text, "here").problems[0]


def test_hundreds_of_clocks_are_left_out_of_the_xml() -> None:
    text = b"<gpu><supported_clocks>\n<value>1</value>\n</supported_clocks></gpu>"
    record = probe.tool_record(0, text, b"", 0.1, False)
    assert record["stdout"] == ["<gpu><!-- supported_clocks left out --></gpu>"]


def test_cards_are_asked_one_by_one_when_one_silences_all(tools: Path, tmp_path: Path) -> None:
    machine = json.loads(captured("2x3090-one-lost"))
    good = "\n".join(machine["tools"][f"{QUERY} -i 0000:01:00.0"]["stdout"])
    plant(tmp_path, {"good.xml": good})
    lost = "Unable to determine the device handle for GPU0000:41:00.0: Unknown Error"
    tool(
        tools,
        "nvidia-smi",
        f'[ "$4" = 0000:01:00.0 ] && exec cat {tmp_path}/good.xml\necho "{lost}"; exit 15',
    )
    root = tmp_path / "root"
    for bus in ("01", "41"):
        device = root / f"sys/devices/pci0000:00/0000:00:{bus}.0/0000:{bus}:00.0"
        ids = {"vendor": "0x10de", "device": "0x2204", "class": "0x030000"}
        plant(device, {**ids, "max_link_width": "16", "current_link_width": "8"})
        plant(device.parent, {"max_link_width": "8", "current_link_width": "8"})
        link = root / f"sys/bus/pci/devices/0000:{bus}:00.0"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(device)
    host = read(run("--root", str(root), path=f"{tools}:/usr/bin:/bin")[0], "here")
    assert host.gpu(0).memory_mib == 24576
    assert host.gpu(1).error == "the driver has no handle of it: Unknown Error"
    assert host.gpu(1).pcie.limited_at == "0000:00:41.0"


def test_files_of_ours_show_a_hash_and_only_stamps_and_units_show_text(
    tmp_path: Path,
) -> None:
    plant(
        tmp_path,
        {
            "/etc/systemd/system/multigpu-chat.service": "# Rendered by us\n[Unit]\n",
            "/etc/systemd/system/other.service": "[Unit]\n",
            "/etc/multigpu/chat.env": "A=1\n",
            "/etc/multigpu/chat.runtime.json": '{"runtime": "vllm", "since": 1}',
            "/etc/multigpu/credentials/chat": "sk-very-secret",
            "/opt/multigpu/host/supervisor.py": "pass\n",
            "/opt/multigpu/runtimes/vllm-0.33.0/installed": "vllm 0.33.0\n",
            "/opt/multigpu/runtimes/vllm-0.33.0/bin/vllm": "x",
        },
    )
    text, _ = run("--root", str(tmp_path), "--path", "/etc/multigpu", "--path", "/srv/none")
    host = read(text, "here")
    assert "very-secret" not in text
    assert host.uid == os.geteuid()
    assert [file.path for file in host.files] == [
        "/etc/multigpu/chat.env",
        "/etc/multigpu/chat.runtime.json",
        "/etc/multigpu/credentials/chat",
        "/etc/systemd/system/multigpu-chat.service",
        "/opt/multigpu/host/supervisor.py",
        "/opt/multigpu/runtimes/vllm-0.33.0/installed",
    ]
    secret = host.file("/etc/multigpu/credentials/chat")
    stamp = host.file("/opt/multigpu/runtimes/vllm-0.33.0/installed")
    told = (secret.sha256, secret.size_bytes, secret.content) if secret else ()
    assert told == (None, None, None), "a hash would let guesses be tried"
    assert hashlib.sha256(b"sk-very-secret").hexdigest() not in text
    assert stamp and stamp.content == "vllm 0.33.0"
    use = host.file("/etc/multigpu/chat.runtime.json")
    assert use and use.content == '{"runtime": "vllm", "since": 1}'
    unit = host.file("/etc/systemd/system/multigpu-chat.service")
    assert unit and unit.content == "# Rendered by us"
    assert stamp.modified_at and abs(stamp.modified_at - time.time()) < 60
    assert [path.path for path in host.paths] == ["/etc/multigpu"]
    assert json.loads(text)["paths"]["/srv/none"] is None


def test_units_carry_the_revision_of_the_running_process_and_no_other_variable(
    tools: Path, tmp_path: Path
) -> None:
    environment = {"MULTIGPU_REVISION": "0123abcd", "API_KEY": "sk-very-secret"}
    before = time.time()
    with subprocess.Popen(["/bin/sleep", "60"], env=environment) as process:
        show = f"Id=multigpu-chat.service\\nLoadState=loaded\\nMainPID={process.pid}\\n"
        tool(tools, "systemctl", f"[ $1 = show ] && echo \"$@\" >&2 && printf '{show}'")
        plant(tmp_path, {"/etc/systemd/system/multigpu-draft.service": ""})
        try:
            text, _ = run("--root", str(tmp_path), path=f"{tools}:/usr/bin:/bin")
        finally:
            process.kill()
    (unit,) = read(text, "here").units
    assert (unit.name, unit.revision) == ("multigpu-chat.service", "0123abcd")
    assert unit.command_sha256 is not None
    assert unit.started_at and abs(unit.started_at - before) < 0.5
    assert "very-secret" not in text
    asked = json.loads(text)["tools"]["systemctl show"]["stderr"][0]
    assert asked.endswith("multigpu-* multigpu-draft.service")


def test_iommu_groups_are_counted_by_type(tmp_path: Path) -> None:
    kinds = ("identity", "DMA-FQ", "DMA-FQ")
    groups = "/sys/kernel/iommu_groups"
    plant(tmp_path, {f"{groups}/{n}/type": f"{kind}\n" for n, kind in enumerate(kinds)})
    assert system.iommu_groups(str(tmp_path)) == {"identity": 1, "DMA-FQ": 2}


def test_a_part_that_never_ends_is_named_and_left_behind() -> None:
    def stuck() -> None:
        time.sleep(3)

    started = time.monotonic()
    done, late = probe.gather({"stuck": stuck, "quick": lambda: 1}, started + 0.2)
    assert time.monotonic() - started < 1
    assert (done, late) == ({"quick": 1}, ["stuck"])
