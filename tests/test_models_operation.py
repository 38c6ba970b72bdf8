"""The unit that fetches a model, and waiting for it: without secrets, locked down, in one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyinfra")
from multigpu.fetching import Fetch, Watched, watched
from multigpu.install import Upload
from operations import waiting
from operations.models import _START, unit_words

FETCH = Fetch(
    "org/name",
    "/var/lib/multigpu/models/0123/name",
    "/var/lib/multigpu/models/0123",
    {},
    Upload("/opt/multigpu/host/fetch-1.json", content=b"{}"),
    credential="/etc/multigpu/credentials/chat.hf_token",
    proxy="http://proxy:3128",
)
TOKEN = "hf_simulatedtokenfortests"


def test_the_token_comes_as_a_credential_and_stands_in_no_argument() -> None:
    words = list(unit_words(252, FETCH, "/opt/multigpu/host/p.pyz"))
    assert "--property=LoadCredential=hf_token:/etc/multigpu/credentials/chat.hf_token" in words
    assert "--property=User=multigpu" in words
    assert "--property=ReadWritePaths=/var/lib/multigpu/models/0123" in words
    assert words[-5:] == [
        "/usr/bin/python3",
        "/opt/multigpu/host/p.pyz",
        "fetch",
        "--spec",
        "/opt/multigpu/host/fetch-1.json",
    ]


def test_an_older_systemd_is_told_only_what_it_knows() -> None:
    old, new = (set(unit_words(v, FETCH, "/p")) for v in (239, 252))
    assert old < new
    assert "--property=ProtectProc=invisible" in new - old


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
def test_the_units_exposure_is_low(tmp_path: Path) -> None:
    properties = [w.removeprefix("--property=") for w in unit_words(252, FETCH, "/p") if "=" in w]
    service = [p for p in properties if not p.startswith(("Description=", "--", "LoadCred"))]
    unit = tmp_path / "multigpu-fetch-0.service"
    unit.write_text("[Service]\nType=oneshot\nExecStart=/bin/true\n" + "\n".join(service) + "\n")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    printed = subprocess.run(command, capture_output=True, text=True).stdout
    found = re.search(r"exposure level for \S+: (\d+\.\d)", printed)
    assert found is not None and float(found[1]) <= 2.0, printed


def start(folder: Path, shown: str, credential: str = "") -> tuple[int, str, str]:
    """Exit status, what it said, and the stand-ins that it called; systemctl shows `shown`."""
    for name, does in {
        "systemctl": f'[ "$1" = show ] && printf "{shown}"; true',
        "systemd-run": "echo systemd-run >> calls",
        "install": "echo install >> calls",
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{does}\n")
        (folder / name).chmod(0o755)
    words = ("u.service", "models", "models/d", "multigpu", "models/d/status.json", credential)
    done = subprocess.run(
        ["sh", "-c", _START, "script", *words, "--property=A=b", "program"],
        cwd=folder,
        env={"PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    calls = folder / "calls"
    return done.returncode, done.stderr, calls.read_text() if calls.exists() else ""


def test_a_fetch_that_runs_is_joined_and_not_begun_again(tmp_path: Path) -> None:
    assert start(tmp_path, "ActiveState=activating\\nJob=\\n") == (0, "", "")


def test_a_fetch_that_does_not_run_is_begun(tmp_path: Path) -> None:
    status, said, calls = start(tmp_path, "ActiveState=inactive\\nJob=\\n")
    assert (status, said) == (0, "")
    assert calls == "install\ninstall\nsystemd-run\n"


def test_a_missing_credential_is_said_before_the_unit_is_begun(tmp_path: Path) -> None:
    found = start(tmp_path, "ActiveState=inactive\\nJob=\\n", str(tmp_path / "none"))
    assert found[0] == 1 and "run deploys/serve.py with hf_token_file" in found[1]
    assert found[2] == ""


class Screen:
    """A host as `watch` sees it: each look takes the next text; what it says is kept."""

    def __init__(self, *looks: str) -> None:
        self.looks, self.said = list(looks), []

    def run_shell_command(self, command: Any, **arguments: Any) -> tuple[bool, Any]:
        text = self.looks.pop(0)
        return True, type("Output", (), {"stdout": text})()

    def log(self, text: str, **_: Any) -> None:
        self.said.append(text)

    log_styled = log


def status(**keys: Any) -> str:
    return json.dumps({"bytes_done": 1 << 30, "bytes_total": 4 << 30, "mib_per_s": 64.0, **keys})


def wait(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(waiting, "EVERY_S", 0.01)
    monkeypatch.setattr(waiting, "LINE_EVERY_S", 0.02)
    command = waiting.watch(
        "u.service", stamp="s", status="t", title="org/name", reader=watched, arguments={}
    )
    return command.function(None, screen, *command.args)  # type: ignore[no-any-return]


def test_progress_is_said_now_and_then_until_the_stamp_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = [f"ActiveState=activating\nJob=\n{status()}"] * 4
    screen = Screen(*looks, "ActiveState=inactive\nJob=\nstamp\n")
    assert wait(screen, monkeypatch)
    assert screen.said[0] == "org/name: 25 % of 4.00 GiB, 64.0 MiB/s"
    assert 1 < len(screen.said) < 4


def test_a_failed_fetch_says_its_reason_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(f"ActiveState=failed\nJob=\n{status(reason='sha256 is a, planned is b')}")
    assert not wait(screen, monkeypatch)
    assert screen.said == ["org/name: sha256 is a, planned is b"]


def test_a_fetch_that_died_without_a_reason_shows_its_last_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Screen("ActiveState=failed\nJob=\n", "Killed\noom-kill\n")
    assert not wait(screen, monkeypatch)
    assert screen.said == [
        "org/name: u.service ended without a reason: Killed; oom-kill; run it again"
    ]


def test_a_look_that_tells_nothing_is_no_success() -> None:
    assert watched("") == Watched(False, False)
