"""The supervisor over an engine that fails as vLLM does: what it says, what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from multigpu.host import processes, state
from multigpu.host.verdicts import EXIT_STATUSES
from multigpu.runtimes import llama_cpp, sglang, vllm
from tests.plans import plan

pytestmark = pytest.mark.process

SOURCE = Path(__file__).parent.parent
SHAPES = {"vllm": vllm, "sglang": sglang, "llama": llama_cpp}
CLOCKS = {"tick-s": 0.2, "stall-s": 6, "corroborated-s": 3, "frozen-s": 2, "dead-s": 4,
          "canary-s": 3, "early-s": 0.5, "start-s": 20, "backoff-s": 0.5}  # fmt: skip
PATIENCE_S = 20


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as channel:
        return int(channel.getsockname()[1])


class Bed:
    """One supervisor with one engine, which is told what to do wrong."""

    def __init__(self, folder: Path, shape: str) -> None:
        self.control, self.kept, self.port = folder / "control", folder / "kept", free_port()
        self.log = folder / "log"
        self.kept.mkdir(exist_ok=True)
        self.shape = shape
        self.tell()
        self.running: subprocess.Popen[bytes] | None = None
        self.clients: list[subprocess.Popen[bytes]] = []

    def tell(self, **faults: Any) -> float:
        """What goes wrong from now on; returns when that was."""
        new = self.control.with_suffix(".new")
        new.write_text(json.dumps(faults))
        new.replace(self.control)
        return time.monotonic()

    def start(self, **clocks: float) -> None:
        progress = SHAPES[self.shape].progress(plan())
        url = f"http://127.0.0.1:{self.port}/health"
        argv = [sys.executable, "-m", "multigpu.host", "supervise", "--health", url, "--exclusive"]
        argv += ["--service", "chat", "--metrics-path", str(progress.metrics_path)]
        argv += [word for name in progress.busy for word in ("--busy", name)]
        argv += [word for name in progress.moving for word in ("--moving", name)]
        for name, value in {**CLOCKS, **clocks}.items():
            argv += [f"--{name.replace('_', '-')}", str(value)]
        argv += [
            "--",
            sys.executable,
            str(SOURCE / "tests/engine/engine.py"),
            "--shape",
            self.shape,
        ]
        argv += ["--port", str(self.port), "--workers", "2", "--control", str(self.control)]
        argv += [] if self.shape == "vllm" else ["--metrics"]
        environment = {**os.environ, "PYTHONPATH": str(SOURCE), "STATE_DIRECTORY": str(self.kept)}
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(argv, env=environment, stdout=log, stderr=log)

    @property
    def supervisor(self) -> subprocess.Popen[bytes]:
        assert self.running is not None
        return self.running

    @property
    def state(self) -> state.State:
        return state.read(state.path_of(str(self.kept), "chat"))

    def until(self, wanted: Callable[[], bool], limit_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + limit_s
        while not wanted():
            assert time.monotonic() < deadline, self.log.read_text()[-2000:]
            assert self.supervisor.poll() is None, self.log.read_text()[-2000:]
            time.sleep(0.05)

    def serving(self) -> None:
        self.until(lambda: self.state.state == state.SERVING)

    def ask(self, tokens: int) -> None:
        """A client in a process of its own, which waits for its answer."""
        body = json.dumps({"model": "m", "prompt": "hello", "max_tokens": tokens})
        url = f"http://127.0.0.1:{self.port}/v1/completions"
        code = "import sys, urllib.request as r; r.urlopen(r.Request(sys.argv[1], "
        code += "sys.argv[2].encode(), {'Content-Type': 'application/json'})).read()"
        argv = [sys.executable, "-c", code, url, body]
        self.clients.append(subprocess.Popen(argv, stderr=subprocess.DEVNULL))

    def tree(self) -> list[processes.Process]:
        return [found for found in processes.below(self.supervisor.pid) if found.alive]

    def engine(self) -> processes.Process:
        return next(p for p in self.tree() if p.parent == self.supervisor.pid)

    def end(self) -> tuple[str | None, float]:
        """The verdict, and when it was there."""
        before = self.tree()
        status = self.supervisor.wait(PATIENCE_S)
        at = time.monotonic()
        left = [p for p in before if (q := processes.read(p.pid)) and q.alive and q == p]
        assert left == [], "orphans"
        last = self.state.last_verdict
        assert last is None or EXIT_STATUSES[last.reason] == last.exit_status == status
        return (last.reason if last else None), at


@pytest.fixture(params=["vllm"])
def bed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bed]:
    made = Bed(tmp_path, request.param)
    yield made
    if made.running is not None and made.running.poll() is None:
        for process in (*made.tree(), made.running):
            os.kill(process.pid, signal.SIGKILL)
        made.running.wait()
    for client in made.clients:
        client.kill()
        client.wait()


every_shape = pytest.mark.parametrize("bed", SHAPES, indirect=True)


@every_shape
def test_an_engine_that_idles_and_answers_is_left_alone(bed: Bed) -> None:
    bed.start()
    bed.serving()
    time.sleep(CLOCKS["stall-s"] + CLOCKS["canary-s"] + 2)
    assert bed.supervisor.poll() is None
    assert bed.state.restarts == {}
    assert (bed.state.tokens_total or 0) > 0, "a canary was sent and answered"
    bed.supervisor.terminate()
    assert bed.supervisor.wait(PATIENCE_S) == 0
    assert bed.state.state == state.STOPPED


@every_shape
def test_a_stall_is_noticed_in_time_and_leaves_evidence_and_no_orphan(bed: Bed) -> None:
    bed.start()
    bed.serving()
    began = bed.tell(stall=True)
    bed.ask(50)
    reason, at = bed.end()
    assert reason == "stalled"
    # A client starts within a second, on a loaded machine, and a look takes its time there too.
    assert at - began <= CLOCKS["stall-s"] + 3
    assert bed.state.restarts == {"stalled": 1}
    last = bed.state.last_verdict
    assert last is not None and last.evidence is not None
    kept = json.loads(Path(last.evidence).read_text())
    assert kept["metrics_page"] and kept["processes"] and kept["output"] is not None
    assert Path(last.evidence).stat().st_mode & 0o077 == 0


def test_requests_that_only_wait_are_a_stall_too(bed: Bed) -> None:
    bed.start()
    bed.serving()
    bed.tell(waiting_only=True)
    bed.ask(5)
    assert bed.end()[0] == "stalled"


@every_shape
def test_a_frozen_engine_is_dead_soon(bed: Bed) -> None:
    bed.start()
    bed.serving()
    os.kill(bed.engine().pid, signal.SIGSTOP)
    began = time.monotonic()
    reason, at = bed.end()
    assert (reason, at - began < CLOCKS["frozen-s"] + 2) == ("http_dead", True)


@pytest.mark.parametrize("fault", ["mute", "closed"])
def test_a_port_without_answers_is_dead_soon(bed: Bed, fault: str) -> None:
    bed.start()
    bed.serving()
    began = bed.tell(**{fault: True})
    reason, at = bed.end()
    assert (reason, at - began < CLOCKS["frozen-s"] + 2.5) == ("http_dead", True)


def test_a_killed_worker_is_noticed_within_two_seconds_though_health_lies(bed: Bed) -> None:
    bed.tell(no_exit=True)
    bed.start()
    bed.serving()
    worker = next(p for p in bed.tree() if "Worker" in p.name)
    os.kill(worker.pid, signal.SIGKILL)
    began = time.monotonic()
    reason, at = bed.end()
    assert (reason, at - began < 2) == ("engine_exit", True)
    assert "worker died" in (bed.state.last_verdict or state.LastVerdict()).text


@pytest.mark.parametrize("fault", [{"exit": 0}, {"exit": 3}])
def test_an_engine_that_exits_is_noticed_at_once(bed: Bed, fault: dict[str, int]) -> None:
    bed.start()
    bed.serving()
    began = bed.tell(**fault)
    reason, at = bed.end()
    assert (reason, at - began < 2) == ("engine_exit", True)


def test_a_killed_engine_leaves_no_worker_behind(bed: Bed) -> None:
    bed.start()
    bed.serving()
    os.kill(bed.engine().pid, signal.SIGKILL)
    assert bed.end()[0] == "engine_exit"


def test_a_slow_drip_and_busy_answers_are_left_alone(bed: Bed) -> None:
    bed.start()
    bed.serving()
    bed.tell(token_s=2.5)
    bed.ask(5)
    time.sleep(12)
    assert bed.supervisor.poll() is None
    bed.tell(unavailable=True)
    time.sleep(1)
    bed.tell()
    time.sleep(CLOCKS["stall-s"])
    assert (bed.supervisor.poll(), bed.state.restarts) == (None, {})


def test_a_supervisor_that_slept_blames_nobody(bed: Bed) -> None:
    bed.start()
    bed.serving()
    bed.supervisor.send_signal(signal.SIGSTOP)
    time.sleep(CLOCKS["stall-s"] + 2)
    bed.supervisor.send_signal(signal.SIGCONT)
    time.sleep(2)
    assert (bed.supervisor.poll(), bed.state.restarts) == (None, {})


def test_a_configuration_error_is_not_tried_again(bed: Bed) -> None:
    bed.tell(config_error=True)
    bed.start()
    assert bed.end()[0] == "config"


def test_a_load_without_an_end_is_ended(bed: Bed) -> None:
    bed.tell(load_s="never")
    bed.start(start_s=2)
    assert bed.end()[0] == "start_timeout"


def test_a_stop_while_loading_and_while_stalled_is_a_clean_end(bed: Bed) -> None:
    bed.tell(load_s="never")
    bed.start()
    bed.until(lambda: bed.state.state == state.LOADING)
    bed.supervisor.terminate()
    assert bed.supervisor.wait(PATIENCE_S) == 0
    bed.tell()
    bed.start(kill_s=1)
    bed.serving()
    bed.tell(stall=True, ignore_term=True)
    bed.ask(5)
    time.sleep(1)
    bed.supervisor.terminate()
    assert bed.supervisor.wait(PATIENCE_S) == 0
    assert bed.state.restarts == {}


def test_failures_are_counted_and_the_next_start_waits(bed: Bed) -> None:
    for n in range(1, 4):
        bed.tell()
        bed.start()
        bed.serving()
        bed.tell(exit=1)
        bed.end()
        assert (bed.state.backoff.n, bed.state.restarts) == (n, {"engine_exit": n})
    bed.tell()
    began = time.monotonic()
    bed.start(backoff_s=1)
    bed.serving()
    assert time.monotonic() - began >= 3


def test_a_full_disk_takes_no_engine_down(bed: Bed) -> None:
    (bed.kept / "state").write_text("no directory")
    bed.start()
    time.sleep(4)
    assert bed.supervisor.poll() is None
