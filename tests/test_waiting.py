"""What waits on a host for systemd, against stand-ins for its programs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("pyinfra")
from multigpu.host import transaction_units as units
from multigpu.host.transaction_store import Failed
from operations.runtime import _START as _INSTALL

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


def scene(state: str, status: str = "", invocation: str = "2", restarts: int = 0) -> Scene:
    return {
        "ActiveState": state,
        "StatusText": status,
        "InvocationID": invocation,
        "NRestarts": str(restarts),
    }


Scene = dict[str, str]
UNIT = {"name": "multigpu-chat.service", "start_s": 1}
SERVES_STILL = scene("active", "serving", invocation="1")


class Play:
    """systemd shows one scene after the other, the last one for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scenes: list[Scene] = []
        self.calls: list[str] = []
        monkeypatch.setattr(units, "show", lambda *_: self.scenes[0])
        monkeypatch.setattr(units, "systemctl", self.systemctl)
        monkeypatch.setattr(units, "journal", lambda *_: ["the last words"])
        monkeypatch.setattr(units.time, "sleep", self.sleep)
        monkeypatch.setattr(units, "DRAIN_S", -11)

    def systemctl(self, *words: str) -> int:
        self.calls.append(" ".join(words))
        return 0

    def sleep(self, _: float) -> None:
        self.scenes = self.scenes[1:] or self.scenes


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    return Play(monkeypatch)


def said(_: str) -> None:
    """Nobody looks."""


def test_the_process_that_is_about_to_be_replaced_does_not_count_as_started(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "DRAIN_S", 100)
    play.scenes = [SERVES_STILL, scene("activating", "loading"), scene("active", "serving")]
    units.restart(UNIT, said)
    assert play.scenes == [scene("active", "serving")]


def test_a_failure_of_the_process_before_does_not_count(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "DRAIN_S", 100)
    play.scenes = [scene("failed", invocation="1", restarts=5), scene("active", "serving")]
    units.restart(UNIT, said)


@pytest.mark.parametrize("end", [scene("failed"), scene("activating", restarts=2)])
def test_an_engine_that_cannot_start_fails_with_its_last_words(
    play: Play, monkeypatch: pytest.MonkeyPatch, end: Scene
) -> None:
    monkeypatch.setattr(units, "DRAIN_S", 100)
    play.scenes = [SERVES_STILL, end]
    with pytest.raises(Failed, match=r"did not become ready: .*; its last words: the last words"):
        units.restart(UNIT, said)


def test_a_unit_that_never_starts_is_given_up(play: Play) -> None:
    play.scenes = [scene("inactive", invocation="1")]
    with pytest.raises(Failed, match="inactive"):
        units.restart(UNIT, said)


def test_a_unit_behind_a_fence_is_given_up_at_once(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "DRAIN_S", 1000)
    play.scenes = [{**scene("inactive", invocation="1"), "ConditionResult": "no", "Job": "0"}]
    with pytest.raises(Failed, match="a fence"):
        units.restart(UNIT, said)


def test_waiting_restarts_nothing(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "DRAIN_S", 100)
    play.scenes = [scene("activating", "loading"), scene("active", "serving")]
    units.wait(UNIT, said)
    assert play.calls == []


def process(wish: str, name: str, gpus: list[int], port: int = 8000) -> dict[str, object]:
    return {"name": name, "wish": wish, "gpus": gpus, "port": port}


def test_services_that_may_have_swapped_cards_restart_together_replicas_do_not() -> None:
    first, second = process("chat", "a", [0]), process("chat", "b", [1], 8001)
    other = process("embed", "c", [2], 8002)
    assert units.together([first, other], [first, other])
    assert not units.together([first, second], [first, second])
    assert not units.together([first], [first, second, other])


def test_replicas_of_which_one_takes_the_card_of_another_restart_together() -> None:
    old = [process("chat", "a", [0]), process("chat", "b", [1], 8001)]
    new = [process("chat", "a", [0, 1]), process("chat", "b", [2, 3], 8001)]
    assert units.together(new, old)


def test_ports_count_where_the_order_is_not_chosen() -> None:
    old = [process("chat", "a", [0], 8001), process("chat", "b", [1], 8002)]
    new = [process("chat", "a", [0], 8000), process("chat", "b", [1], 8001)]
    assert not units.together(new, old)
    assert units.together(new, old, ports=True)


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
