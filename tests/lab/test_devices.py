"""A real systemd with hardened units: a lost card keeps its service down, and a boot finds all."""

from __future__ import annotations

import time

import pytest
from bed.client import Lab
from test_serve import serve

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
HOST = "matched"
CHAT = "multigpu-chat"


@pytest.fixture(scope="module")
def served(lab: Lab) -> Lab:
    run = serve(lab, "--limit", HOST)
    assert run.status == 0, run.said
    return lab


def state(lab: Lab, unit: str = CHAT) -> str:
    return lab.run(HOST, f"systemctl is-active {unit}", check=False).stdout.strip()


def test_a_service_that_lost_a_card_does_not_start_and_the_line_says_which(served: Lab) -> None:
    served.lose_card(HOST, 1)
    try:
        served.run(HOST, f"sudo systemctl restart {CHAT}", check=False)
        assert state(served) == "inactive"
        said = served.run(HOST, "sudo journalctl -q -o cat -n 5 -u multigpu-devices").stdout
        assert "multigpu: chat does not start: GPU-" in said
        failed = served.run(HOST, "systemctl list-units --failed --plain --no-legend").stdout
        assert "multigpu-devices.service" in failed
        assert served.run(HOST, f"systemctl show -P AssertResult {CHAT}").stdout.strip() == "no"
    finally:
        served.lose_card(HOST, 1, lost=False)
    served.run(HOST, f"sudo systemctl restart {CHAT}")
    assert state(served) == "active"
    assert serve(served, "--limit", HOST).totals["success"] == 0


def test_the_start_of_a_run_ends_at_once_when_a_card_is_lost_meanwhile(served: Lab) -> None:
    served.run(HOST, f"sudo systemctl stop {CHAT}; sudo rm -f /run/multigpu-devices/chat")
    # The survey sees both cards, the devices unit none: a stand-in for a card lost in between.
    drop_in = "/etc/systemd/system/multigpu-devices.service.d"
    broken = f"sudo mkdir -p {drop_in}; printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n'"
    served.run(HOST, f"{broken} | sudo tee {drop_in}/x.conf; sudo systemctl daemon-reload")
    started = time.monotonic()
    try:
        run = serve(served, "--limit", HOST)
    finally:
        served.run(HOST, f"sudo rm -r {drop_in}; sudo systemctl daemon-reload")
    assert run.status == 1
    assert run.lines("did not become ready"), run.said
    assert time.monotonic() - started < 60
    assert serve(served, "--limit", HOST).status == 0


def test_the_engine_cannot_reach_what_its_unit_denies(served: Lab) -> None:
    pid = served.run(HOST, f"systemctl show -P MainPID {CHAT}").stdout.strip()
    status = served.run(HOST, f"sudo cat /proc/{pid}/status").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert int(fields["CapBnd"], 16) == int(fields["CapEff"], 16) == 0
    inside = (
        f"sudo nsenter -t {pid} -m setpriv --reuid multigpu-chat --regid multigpu --clear-groups"
    )
    for denied in ("ls /home/ops", "touch /opt/multigpu/x", "cat /etc/multigpu/chat.env"):
        assert served.run(HOST, f"{inside} {denied}", check=False).returncode, denied
