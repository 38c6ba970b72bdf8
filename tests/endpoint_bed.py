"""A real HAProxy with a rendered configuration before simulated engines under real supervisors."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from multigpu import endpoint, listening
from multigpu.plan import Candidate, Plan, Service, Strategy
from multigpu.store import texts
from multigpu.wish_values import Endpoint
from tests.plans import MEMORY, plan

ROOT = Path(__file__).parent.parent
HAPROXY = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin")
ENGINE = ROOT / "tests" / "simulated_engine.py"
SUPERVISE = "import sys; from multigpu.host import supervisor as s; sys.exit(s.main(sys.argv[1:]))"
PATIENT = ("--frozen-s", "600", "--dead-s", "600")
"""Nobody starts an engine again here: what HAProxy does about a frozen one is looked at alone."""
WAIT_S = 20.0
REPLICAS = Candidate(
    "llama.cpp", Strategy.REPLICAS, (0, 1), replicas=2, memory=(MEMORY, MEMORY), kv_tokens=61000
)


def until(true: Callable[[], object], seconds: float = WAIT_S) -> float:
    """Seconds until it is; fails after `seconds`."""
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < seconds, "not within the time"
        time.sleep(0.05)
    return time.monotonic() - started


def made(port: int, wished: Endpoint, slots: int = 8, **wish: Any) -> Plan:
    """A plan of two replicas behind an endpoint."""
    return plan(replace(REPLICAS, max_num_seqs=slots), port=port, endpoint=wished, **wish)


def free_port() -> int:
    """The first of three ports that are free, with those beside them."""
    for port in range(20200 + os.getpid() % 1000 * 4, 30000, 7):
        if all(_free(p) for n in range(3) for p in (port + n, listening.beside(port + n))):
            return port
    raise AssertionError("no free ports")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Bed:
    """Two engines and an endpoint; everything ends with `close`."""

    def __init__(
        self, directory: Path, wished: Endpoint, *engine: float, slots: int = 8, **wish: Any
    ) -> None:
        self.directory, self.engine_arguments = directory, [str(a) for a in engine]
        self.plan = made(free_port(), wished, slots, **wish)
        self.port = self.plan.wish.port
        first = self.port + 1
        self.services = tuple(
            Service(f"chat-{i}", (), (), first + i, "/health", (i,)) for i in range(2)
        )
        self.engines = [self.supervise(service.port) for service in self.services]
        self.config = directory / "endpoint.cfg"
        self.socket = directory / "admin.sock"
        self.write(self.plan)
        environment = {**os.environ, "SECRETS": str(directory)}
        self.haproxy = subprocess.Popen(
            [HAPROXY or "haproxy", "-Ws", "-f", str(self.config)],
            env=environment,
            start_new_session=True,
        )
        until(lambda: self.states() == {"chat-0": "UP", "chat-1": "UP"})

    def write(self, wanted: Plan) -> str:
        """Render the configuration; returns its revision."""
        rendered = endpoint.render(
            wanted, self.services, templates=texts.templates(ROOT / "templates")
        )
        assert rendered is not None
        text = rendered.files[0].content.replace(rendered.socket, str(self.socket))
        self.config.write_text(text)
        return rendered.config_revision

    def supervise(self, port: int, *more: str) -> subprocess.Popen[bytes]:
        """A supervisor with its engine."""
        gate = ("--health", f"http://127.0.0.1:{port}/health", "--tick-s", "0.1")
        tell = ("--verdict-port", str(listening.beside(port)), "--drain-s", "20", *more)
        engine = (sys.executable, str(ENGINE), str(port), *self.engine_arguments)
        return subprocess.Popen(
            [sys.executable, "-c", SUPERVISE, *gate, *tell, *PATIENT, "--", *engine],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def engine_pid(self, number: int) -> int:
        pid = self.engines[number].pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def command(self, line: str) -> str:
        """What the working HAProxy answers on its socket; empty while there is none."""
        with socket.socket(socket.AF_UNIX) as channel:
            try:
                channel.connect(str(self.socket))
            except OSError:
                return ""
            channel.sendall(f"{line}\n".encode())
            return channel.makefile().read()

    def states(self) -> dict[str, str]:
        """Servers and what HAProxy holds of them; DOWN also while a first check is missing."""
        rows = [row.split(",") for row in self.command("show stat").splitlines()]
        return {
            row[1]: "UP" if row[17] == "UP" and row[36] != "INI" else row[17]
            for row in rows
            if row[0] == "chat" and row[1].startswith("chat-")
        }

    def ask(self, body: dict[str, Any], **headers: str) -> tuple[int, bytes]:
        """Status and answer of one POST. Raises OSError or HTTPException."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            headers = {"Content-Type": "application/json", **headers}
            connection.request("POST", "/v1/completions", json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def engine_of(self, body: dict[str, Any], **headers: str) -> int:
        """The port of the engine that answered."""
        status, answer = self.ask(body, **headers)
        assert status == 200, answer
        return int(json.loads(answer)["port"])

    def reload(self) -> None:
        self.haproxy.send_signal(signal.SIGUSR2)

    def close(self) -> None:
        # Engines outlive a supervisor that is killed, but not their group.
        for process in (self.haproxy, *self.engines):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in (self.haproxy, *self.engines):
            process.wait()


class Users:
    """Clients that ask one request after the other, each second one as a stream, and count."""

    def __init__(self, bed: Bed, count: int) -> None:
        self.bed, self.over = bed, threading.Event()
        self.seen: Counter[str] = Counter()
        self.threads = [
            threading.Thread(target=self.user, args=(n % 2 == 0,), daemon=True)
            for n in range(count)
        ]
        for thread in self.threads:
            thread.start()

    def user(self, stream: bool) -> None:
        while not self.over.is_set():
            self.seen[outcome(self.bed.port, stream)] += 1

    def stop(self) -> Counter[str]:
        self.over.set()
        for thread in self.threads:
            thread.join(60)
        return self.seen


def outcome(port: int, stream: bool) -> str:
    """`done`, `cut` (after it had begun to answer) or `failed` (before), with why."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    begun = False
    try:
        body = json.dumps({"prompt": "x", "stream": stream})
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            return f"failed: {answer.status}"
        begun = True
        text = answer.read()
        return "done" if not stream or text.endswith(b"[DONE]\n\n") else "cut"
    except (OSError, http.client.HTTPException) as error:
        return "cut" if begun else f"failed: {error!r}"
    finally:
        connection.close()
