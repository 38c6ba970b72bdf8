"""Two replicas of the real llama-server behind HAProxy, on a real host with simulated cards."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bed.client import Lab
from test_serve import Run, pyinfra, serve

pytestmark = pytest.mark.lab
HOST = "matched"
LIMIT = ("--limit", HOST)
SOCKET = "/run/multigpu-endpoint-chat/admin.sock"
CLIENTS = Path(__file__).parent / "clients.py"
WISH: dict[str, Any] = {"strategy": "replicas", "context": 2048, "concurrency": 8}


def chat(lab: Lab, *arguments: str, **wish: Any) -> Run:
    """Serve the replicas; keywords are keys of the wish."""
    return serve(lab, *LIMIT, *arguments, chat={**WISH, **wish})


def balanced(lab: Lab, **wish: Any) -> Lab:
    run = chat(lab, **wish)
    assert run.status == 0, run.said
    return lab


@pytest.fixture(scope="module")
def replicas(lab: Lab) -> Iterator[Lab]:
    lab.put(HOST, CLIENTS, "/tmp/clients.py")
    yield balanced(lab)
    pyinfra(lab, "deploys/remove.py", *LIMIT)


def states(lab: Lab) -> dict[str, str]:
    """Servers of the endpoint and what HAProxy holds of them."""
    ask = f"s.connect('{SOCKET}'); s.sendall(b'show stat\\n'); print(s.makefile().read())"
    text = lab.run(HOST, f'sudo python3 -c "import socket; s = socket.socket(1); {ask}"').stdout
    rows = [row.split(",") for row in text.splitlines()]
    return {row[1]: row[17] for row in rows if row[0] == "chat" and row[1].startswith("chat-")}


def until(lab: Lab, wanted: dict[str, str], seconds: float = 60) -> float:
    started = time.monotonic()
    while (seen := states(lab)) != wanted:
        assert time.monotonic() - started < seconds, seen
        time.sleep(0.3)
    return time.monotonic() - started


UP = {"chat-0": "UP", "chat-1": "UP"}


def under_load(lab: Lab, seconds: int, meanwhile: str, *, users: int = 8) -> dict[str, int]:
    """What clients saw who asked for `seconds` while a command ran in the middle of it."""
    load = f"python3 /tmp/clients.py http://127.0.0.1:8000 {users} {seconds} > /tmp/seen.json"
    lab.run(HOST, f"{load} & sleep 3; {meanwhile}; wait", timeout=180)
    seen: dict[str, int] = json.loads(lab.run(HOST, "cat /tmp/seen.json").stdout)
    print(f"{meanwhile}: {seen}")
    return seen


def failures(seen: dict[str, int]) -> dict[str, int]:
    """Requests that failed before anything was streamed."""
    return {word: count for word, count in seen.items() if word.startswith("failed")}


def test_the_package_is_installed_and_its_own_service_is_not_enabled(replicas: Lab) -> None:
    own = replicas.run(HOST, "systemctl is-enabled haproxy; systemctl is-active haproxy", False)
    assert own.stdout.split() == ["disabled", "inactive"]
    ours = replicas.run(HOST, "systemctl is-active multigpu-endpoint-chat").stdout
    assert ours.strip() == "active"
    who = replicas.run(HOST, "ps -o user= -C haproxy").stdout.split()
    assert set(who) == {"haproxy"}


def test_a_second_run_changes_nothing(replicas: Lab) -> None:
    run = chat(replicas)
    assert (run.status, run.totals["success"]) == (0, 0), run.said


def test_one_of_two_replicas_is_killed_under_load_and_no_waiting_request_fails(
    replicas: Lab,
) -> None:
    until(replicas, UP)
    kill = "sudo pkill -9 -f '^/opt.*llama-server.*--port 8001'"
    seen = under_load(replicas, 12, kill)
    assert failures(seen) == {}, seen
    assert seen["done"] > 20
    until(replicas, UP)


def test_a_rolling_restart_cuts_no_stream(replicas: Lab) -> None:
    until(replicas, UP)
    load = "python3 /tmp/clients.py http://127.0.0.1:8000 4 45 > /tmp/seen.json 2>&1 &"
    replicas.run(HOST, f"nohup sh -c '{load}' >/dev/null 2>&1")
    run = chat(replicas, env={"LLAMA_LOG_COLORS": "off"})
    assert run.status == 0, run.said
    deadline = time.monotonic() + 60
    while replicas.run(HOST, "pgrep -f clients.py", False).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    seen = json.loads(replicas.run(HOST, "cat /tmp/seen.json").stdout)
    print(f"rolling restart: {seen}")
    assert set(seen) == {"done"}, seen


def test_a_frozen_engine_leaves_the_rotation(replicas: Lab) -> None:
    until(replicas, UP)
    replicas.run(HOST, "sudo pkill -STOP -f '^/opt.*llama-server.*--port 8001'")
    waited = time.monotonic()
    while states(replicas)["chat-0"] == "UP":
        assert time.monotonic() - waited < 30
        time.sleep(0.3)
    print(f"frozen: out of rotation after {time.monotonic() - waited:.1f} s")
    replicas.run(HOST, "sudo pkill -CONT -f '^/opt.*llama-server.*--port 8001'")
    until(replicas, UP)


def test_another_balance_is_reloaded_without_cutting_a_stream(replicas: Lab) -> None:
    balanced(replicas)
    until(replicas, UP)
    load = "python3 /tmp/clients.py http://127.0.0.1:8000 4 20 > /tmp/seen.json 2>&1 &"
    replicas.run(HOST, f"nohup sh -c '{load}' >/dev/null 2>&1")
    run = chat(replicas, endpoint={"balance": "prefix_hash"})
    assert run.status == 0, run.said
    assert {name for name, _ in run.changed} == {"Services", "Generation verified"}
    while replicas.run(HOST, "pgrep -f clients.py", False).stdout:
        time.sleep(0.5)
    seen = json.loads(replicas.run(HOST, "cat /tmp/seen.json").stdout)
    print(f"reload: {seen}")
    assert set(seen) == {"done"}, seen
