"""Runs cut short, broken runtimes and changed wishes on real hosts: the next run converges."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from bed import network
from bed.client import Lab
from bed.shell import environment
from test_serve import INVENTORY, pyinfra, serve

pytestmark = pytest.mark.lab
THEIRS = "/etc/systemd/system/multigpu-theirs.service"
SIMULATED = {
    "model": ".lab/models/tiny-hf",
    "runtime": "vllm",
    "strategy": "single",
    "executable": "/usr/lib/simulated-gpu/bin/vllm",
    "context": 1024,
}


@pytest.fixture(autouse=True)
def short_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIGPU_LAB_VERIFY_S", "1")


def begin(lab: Lab, host: str) -> subprocess.Popen[bytes]:
    """A serve of its own, to be killed."""
    words = (sys.executable, "-m", "pyinfra", INVENTORY, "deploys/serve.py", "-y", "--limit", host)
    return subprocess.Popen(
        ["nsenter", *network.inside(lab.settings), *words],
        cwd=lab.settings.checkout,
        env=environment() | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def until(lab: Lab, host: str, command: str) -> None:
    """Wait for a command to succeed on a host."""
    deadline = time.monotonic() + 20
    while lab.run(host, command, check=False).returncode:
        assert time.monotonic() < deadline, command
        time.sleep(0.1)


def test_a_run_killed_while_the_runtime_installs_converges_on_the_next(lab: Lab) -> None:
    lab.reset("third")
    run = begin(lab, "third")
    until(lab, "third", "systemctl list-units 'multigpu-install-*' | grep -q activating")
    run.send_signal(signal.SIGKILL)
    run.wait()
    again = serve(lab, "--limit", "third")
    assert again.status == 0, again.said
    assert serve(lab, "--limit", "third").totals["success"] == 0


def test_a_renamed_service_leaves_nothing_and_an_operators_own_unit_stays(lab: Lab) -> None:
    unit = r"[Service]\nExecStart=/usr/bin/sleep infinity\n"
    lab.run("third", f"printf '{unit}' | sudo tee {THEIRS} && sudo systemctl daemon-reload")
    lab.run("third", "sudo systemctl start multigpu-theirs")
    wish = {**SIMULATED, "gpus": [0], "port": 8100}
    run = serve(lab, "--limit", "third", replace=True, services={"small": wish})
    assert run.status == 0, run.said
    units = lab.run("third", "cd /etc/systemd/system; ls -d multigpu-*.service").stdout.split()
    assert {"multigpu-theirs.service", "multigpu-small.service"} <= set(units)
    assert not [name for name in units if "chat" in name], "the service that is wished no more"
    assert "chat.env" not in lab.run("third", "sudo ls /etc/multigpu").stdout.split()
    removed = pyinfra(lab, "deploys/remove.py", "--limit", "third")
    assert removed.status == 0, removed.said
    assert lab.run("third", "systemctl is-active multigpu-theirs").stdout == "active\n"
    lab.run("third", f"sudo systemctl stop multigpu-theirs; sudo rm {THEIRS}")


def test_two_services_swap_their_cards_and_ports_in_one_run(lab: Lab) -> None:
    def wishes(first: int, second: int) -> dict[str, object]:
        small = {**SIMULATED, "gpus": [first], "port": 8100 + first}
        return {"small": small, "other": {**SIMULATED, "gpus": [second], "port": 8100 + second}}

    assert serve(lab, "--limit", "third", replace=True, services=wishes(0, 1)).status == 0
    run = serve(lab, "--limit", "third", replace=True, services=wishes(1, 0))
    assert run.status == 0, run.said
    assert len(run.lines("all checks passed")) == 2


def test_an_engine_that_cannot_start_says_its_last_words_in_bounded_time(lab: Lab) -> None:
    table = {"--rpc": "127.0.0.1:50052,127.0.0.1:50053", "--chat-template": "{{ broken"}
    started = time.monotonic()
    run = serve(lab, "--limit", "third", chat={"flags": table})
    assert run.status == 1
    assert run.lines("its last words"), run.said
    assert time.monotonic() - started < 40
