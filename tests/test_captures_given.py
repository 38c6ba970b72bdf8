"""What is given to `survey`, `share` and `read` that is no captured machine, or no whole one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from multigpu.cli import main
from tests.hosts import HERE, captured
from tests.hosts.machines import MACHINES
from tests.rigs.amd_rocm_smi import rocm_smi_json

ONE = HERE / "1x4090.json"


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit status, output and errors."""
    status = main(words)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


@pytest.mark.parametrize("command", ["survey", "share"])
def test_json_that_is_no_capture_is_told_what_is_wanted(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.json").write_text('{"a": 1}')
    status, out, err = run(capsys, command, str(tmp_path / "x.json"))
    assert (status, out) == (1, "")
    assert err.startswith(f"{tmp_path}/x.json is no captured machine; give what deploys/survey.py")


@pytest.mark.parametrize("command", ["survey", "share"])
def test_an_empty_file_is_called_empty(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.json").write_text("\n")
    assert run(capsys, command, str(tmp_path / "x.json")) == (
        1,
        "",
        f"{tmp_path}/x.json is empty\n",
    )


def test_read_does_not_call_a_cut_capture_understood(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.json").write_text(captured("1x4090")[:2000])
    status, out, _ = run(capsys, "read", str(tmp_path / "cut.json"))
    assert status == 1
    assert "the capture is cut: its end marker is missing; take it again" in out
    assert "understood" not in out


def test_json_of_a_tool_does_not_make_a_folder_one_of_captured_machines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = next(rig for rig in MACHINES if rig.host.name == "2x7900xtx")
    (tmp_path / "rocm-smi.json").write_text(rocm_smi_json(rig.host, rig.dialect))
    status, out, _ = run(capsys, "survey", str(tmp_path))
    assert status == 0
    assert out.startswith(f"{tmp_path.name} · 2 GPUs")


def test_a_cut_capture_beside_a_whole_one_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "whole.json").write_text(captured("1x4090"))
    (tmp_path / "cut.json").write_text(captured("1x4090")[:2000])
    status, out, err = run(capsys, "survey", str(tmp_path))
    assert status == 1
    assert "2 hosts · 1 GPU" in out and "1 not readable" in out
    assert f"{tmp_path}/cut.json: the capture is cut" in err


def test_two_unreadable_captures_of_one_name_are_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "a" / "tower.json", tmp_path / "b" / "tower.json"]
    for file in files:
        file.parent.mkdir()
        file.write_text("")
    _, out, _ = run(capsys, "survey", "--json", *map(str, files), str(ONE))
    assert len(json.loads(out)) == 3


def test_a_folder_without_outputs_of_a_machine_is_no_machine_without_gpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "poem.txt").write_text("the cards are many\nand the lanes are few\n")
    status, out, err = run(capsys, "survey", str(tmp_path))
    assert (status, out) == (1, "")
    assert f"{tmp_path} holds no output that tells of a machine" in err
    status, out, _ = run(capsys, "read", str(tmp_path))
    assert status == 1
    assert "no GPU seen" not in out and "poem.txt: no known format, left out" in out


def test_share_says_what_it_got_instead_of_a_capture(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = run(capsys, "share", str(HERE))
    assert err == f"{HERE} is a folder; share takes one captured machine\n"
