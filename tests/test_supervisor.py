"""The supervisor with a real child, a real health URL and a real notify socket."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from multigpu.host.listening import taken
from multigpu.host.verdicts import EXIT_STATUSES

pytestmark = pytest.mark.process

ENGINE_EXIT, START_TIMEOUT = EXIT_STATUSES["engine_exit"], EXIT_STATUSES["start_timeout"]
PORT_TAKEN, CONFIG = EXIT_STATUSES["port_conflict"], EXIT_STATUSES["config"]
SOURCE = Path(__file__).parent.parent
FOREVER = "import time; time.sleep(60)"
TICK_S = "0.05"


class Health(http.server.BaseHTTPRequestHandler):
    """Answers with the server's `status`; a negative one is no HTTP at all."""

    server: HealthServer

    def do_GET(self) -> None:
        if self.server.status < 0:
            self.wfile.write(b"\0\1\2 no HTTP\r\n\r\n")
            return
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class HealthServer(http.server.ThreadingHTTPServer):
    status = 503

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/health"


@pytest.fixture
def health() -> Iterator[HealthServer]:
    with HealthServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Systemd:
    """The other end of NOTIFY_SOCKET; keeps every datagram."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(5)
        self.seen: list[str] = []

    def until(self, wanted: Callable[[str], bool]) -> str:
        """Read datagrams up to the first that is wanted."""
        while True:
            self.seen.append(self.socket.recv(4096).decode())
            if wanted(self.seen[-1]):
                return self.seen[-1]

    def rest(self) -> list[str]:
        """Everything that was said."""
        self.socket.setblocking(False)
        try:
            self.until(lambda message: False)
        except BlockingIOError:
            return self.seen
        return self.seen


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    path = str(tmp_path / "notify")
    other = Systemd(path if request.param == "path" else f"@multigpu-{uuid.uuid4()}")
    yield other
    other.socket.close()


def supervise(
    health: HealthServer,
    *argv: str,
    start_s: float = 5,
    exclusive: bool = False,
    **environment: str,
) -> subprocess.Popen[str]:
    program = (
        "import sys; from multigpu.host import supervisor as s; sys.exit(s.main(sys.argv[1:]))"
    )
    options = ["--health", health.url, "--start-s", str(start_s), "--tick-s", TICK_S]
    options += ["--exclusive", "--"] if exclusive else ["--"]
    return subprocess.Popen(
        [sys.executable, "-c", program, *options, *argv],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
    )


def python(code: str) -> tuple[str, str, str]:
    return (sys.executable, "-c", code)


def end(supervisor: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = supervisor.communicate(timeout=5)
    return supervisor.returncode, out, err


def test_ready_is_said_when_the_health_url_answers_200_and_not_before(
    health: HealthServer, systemd: Systemd
) -> None:
    running = supervise(health, *python(FOREVER), NOTIFY_SOCKET=systemd.address)
    systemd.until(lambda message: message == "STATUS=loading")
    systemd.until(lambda message: message == "STATUS=loading")
    assert not any("READY" in message for message in systemd.seen)
    health.status = 200
    assert systemd.until(lambda message: "READY=1" in message) == "READY=1\nSTATUS=serving"
    systemd.until(lambda message: message == "WATCHDOG=1")
    systemd.until(lambda message: message == "WATCHDOG=1")
    assert sum("READY=1" in message for message in systemd.seen) == 1
    running.send_signal(signal.SIGTERM)
    assert end(running)[0] == 0
    assert systemd.rest()[-2:] == ["STOPPING=1", "STATUS=stopped"]


def test_the_watchdog_hears_nothing_while_the_engine_loads(
    health: HealthServer, systemd: Systemd
) -> None:
    running = supervise(health, *python(FOREVER), start_s=0.3, NOTIFY_SOCKET=systemd.address)
    assert end(running)[0] == START_TIMEOUT
    assert "WATCHDOG=1" not in systemd.rest()
    assert systemd.seen[-1] == "STATUS=not ready after 0.3 s"


def test_an_engine_that_exits_0_is_a_failure(health: HealthServer) -> None:
    status, _, err = end(supervise(health, *python("pass")))
    assert status == ENGINE_EXIT
    assert err == "multigpu: the engine ended with exit status 0 before it was ready\n"


def test_an_engine_that_is_killed_while_serving_is_called_so(
    health: HealthServer, systemd: Systemd
) -> None:
    health.status = 200
    suicide = "import os, signal, time; time.sleep(0.5); os.kill(os.getpid(), signal.SIGKILL)"
    running = supervise(health, *python(suicide), NOTIFY_SOCKET=systemd.address)
    systemd.until(lambda message: "READY=1" in message)
    status, _, err = end(running)
    assert status == ENGINE_EXIT
    assert err == "multigpu: the engine ended with signal 9 while serving\n"


def test_an_engine_that_is_not_ready_in_time_is_killed(
    health: HealthServer, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    code = f"import os; open({str(pid)!r}, 'w').write(str(os.getpid())); {FOREVER}"
    status, _, err = end(supervise(health, *python(code), start_s=0.4))
    assert (status, err) == (START_TIMEOUT, "multigpu: not ready after 0.4 s\n")
    deadline = time.monotonic() + 2
    while alive(int(pid.read_text())) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(int(pid.read_text()))


def alive(pid: int) -> bool:
    """Running, and no zombie that nobody has reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("status", [503, 404, -1])
def test_another_answer_than_200_is_not_ready(health: HealthServer, status: int) -> None:
    health.status = status
    code, _, err = end(supervise(health, *python(FOREVER), start_s=0.3))
    assert code == START_TIMEOUT, err


def test_a_proxy_of_the_environment_is_not_asked_for_a_local_service(
    health: HealthServer, systemd: Systemd
) -> None:
    health.status = 200
    running = supervise(
        health,
        *python(FOREVER),
        NOTIFY_SOCKET=systemd.address,
        http_proxy="http://127.0.0.1:9",
        no_proxy="",
    )
    systemd.until(lambda message: "READY=1" in message)
    running.terminate()
    assert end(running)[0] == 0


def test_an_executable_that_is_missing_is_a_configuration_error(health: HealthServer) -> None:
    status, _, err = end(supervise(health, "/no/such/engine", "--port", "1"))
    assert status == CONFIG
    assert err == "multigpu: cannot start /no/such/engine: No such file or directory\n"


def test_sigterm_is_forwarded_once_and_the_supervisor_ends_with_0(health: HealthServer) -> None:
    code = (
        "import signal, sys, time\n"
        "def stop(*_):\n"
        "    print('asked to stop', flush=True); time.sleep(0.2); sys.exit(3)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('up', flush=True)\n"
        "time.sleep(60)\n"
    )
    running = supervise(health, *python(code))
    assert running.stdout is not None
    assert running.stdout.readline() == "up\n"
    running.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    status, out, _ = end(running)
    assert (status, out) == (0, "asked to stop\n")


def test_the_engine_can_not_speak_to_systemd(health: HealthServer, systemd: Systemd) -> None:
    code = "import os; print(sorted(n for n in os.environ if n.startswith(('NOTIFY', 'WATCHDOG'))))"
    running = supervise(
        health,
        *python(code),
        NOTIFY_SOCKET=systemd.address,
        WATCHDOG_USEC="60000000",
        WATCHDOG_PID="1",
    )
    assert end(running)[1] == "[]\n"


def test_a_notify_socket_that_is_gone_does_not_take_the_engine_down(
    health: HealthServer, tmp_path: Path
) -> None:
    health.status = 200
    gone = str(tmp_path / "gone")
    running = supervise(health, *python("import time; time.sleep(0.4)"), NOTIFY_SOCKET=gone)
    status, _, err = end(running)
    assert status == ENGINE_EXIT
    assert "multigpu: systemd was not notified: " in err
    assert "before it was ready" in err


def test_the_engine_gets_its_own_flags_even_those_named_like_ours(health: HealthServer) -> None:
    code = "import sys; print(sys.argv[1:])"
    flags = ("--health", "x", "--", "--start-s", "-v")
    assert end(supervise(health, *python(code), *flags))[1] == f"{list(flags)}\n"


@pytest.mark.parametrize("bind", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_another_process_holds_is_never_ready(
    bind: str, tmp_path: Path, systemd: Systemd
) -> None:
    with HealthServer((bind, 0), Health) as squatter:
        squatter.status = 200
        started = tmp_path / "started"
        code = f"open({str(started)!r}, 'w')"
        running = supervise(squatter, *python(code), exclusive=True, NOTIFY_SOCKET=systemd.address)
        status, _, err = end(running)
    assert (status, started.exists()) == (PORT_TAKEN, False)
    assert "another process listens" in err
    assert not any("READY=1" in said for said in systemd.rest())


def test_a_port_that_was_ours_a_moment_ago_is_free(tmp_path: Path) -> None:
    with HealthServer(("127.0.0.1", 0), Health) as server:
        client = socket.create_connection(server.server_address)
        accepted, _ = server.socket.accept()
        accepted.close()  # the side that closes first lingers in TIME_WAIT
        client.close()
    assert not taken(server.url)
