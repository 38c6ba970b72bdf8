"""Upgrades, going back, sources that fail and runs cut short, with stand-ins for runtimes.

The stand-in for vLLM is a tiny package that runs the lab's simulated vLLM; that of llama.cpp is a
source archive whose build packs the real llama-server. Both come from an index in the lab, by
hashed locks, through the same programs as real ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bed import network
from bed.client import Lab
from bed.shell import environment
from bed.uplink import Uplink
from test_serve import INVENTORY, Run, serve

from tests.stand_in_llama import make_sdist
from tests.stand_in_packages import lock, make_wheel

pytestmark = [pytest.mark.lab, pytest.mark.lab_long]
HOST = "third"
NAME = "vllm"
ENGINE = "/usr/lib/simulated-gpu/bin/vllm"
MODULE = f"""\
import os, sys
VERSION = {{version!r}}

def main():
    os.execv({ENGINE!r}, [{ENGINE!r}, *sys.argv[1:]])
"""
VERSIONS = ("1.0", "2.0", "3.0")
FILLER = 6_000_000
WORK = "/opt/multigpu/work"
COMPILER = "#!/bin/sh\\necho 12.2.0\\n"


@dataclass
class Bench:
    """The lab, an index of stand-ins in it, and the operator's folder of their locks."""

    lab: Lab
    uplink: Uplink
    index: Path
    locks: Path

    @property
    def url(self) -> str:
        return f"{self.uplink.url}/simple/"

    def wheel(self, version: str) -> Path:
        return self.index / "simple" / NAME / f"{NAME}-{version}-py3-none-any.whl"

    def arguments(self, *more: str) -> tuple[str, ...]:
        own = ("--data", f"requirements_directory={self.locks}")
        return ("--limit", HOST, *own, "--data", f"package_index={self.url}", *more)

    def serve(self, version: str, *more: str) -> Run:
        return serve(self.lab, *self.arguments(*more), **wishes(version))

    def shell(self, command: str) -> str:
        return self.lab.run(HOST, command).stdout.strip()

    def pid(self) -> str:
        return self.shell("systemctl show -P MainPID multigpu-chat")

    def runtimes(self) -> list[str]:
        """Versions whose directory is there, complete or not."""
        names = self.shell("sudo ls /opt/multigpu/runtimes").split()
        return [name.split("-")[1] for name in names]


def wishes(version: str) -> dict[str, Any]:
    wish = {
        "model": ".lab/models/tiny-hf",
        "runtime": NAME,
        "runtime_version": version,
        "strategy": "single",
        "gpus": [0],
        "context": 1024,
        "concurrency": 4,
        "port": 8100,
    }
    return {"replace": True, "services": {"chat": wish}}


@pytest.fixture(scope="module")
def bench(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    os.environ["MULTIGPU_LAB_VERIFY_S"] = "1"
    folder = tmp_path_factory.mktemp("index")
    locks = tmp_path_factory.mktemp("locks")
    lab.reset(HOST)
    with Uplink(lab.settings, folder) as uplink:
        found = Bench(lab, uplink, folder, locks)
        for version in VERSIONS:
            offer(found, version)
        yield found
    del os.environ["MULTIGPU_LAB_VERIFY_S"]
    lab.reset(HOST)


def offer(bench: Bench, version: str) -> None:
    """Put a release into the index, and its lock into the operator's folder."""
    text = MODULE.format(version=version)
    where = bench.wheel(version).parent
    wheel = make_wheel(where, NAME, version, filler=FILLER, module=text)
    (bench.locks / f"{NAME}-{version}.txt").write_text(lock(wheel))


@pytest.fixture(scope="module")
def served(bench: Bench) -> Bench:
    run = bench.serve("1.0")
    assert run.status == 0, run.said
    return bench


def untouched(bench: Bench, run: Run, pid: str, words: str) -> None:
    """One clear line, nothing half-installed, and the process of before still serves."""
    assert run.status == 1
    said = [line for line in run.lines(words) if f"[{HOST}]" in line]
    assert len(said) == 1, run.said
    assert "Traceback" not in run.said
    assert bench.runtimes() == ["1.0"]
    assert bench.shell(f"sudo ls {WORK}") == ""
    assert bench.pid() == pid
    assert "200" in bench.shell("curl -s -o /dev/null -w '%{http_code}' 127.0.0.1:8100/health")


def test_the_second_run_changes_nothing(served: Bench) -> None:
    again = served.serve("1.0")
    assert (again.status, again.totals["success"], again.totals["error"]) == (0, 0, 0), again.said


def test_a_complete_runtime_is_root_owned_and_cannot_be_written(served: Bench) -> None:
    wrong = r"sudo find /opt/multigpu/runtimes/* ! -type l \( ! -user root -o -perm /222 \)"
    assert served.shell(wrong) == ""
    assert served.shell("sudo ls /opt/multigpu/wheels") == "", "locks go once it serves"


def test_an_index_that_is_gone_leaves_the_running_service_untouched(served: Bench) -> None:
    pid = served.pid()
    gone = f"package_index=http://{network.CONTROLLER}:9/simple/"
    run = served.serve("2.0", "--data", gone)
    untouched(served, run, pid, "the package index does not answer")


def test_a_wheel_that_is_another_than_locked_leaves_it_untouched(served: Bench) -> None:
    pid, wheel = served.pid(), served.wheel("2.0")
    original = wheel.read_bytes()
    wheel.write_bytes(original.replace(b"import os, sys", b"import sys, os"))
    try:
        run = served.serve("2.0")
    finally:
        wheel.write_bytes(original)
    untouched(served, run, pid, "has another hash than the lock")


def test_a_download_that_breaks_off_leaves_it_untouched(served: Bench) -> None:
    pid = served.pid()
    served.uplink.cut = True
    try:
        run = served.serve("2.0")
    finally:
        served.uplink.cut = False
    # pip 23 of Debian 12 takes the half for the whole, and then its hash is wrong.
    words = "a download broke off" if run.lines("broke off") else "another hash than the lock"
    untouched(served, run, pid, words)


def test_a_disk_that_fills_up_leaves_it_untouched(served: Bench) -> None:
    pid = served.pid()
    served.shell(f"sudo mkdir -p {WORK} && sudo mount -t tmpfs -o size=3m small {WORK}")
    try:
        run = served.serve("2.0")
    finally:
        served.shell(f"sudo umount {WORK}")
    untouched(served, run, pid, "the disk is full")


def test_the_old_release_serves_until_the_new_one_is_complete(served: Bench) -> None:
    pid = served.pid()
    run = served.serve("2.0")
    assert run.status == 0, run.said
    assert ("Runtime", HOST) in run.changed
    assert served.pid() != pid
    stamp = float(served.shell("sudo stat -c %.Y /opt/multigpu/runtimes/vllm-2.0-*/installed"))
    began = served.shell(f'date +%s.%N -d "$(ps -o lstart= -p {served.pid()})"')
    assert float(began) >= int(stamp), "the process was replaced after the stamp was written"
    assert served.runtimes() == ["1.0", "2.0"]
    assert served.serve("2.0").totals["success"] == 0


def test_going_back_installs_nothing(served: Bench) -> None:
    run = served.serve("1.0")
    assert run.status == 0, run.said
    assert "Runtime" not in [name for name, _ in run.changed]
    assert served.runtimes() == ["1.0", "2.0"]
    assert served.serve("1.0").totals["success"] == 0


def test_a_third_release_drops_the_one_that_served_two_ago(served: Bench) -> None:
    run = served.serve("3.0")
    assert run.status == 0, run.said
    assert served.runtimes() == ["1.0", "3.0"]
    assert served.serve("3.0").totals["success"] == 0


# Each phase is told by something that can be seen on the host while it lasts.
PHASES = {
    "staging": "ls -d /var/tmp/multigpu-staging-*",
    "install": "systemctl list-units 'multigpu-install-*' | grep -q activating",
    "environment": "pgrep -f 'multigpu/runtimes/vllm.*(venv|pip)'",
    "sealed": "ls /opt/multigpu/runtimes/vllm-2.0-*/installed",
    "restart": "systemctl show -P ActiveState multigpu-chat | grep -q activating",
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_run_killed_in_this_phase_converges_on_the_next(served: Bench, phase: str) -> None:
    served.lab.run(HOST, "sudo rm -rf /opt/multigpu/runtimes/vllm-2.0-*")
    assert served.serve("1.0").status == 0
    run = begin(served, "2.0")
    try:
        until(served, f'sudo sh -c "{PHASES[phase]}"', run)
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    again = served.serve("2.0")
    assert again.status == 0, again.said
    assert served.serve("2.0").totals["success"] == 0


def begin(bench: Bench, version: str) -> subprocess.Popen[bytes]:
    """A serve of its own, to be killed."""
    words = (sys.executable, "-m", "pyinfra", INVENTORY, "deploys/serve.py", "-y")
    wished = {"MULTIGPU_LAB_SERVICES": json.dumps(wishes(version))}
    return subprocess.Popen(
        [*network.inside(bench.lab.settings), *words, *bench.arguments()],
        cwd=bench.lab.settings.checkout,
        env=environment() | wished | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def until(bench: Bench, command: str, run: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 40
    while bench.lab.run(HOST, command, check=False).returncode:
        assert run.poll() is None, f"the run ended before: {command}"
        assert time.monotonic() < deadline, command
        time.sleep(0.02)


def test_a_folder_of_wheels_on_the_controller_needs_no_index(served: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    for version in ("2.0", "3.0"):
        shutil.copy(served.wheel(version), folder)
    served.lab.run(HOST, "sudo rm -rf /opt/multigpu/runtimes/vllm-2.0-*")
    own = ("--data", f"requirements_directory={served.locks}")
    more = ("--limit", HOST, *own, "--data", f"wheel_directory={folder}")
    run = serve(served.lab, *more, **wishes("2.0"))
    assert run.status == 0, run.said
    assert served.shell("sudo ls /opt/multigpu/wheels") == "", "uploads go once it serves"
    assert serve(served.lab, *more, **wishes("2.0")).totals["success"] == 0


# --- llama.cpp: one host of a kind builds, its twin gets the wheel --------------------------------


def test_one_host_builds_and_its_twin_gets_the_wheel(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTIGPU_CACHE", str(tmp_path / "cache"))
    real = next((bench.lab.settings.state / "wheels").glob("*.whl")).resolve()
    where = bench.index / "simple" / "llama-cpp-python"
    sdist = make_sdist(where, real, "9.9")
    tool = make_wheel(bench.index / "simple" / "ninja", "ninja", "9.9")
    digest = hashlib.sha256(sdist.read_bytes()).hexdigest()
    text = f"llama-cpp-python==9.9 \\\n    --hash=sha256:{digest}\n{lock(tool)}"
    (bench.locks / "llama-cpp-python-9.9.txt").write_text(text)
    twins = (HOST, "fourth")
    for name in twins:  # what is compiled here needs no compiler; the check wants one
        bench.lab.reset(name)
        compiler = f"printf '{COMPILER}' | sudo tee /usr/bin/g++; sudo chmod 755 /usr/bin/g++"
        bench.lab.run(name, compiler)
    limits = [word for name in twins for word in ("--limit", name)]
    data = (
        "--data",
        f"requirements_directory={bench.locks}",
        "--data",
        f"package_index={bench.url}",
    )
    wish = {"wheel": None, "runtime_version": "9.9"}
    run = serve(bench.lab, *limits, *data, chat=wish)
    assert run.status == 0, run.said
    by = dict.fromkeys(name for name, _ in run.changed)
    assert "Wheels to build" in by
    built = [host for name, host in run.changed if name == "Wheels to build"]
    fetched = [host for name, host in run.changed if name == "Built wheels"]
    assert len(built) == 1, run.said
    assert fetched == built
    assert {h for name, h in run.changed if name == "Runtime"} == set(twins)
    assert run.lines("[2/3]"), "progress of the build is on the screen"
    again = serve(bench.lab, *limits, *data, chat=wish)
    assert again.totals["success"] == 0, again.said
    bench.lab.reset("fourth")
    later = serve(bench.lab, "--limit", "fourth", *data, chat=wish)
    assert later.status == 0, later.said
    assert "Wheels to build" not in [name for name, _ in later.changed]
