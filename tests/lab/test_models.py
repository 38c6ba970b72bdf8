"""Models that a host fetches itself: over http from the lab's bridge, and from a simulated hub."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from bed import network
from bed.client import Lab
from bed.shell import environment
from test_serve import INVENTORY, Run, running

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
PORT = 8700
TOKEN = "hf_simulatedtokenofthelab"
HOST = "third"
DEPLOY = "deploys/serve.py"


@dataclass(frozen=True)
class Web:
    """The server on the lab's bridge: `/tiny.gguf`, `/slow/tiny.gguf`, and the simulated hub."""

    lab: Lab
    sha256: str
    token_file: Path
    url: str = f"http://{network.CONTROLLER}:{PORT}"

    @property
    def directory(self) -> str:
        return f"/var/lib/multigpu/models/{self.sha256[:12]}"

    @property
    def unit(self) -> str:
        return f"multigpu-fetch-{self.sha256[:12]}.service"

    def forget(self) -> None:
        """The host as it was before it fetched anything."""
        self.lab.run(HOST, f"sudo systemctl stop {self.unit}; sudo rm -rf {self.directory}")

    def wish(self, path: str, **more: object) -> dict[str, object]:
        return {"model": f"{self.url}{path}", "sha256": self.sha256, **more}

    def argv(self, wish: dict[str, object]) -> list[str]:
        return [
            *network.inside(self.lab.settings),
            "env",
            f"HF_ENDPOINT={self.url}",
            f"MULTIGPU_LAB_SERVICES={json.dumps({'chat': wish})}",
            *(sys.executable, "-m", "pyinfra", INVENTORY, DEPLOY, "-y", "--json"),
            *("--limit", HOST),
        ]

    def serve(self, wish: dict[str, object]) -> Run:
        done = subprocess.run(
            self.argv(wish), cwd=self.lab.settings.checkout, env=clean(), text=True,
            capture_output=True, timeout=200, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        results = json.loads(done.stdout)["results"] if done.stdout.strip() else {}
        return Run(done.returncode, results, done.stderr)

    def show(self, name: str) -> str:
        return self.lab.run(HOST, f"systemctl show -P {name} {self.unit}").stdout.strip()


def clean() -> dict[str, str]:
    return {k: v for k, v in environment().items() if "proxy" not in k.lower()}


@pytest.fixture(scope="module")
def web(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("web")
    model = lab.settings.state / "models" / "tiny.gguf"
    for place in ("tiny.gguf", "slow/tiny.gguf", "org/tiny-gated/tiny-F16.gguf"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(model, folder / place)
    token_file = folder / "token"
    token_file.write_text(TOKEN + "\n")
    token_file.chmod(0o600)
    program = Path(__file__).parent.parent / "simulated_hub.py"
    server = subprocess.Popen(
        [*network.inside(lab.settings), sys.executable, program, folder, str(PORT), TOKEN],
        stdout=subprocess.PIPE, env=clean(),
    )  # fmt: skip
    try:
        assert server.stdout is not None and server.stdout.readline() == b"ready\n"
        yield Web(lab, hashlib.sha256(model.read_bytes()).hexdigest(), token_file)
    finally:
        server.kill()
        server.communicate()


def test_a_gguf_of_an_address_is_fetched_by_its_unit_and_served(web: Web) -> None:
    web.forget()
    run = web.serve(web.wish("/tiny.gguf"))
    assert run.status == 0, run.said
    assert ("Models", HOST) in run.changed
    assert f"--model {web.directory}/tiny.gguf" in running(web.lab, HOST)
    found = web.lab.run(HOST, f"sha256sum {web.directory}/tiny.gguf").stdout
    assert found.startswith(web.sha256)
    left = web.lab.run(HOST, f"ls {web.directory}").stdout.split()
    assert left == ["complete", "tiny.gguf"]
    again = web.serve(web.wish("/tiny.gguf"))
    assert (again.status, again.totals["success"]) == (0, 0), again.said


def test_a_killed_deploy_leaves_the_fetch_running_and_the_next_one_joins_it(web: Web) -> None:
    web.forget()
    wish = web.wish("/slow/tiny.gguf")
    first = subprocess.Popen(
        web.argv(wish), cwd=web.lab.settings.checkout, env=clean(), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    partial = f"{web.directory}/tiny.gguf.partial"
    deadline = time.monotonic() + 60
    while web.lab.run(HOST, f"test -s {partial}", check=False).returncode:
        assert first.poll() is None, "the deploy ended before the fetch began"
        assert time.monotonic() < deadline, "the fetch never began"
        time.sleep(0.3)
    first.send_signal(signal.SIGKILL)
    first.wait()
    invocation, before = web.show("InvocationID"), web.lab.run(HOST, f"stat -c %s {partial}").stdout
    assert web.show("User") == "multigpu"
    time.sleep(2)
    after = web.lab.run(HOST, f"stat -c %s {partial}").stdout
    assert int(after) > int(before), "the fetch goes on by itself"
    run = web.serve(wish)
    assert run.status == 0, run.said
    assert (
        invocation
        in web.lab.run(
            HOST,
            f"sudo journalctl -o json --output-fields=_SYSTEMD_INVOCATION_ID -u {web.unit} -n 5",
        ).stdout
    ), "the second deploy began no fetch of its own"
    assert run.lines(" MiB/s"), "progress is shown"
    assert f"--model {web.directory}/tiny.gguf" in running(web.lab, HOST)


def test_a_wrong_sha256_is_one_line_and_the_old_service_goes_on(web: Web) -> None:
    web.serve(web.wish("/tiny.gguf"))
    before = web.lab.run(HOST, "pgrep llama-server").stdout
    wrong = "0" * 64
    run = web.serve({**web.wish("/tiny.gguf"), "sha256": wrong})
    assert run.status == 1, run.said
    assert run.lines(f"sha256 is {web.sha256}, planned is {wrong}"), run.said
    assert web.lab.run(HOST, "pgrep llama-server").stdout == before
    left = web.lab.run(HOST, f"ls /var/lib/multigpu/models/{wrong[:12]}").stdout.split()
    assert left == ["status.json"]
    assert web.serve(web.wish("/tiny.gguf")).status == 0


def test_a_gated_repository_is_fetched_with_a_token_that_nobody_else_sees(web: Web) -> None:
    web.forget()
    without = web.serve({"model": "org/tiny-gated:F16"})
    assert without.status == 1 and without.lines("accept the licence"), without.said
    wish = {"model": "org/tiny-gated:F16", "hf_token_file": str(web.token_file)}
    run = web.serve(wish)
    assert run.status == 0, run.said
    assert f"--model {web.directory}/tiny-F16.gguf" in running(web.lab, HOST)
    assert TOKEN not in run.said
    seen = (
        "sudo journalctl -q --no-pager; systemctl show '*'; sudo cat /proc/*/cmdline "
        "/proc/*/environ; sudo grep -rl hf_simulated /opt/multigpu /var/lib/multigpu /etc/systemd "
        "/run/systemd /var/tmp /tmp; sudo find /etc/multigpu -name '*hf_token' -printf '%m %u\\n'"
    )
    told = web.lab.run(HOST, f"({seen}) 2>/dev/null", check=False).stdout
    assert TOKEN not in told
    assert told.endswith("600 root\n")
    assert web.serve(wish).totals["success"] == 0
