"""Deploys as transactions on a real host with simulated cards: what fails goes back by itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from bed import network
from bed.client import Lab
from bed.shell import environment
from test_serve import INVENTORY, Run, pyinfra, serve

pytestmark = pytest.mark.lab
HOST = "matched"
LIMIT = ("--limit", HOST)
RPC = "127.0.0.1:50052,127.0.0.1:50053"
BROKEN = {"flags": {"--rpc": RPC, "--chat-template": "{{ broken"}}
STATE = "sudo cat /etc/multigpu/generations/state.json"
PROGRAM = "python3 $(ls -t /opt/multigpu/host/*.pyz | head -n 1)"


@pytest.fixture(autouse=True)
def short_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIGPU_LAB_VERIFY_S", "1")


@pytest.fixture(scope="module")
def served(lab: Lab) -> Iterator[Lab]:
    """One host serves a verified generation."""
    run = serve(lab, *LIMIT)
    assert run.status == 0, run.said
    yield lab
    pyinfra(lab, "deploys/remove.py", *LIMIT)


def chat(lab: Lab, **wish: Any) -> Run:
    return serve(lab, *LIMIT, chat=wish)


def state(lab: Lab) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lab.run(HOST, STATE).stdout)
    return found


def pid(lab: Lab) -> str:
    return lab.run(HOST, "systemctl show -P MainPID multigpu-chat").stdout.strip()


def answers(lab: Lab) -> bool:
    body = json.dumps({"prompt": "two", "max_tokens": 2})
    asked = f"curl -s -m 10 -d '{body}' 127.0.0.1:8000/v1/completions"
    return "usage" in lab.run(HOST, asked, check=False).stdout


def begin(lab: Lab, **wish: Any) -> subprocess.Popen[bytes]:
    """A serve of its own, to be killed or to be in the way."""
    words = (sys.executable, "-m", "pyinfra", INVENTORY, "deploys/serve.py", "-y", *LIMIT)
    return subprocess.Popen(
        ["nsenter", *network.inside(lab.settings), *words],
        cwd=lab.settings.checkout,
        env=environment()
        | {
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "MULTIGPU_LAB_SERVICES": json.dumps({"chat": wish}),
            "MULTIGPU_LAB_VERIFY_S": "20",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def until(lab: Lab, command: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while lab.run(HOST, command, check=False).returncode:
        assert time.monotonic() < deadline, command
        time.sleep(0.1)


def test_a_verified_generation_is_good_and_a_second_run_changes_nothing(served: Lab) -> None:
    found = state(served)
    assert found["generations"][str(found["current"])]["status"] == "good"
    run = serve(served, *LIMIT)
    assert (run.status, run.totals["success"]) == (0, 0), run.said


def test_a_generation_with_a_wrong_flag_goes_back_and_the_old_one_answers(served: Lab) -> None:
    before = state(served)["current"]
    started = time.monotonic()
    run = chat(served, **BROKEN)
    print(f"returned after {time.monotonic() - started:.0f} s: {run.lines('serves again')}")
    assert run.status == 1, run.said
    assert run.lines("the previous generation serves again"), run.said
    found = state(served)
    assert (found["current"], found["unfinished"]) == (before, None)
    assert answers(served)
    assert serve(served, *LIMIT).totals["success"] == 0


def test_a_generation_that_never_becomes_ready_goes_back_within_its_start_time(
    served: Lab,
) -> None:
    assert chat(served, start_s=30).status == 0
    never = {"--rpc": "10.255.255.1:50052"}
    started = time.monotonic()
    run = chat(served, start_s=30, flags=never)
    seconds = time.monotonic() - started
    print(f"never ready: returned after {seconds:.0f} s")
    assert run.status == 1 and run.lines("the previous generation serves again"), run.said
    assert answers(served)


def test_rollback_returns_by_hand_and_a_second_time_changes_nothing(served: Lab) -> None:
    assert serve(served, *LIMIT).status == 0
    assert chat(served, context=1024).status == 0
    newer = state(served)["current"]
    run = pyinfra(served, "deploys/rollback.py", *LIMIT)
    assert run.status == 0, run.said
    found = state(served)
    assert (found["rolled_back_from"], found["current"] < newer) == (newer, True)
    assert "--ctx-size 4096" in served.run(HOST, "ps -o args= -C llama-server").stdout
    assert run.lines("the next deploys/serve.py goes forward"), run.said
    again = pyinfra(served, "deploys/rollback.py", *LIMIT)
    assert (again.status, again.totals["success"]) == (0, 0), again.said
    assert chat(served, context=1024).status == 0
    assert state(served)["rolled_back_from"] is None


def test_of_two_deploys_at_once_the_second_stops_in_one_line(served: Lab) -> None:
    first = begin(served, context=2048)
    try:
        lock = "/run/multigpu/deploy.lock"
        until(served, f"grep -q since {lock} && ! flock -n {lock} true")
        run = chat(served, context=512)
        assert run.status == 1 and run.lines("another deploy works on this host"), run.said
        assert chat_dry(served).status == 0
        first.send_signal(signal.SIGKILL)
        first.wait()
        until(served, "flock -n /run/multigpu/deploy.lock true", 10)
    finally:
        first.kill()
        first.wait()
    assert chat(served, context=2048).status == 0
    assert chat(served, context=2048).totals["success"] == 0


def chat_dry(lab: Lab) -> Run:
    return pyinfra(lab, "deploys/serve.py", "--dry", *LIMIT, chat={"context": 512})


def test_a_transaction_whose_program_is_killed_is_completed_by_the_next_deploy(
    served: Lab,
) -> None:
    first = begin(served, context=512)
    until(served, "systemctl is-active multigpu-transaction | grep -q activating")
    served.run(HOST, "sudo systemctl kill -s KILL multigpu-transaction")
    first.kill()
    first.wait()
    run = serve(served, *LIMIT)
    assert run.status == 0, run.said
    assert answers(served) and state(served)["unfinished"] is None
    assert serve(served, *LIMIT).totals["success"] == 0


def test_after_a_power_cut_in_a_transaction_the_old_generation_boots(served: Lab) -> None:
    before = state(served)["current"]
    first = begin(served, context=512)
    until(served, f"{STATE} | grep -q 'swap and start'")
    served.run(HOST, "sudo systemctl reboot --force --force", check=False)
    first.kill()
    first.wait()
    until(served, "systemctl is-active multigpu-chat", 90)
    assert state(served)["current"] == before
    assert answers(served)
