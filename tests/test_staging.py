"""How files get into place on a host: private, verified, whole, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyinfra")
from operations.common import _CREATE, Staging
from operations.units import _SWAP

HOUR = 3600


def create(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    prefix = f"{folder}/staging-"
    words = ["sh", "-c", _CREATE, "staging", f"{prefix}{name}", prefix, "30"]
    return subprocess.run(words, capture_output=True, text=True)


def age(path: Path, seconds: int) -> None:
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_the_way_in_is_for_its_owner_alone_and_never_one_that_is_there(tmp_path: Path) -> None:
    assert create(tmp_path, "a").returncode == 0
    assert (tmp_path / "staging-a").stat().st_mode & 0o777 == 0o700
    assert create(tmp_path, "a").returncode != 0
    assert Staging().path != Staging().path


def test_what_a_killed_run_left_goes_and_what_another_still_fills_stays(tmp_path: Path) -> None:
    for name in ("killed", "busy"):
        folder = tmp_path / f"staging-{name}"
        folder.mkdir()
        (folder / "0").write_text("model")
        age(folder, HOUR)
    age(tmp_path / "staging-killed/0", HOUR)
    (tmp_path / "other").mkdir()
    age(tmp_path / "other", HOUR)
    create(tmp_path, "new")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["other", "staging-busy", "staging-new"]


def swap(folder: Path, analyze: str) -> subprocess.CompletedProcess[str]:
    """Two staged files on their way to `folder/etc`, with stand-ins for systemd's programs."""
    programs = {"systemd-analyze": analyze, "systemctl": f'echo "$*" >> {folder}/calls'}
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    staging = folder / "staging"
    staging.mkdir()
    manifest = [
        {"path": f"{folder}/etc/chat.env", "staged": "0", "mode": "0600"},
        {"path": f"{folder}/etc/multigpu-chat.service", "staged": "1", "mode": "0644"},
    ]
    for number, text in enumerate(("A=1\n", "[Unit]\n")):
        (staging / str(number)).write_text(text)
    (staging / "manifest").write_text(json.dumps(manifest))
    return subprocess.run(
        [sys.executable, "-c", _SWAP, str(staging), str(folder)],
        env={"PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )


def test_verified_files_are_in_place_with_their_modes_and_systemd_reads_them(
    tmp_path: Path,
) -> None:
    done = swap(tmp_path, "exit 0")
    assert (done.returncode, done.stderr) == (0, "")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "etc").iterdir()}
    assert modes == {"chat.env": 0o600, "multigpu-chat.service": 0o644}
    assert (tmp_path / "calls").read_text() == "daemon-reload\n"
    assert not (tmp_path / "staging").exists()


@pytest.mark.parametrize("analyze", ["echo 'Unknown key' >&2", "exit 1"])
def test_a_unit_that_systemd_refuses_leaves_everything_as_it_was(
    tmp_path: Path, analyze: str
) -> None:
    done = swap(tmp_path, analyze)
    assert done.returncode == 1
    assert done.stderr.startswith("multigpu: systemd-analyze verify refuses multigpu-chat.service")
    assert not (tmp_path / "etc").exists()
    assert not (tmp_path / "calls").exists()
    assert not (tmp_path / "staging").exists()
