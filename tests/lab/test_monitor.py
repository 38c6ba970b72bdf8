"""deploys/monitor.py on a real systemd: page, lost card, Xid, and no change the second time."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from bed.client import Lab
from test_serve import pyinfra, serve

pytestmark = pytest.mark.lab
HOST = "matched"
XID = "NVRM: Xid (PCI:0000:01:00): 31, pid=1, name=x, MMU Fault"


@pytest.fixture(scope="module")
def watched(lab: Lab) -> Iterator[Lab]:
    run = pyinfra(lab, "deploys/monitor.py", "--limit", HOST)
    assert run.status == 0, run.said
    yield lab


def page(lab: Lab) -> str:
    return lab.run(HOST, "curl -sf http://127.0.0.1:18835/metrics").stdout


def value(lab: Lab, name: str, *labels: str) -> float | None:
    lines = (line for line in page(lab).splitlines() if line.startswith(f"multigpu_{name}"))
    found = [line for line in lines if all(label in line for label in labels)]
    return float(found[0].rpartition(" ")[2]) if found else None


def wait_for(holds: Callable[[], bool], limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(1)


def test_the_second_run_changes_nothing(watched: Lab) -> None:
    run = pyinfra(watched, "deploys/monitor.py", "--limit", HOST)
    assert (run.status, run.totals["success"], run.totals["error"]) == (0, 0, 0), run.said


def test_the_page_tells_the_cards_and_promtool_finds_nothing_to_say(watched: Lab) -> None:
    assert value(watched, "gpu_up", 'gpu="1"') == 1
    assert value(watched, "exporter_source_up", 'source="kernel_log"') == 1, page(watched)
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here (Debian and Ubuntu: apt-get install prometheus)")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=page(watched), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_exporter_is_nobody_and_the_kernel_log_has_one_capability(watched: Lab) -> None:
    for unit, capabilities in (("exporter", 0), ("kernel-log", 1 << 34)):  # CAP_SYSLOG is 34
        pid = watched.run(HOST, f"systemctl show -P MainPID multigpu-{unit}").stdout.strip()
        status = watched.run(HOST, f"sudo cat /proc/{pid}/status").stdout
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert int(fields["CapBnd"], 16) & ~capabilities == 0  # nspawn grants no CAP_SYSLOG
        assert (fields["Uid"].split()[0] == "0") == (unit == "kernel-log")


def test_a_lost_card_and_a_line_of_the_kernel_are_told(watched: Lab) -> None:
    watched.lose_card(HOST, 1)
    try:
        wait_for(lambda: value(watched, "gpu_up", 'gpu="1"', 'uuid="GPU-') == 0)
    finally:
        watched.lose_card(HOST, 1, lost=False)
    wait_for(lambda: value(watched, "gpu_up", 'gpu="1"') == 1)
    watched.run(HOST, f"echo '{XID}' > /run/simulated-gpu/kmsg")
    wait_for(lambda: value(watched, "gpu_xid_total", 'code="31"', 'gpu="0"') == 1)


def test_a_service_is_told_and_serve_leaves_the_watchers_alone(watched: Lab) -> None:
    run = serve(watched, "--limit", HOST)
    assert run.status == 0, run.said
    assert watched.run(HOST, "systemctl is-active multigpu-exporter").stdout.strip() == "active"
    wait_for(lambda: value(watched, "service_state", 'service="chat"', 'state="serving"') == 1)
    assert value(watched, "service_plan_info", 'service="chat"', 'simulated="true"') == 1
    assert (value(watched, "service_processes", 'service="chat"') or 0) > 1
    assert (value(watched, "service_gpu_memory_predicted_bytes", 'gpu="1"') or 0) > 0
    assert serve(watched, "--limit", HOST).totals["success"] == 0


def test_remove_takes_the_watchers_away(watched: Lab) -> None:
    assert pyinfra(watched, "deploys/remove.py", "--limit", HOST).status == 0
    left = watched.run(
        HOST, "ls /etc/systemd/system | grep '^multigpu-.*service$'", check=False
    ).stdout
    assert left == ""
    assert pyinfra(watched, "deploys/remove.py", "--limit", HOST).totals["success"] == 0
