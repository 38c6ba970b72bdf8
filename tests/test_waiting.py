"""The shell scripts that wait on a host for systemd, run against stand-ins for its programs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("pyinfra")
from operations.runtime import _START as _INSTALL
from operations.units import _START

# The first line of `scenes` holds what systemctl shows; each sleep brings the next line up.
PROGRAMS = {
    "systemctl": """\
echo "systemctl $*" >> calls
[ "$1" = is-active ] && exit 3
[ "$1" = show ] || exit 0
for property in $(head -n 1 scenes); do
  case " $* " in
    *" -p ${property%%=*} --value "*) echo "${property#*=}" ;;
    *" --value "*) ;;
    *" -p ${property%%=*} "*) echo "$property" ;;
  esac
done
""",
    "sleep": '[ "$(wc -l < scenes)" -eq 1 ] || sed -i 1d scenes; : > slept\n',
    "journalctl": "echo 'the last words'\n",
    "systemd-run": 'echo "systemd-run $*" >> calls; [ ! -e refuses ]\n',
}


class Bench:
    """A folder of stand-ins and the scenes they play."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in PROGRAMS.items():
            (folder / name).write_text(f"#!/bin/sh\n{text}")
            (folder / name).chmod(0o755)

    def run(self, script: str, *arguments: str, scenes: list[str]) -> tuple[int, str]:
        (self.folder / "scenes").write_text("".join(f"{scene}\n" for scene in scenes))
        done = subprocess.run(
            ["sh", "-c", script, "script", *arguments],
            cwd=self.folder,
            env={"PATH": f"{self.folder}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=20,
        )
        return done.returncode, done.stderr

    @property
    def calls(self) -> str:
        path = self.folder / "calls"
        return path.read_text() if path.exists() else ""

    @property
    def waited(self) -> bool:
        return (self.folder / "slept").exists()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def scene(state: str, status: str = "", invocation: str = "2", restarts: int = 0) -> str:
    return f"ActiveState={state} StatusText={status} InvocationID={invocation} NRestarts={restarts}"


START = ("multigpu-chat.service", "restart", "20")
SERVES_STILL = scene("active", "serving", invocation="1")


def test_the_process_that_is_about_to_be_replaced_does_not_count_as_started(bench: Bench) -> None:
    scenes = [SERVES_STILL, scene("activating", "loading"), scene("active", "serving")]
    assert bench.run(_START, *START, scenes=scenes) == (0, "")
    assert bench.waited


def test_a_failure_of_the_process_before_does_not_count(bench: Bench) -> None:
    scenes = [scene("failed", invocation="1", restarts=5), scene("active", "serving")]
    assert bench.run(_START, *START, scenes=scenes) == (0, "")


@pytest.mark.parametrize("end", [scene("failed"), scene("activating", restarts=2)])
def test_an_engine_that_cannot_start_fails_with_its_last_words(bench: Bench, end: str) -> None:
    status, said = bench.run(_START, *START, scenes=[SERVES_STILL, end])
    assert status == 1
    assert "did not become ready" in said and "the last words" in said


def test_a_unit_that_never_starts_is_given_up(bench: Bench) -> None:
    status, said = bench.run(_START, *START, scenes=[scene("inactive", invocation="1")])
    assert (status, "inactive" in said) == (1, True)


def test_waiting_restarts_nothing(bench: Bench) -> None:
    scenes = [scene("activating", "loading"), scene("active", "serving")]
    wait = ("multigpu-chat.service", "wait", "20")
    assert bench.run(_START, *wait, scenes=scenes) == (0, "")
    assert "restart" not in bench.calls


Install = tuple[str, ...]
IDLE = ["ActiveState=inactive Job=0"]


@pytest.fixture
def install(bench: Bench) -> Install:
    """Unit, stamp, status, proxy, login, and the program with its arguments."""
    stamp, status = (str(bench.folder / name) for name in ("installed", "status"))
    return "multigpu-install-x.service", stamp, status, "", "/nonexistent", "python3", "x.pyz"


@pytest.mark.parametrize("shown", ["ActiveState=activating Job=0", "ActiveState=inactive Job=7"])
def test_an_installation_that_runs_or_is_queued_is_joined(
    bench: Bench, install: Install, shown: str
) -> None:
    assert bench.run(_INSTALL, *install, scenes=[shown]) == (0, "")
    assert "systemd-run" not in bench.calls


def test_a_complete_installation_is_not_begun(bench: Bench, install: Install) -> None:
    (bench.folder / "installed").touch()
    assert bench.run(_INSTALL, *install, scenes=IDLE) == (0, "")
    assert "systemd-run" not in bench.calls


def test_the_reason_of_an_attempt_before_is_forgotten(bench: Bench, install: Install) -> None:
    (bench.folder / "status").write_text('{"reason": "the disk is full"}')
    assert bench.run(_INSTALL, *install, scenes=IDLE) == (0, "")
    assert not (bench.folder / "status").exists()
    assert "python3 x.pyz" in bench.calls


def test_a_start_that_systemd_refuses_fails(bench: Bench, install: Install) -> None:
    (bench.folder / "refuses").touch()
    status, _ = bench.run(_INSTALL, *install, scenes=IDLE)
    assert status != 0


def test_proxy_and_login_reach_the_installing_unit_alone(bench: Bench, install: Install) -> None:
    login = bench.folder / "netrc"
    login.write_text("machine index.lan login ada password hunter2\n")
    words = (*install[:3], "http://proxy.lan:3128", str(login), *install[5:])
    assert bench.run(_INSTALL, *words, scenes=IDLE) == (0, "")
    assert "--setenv=https_proxy=http://proxy.lan:3128" in bench.calls
    assert f"--property=LoadCredential=netrc:{login}" in bench.calls
    assert "hunter2" not in bench.calls
