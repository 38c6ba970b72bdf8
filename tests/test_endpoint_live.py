"""What a real HAProxy does with the rendered configuration; the engines are simulated."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from multigpu import listening
from multigpu.host import verdict_port
from multigpu.wish_values import Balance, Endpoint
from tests.endpoint_bed import HAPROXY, Bed, Users, outcome, until

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed"),
]


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    made = Bed(tmp_path, Endpoint(), 0.3, 10, 0.05)
    yield made
    made.close()


def test_an_engine_that_is_killed_under_load_fails_no_request_that_had_not_begun(bed: Bed) -> None:
    users = Users(bed, 12)
    time.sleep(1.5)
    os.kill(bed.engine_pid(0), signal.SIGKILL)
    time.sleep(3)
    seen = users.stop()
    assert [word for word in seen if word.startswith("failed")] == [], seen
    assert seen["done"] > 20
    assert seen["cut"] <= 6, seen
    print(f"killed under load: {dict(seen)}")


def test_a_verdict_of_down_takes_an_engine_out_whose_health_is_200(bed: Bed) -> None:
    bed.engines[0].send_signal(signal.SIGKILL)  # its engine goes on and answers 200
    bed.engines[0].wait()
    words = [verdict_port.DOWN]
    port = listening.beside(bed.services[0].port)
    assert verdict_port.listen(port, lambda: words[0]) == port
    waited = until(lambda: bed.states()["chat-0"].startswith("DOWN"), 5)
    assert waited < 3
    assert {bed.engine_of({"prompt": str(n)}) for n in range(4)} == {bed.services[1].port}
    words[0] = verdict_port.UP
    until(lambda: bed.states()["chat-0"] == "UP", 5)


def test_a_frozen_engine_leaves_the_rotation(bed: Bed) -> None:
    pid = bed.engine_pid(0)
    os.kill(pid, signal.SIGSTOP)
    try:
        waited = until(lambda: bed.states()["chat-0"].startswith("DOWN"), 20)
        print(f"frozen: out of rotation after {waited:.1f} s")
        assert outcome(bed.port, False) == "done"
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: bed.states()["chat-0"] == "UP", 10)


def test_a_stop_waits_for_streams_and_sends_new_requests_elsewhere(tmp_path: Path) -> None:
    bed = Bed(tmp_path, Endpoint(), 0.1, 60, 0.1)  # streams of 6 s
    try:
        users = Users(bed, 4)
        time.sleep(1)
        bed.engines[0].send_signal(signal.SIGTERM)
        assert bed.engines[0].wait(20) == 0
        assert users.stop() == {"done": users.seen["done"]}
    finally:
        bed.close()


def test_a_reload_cuts_no_stream_and_the_new_worker_says_its_revision(bed: Bed) -> None:
    ended: list[str] = []
    streams = [
        threading.Thread(target=lambda: ended.append(outcome(bed.port, True))) for _ in range(4)
    ]
    for stream in streams:
        stream.start()
    time.sleep(0.4)
    other = Endpoint(balance=Balance.PREFIX_HASH)
    revision = bed.write(replace(bed.plan, wish=replace(bed.plan.wish, endpoint=other)))
    bed.reload()
    until(lambda: f"multigpu-revision-{revision}" in bed.command("show info"), 5)
    for stream in streams:
        stream.join(20)
    assert ended == ["done"] * 4


def test_a_rejected_configuration_leaves_the_old_worker_serving(bed: Bed) -> None:
    before = bed.command("show info").split("description: ")[1].splitlines()[0]
    bed.config.write_text("nonsense\n")
    bed.reload()
    time.sleep(1)
    assert outcome(bed.port, True) == "done"
    assert before in bed.command("show info")


def test_the_same_conversation_meets_the_same_engine(tmp_path: Path) -> None:
    bed = Bed(tmp_path, Endpoint(balance=Balance.PREFIX_HASH), 0, 0, 0)
    try:
        heads = [[{"role": "system", "content": "Be brief."},
                  {"role": "user", "content": f"question {n}"}] for n in range(12)]  # fmt: skip
        first = [bed.engine_of({"messages": head}) for head in heads]
        more = {"role": "assistant", "content": "an answer"}
        later = [bed.engine_of({"temperature": 0.1, "messages": [*head, more]}) for head in heads]
        assert first == later
        assert len(set(first)) == 2
        prompts = [f"{n} " * 600 for n in range(12)]
        at = [bed.engine_of({"prompt": prompt}) for prompt in prompts]
        assert [bed.engine_of({"n": 1, "prompt": p + "more"}) for p in prompts] == at
        session = {"X-Session-Id": "s"}
        assert len({bed.engine_of({"prompt": p}, **session) for p in prompts}) == 1
        assert len({bed.engine_of({"prompt": p, "prompt_cache_key": "k"}) for p in prompts}) == 1
    finally:
        bed.close()


def test_a_long_answer_outlives_a_silent_client(bed: Bed) -> None:
    """What `timeout client` is for: a client that waits is not a client that is gone."""
    text = bed.config.read_text().replace("timeout client 3600s", "timeout client 1s")
    bed.config.write_text(text.replace("revision-", "revision-short-"))
    bed.reload()
    until(lambda: "revision-short-" in bed.command("show info"), 5)
    bed.engine_arguments[:] = []
    assert outcome(bed.port, False) == "done"


def test_the_metrics_page_tells_of_each_engine(bed: Bed) -> None:
    url = f"http://127.0.0.1:{listening.beside(bed.port)}/metrics"
    with urllib.request.urlopen(url, timeout=5) as answer:
        text = answer.read().decode()
    assert 'haproxy_server_status{proxy="chat",server="chat-0"' in text


def test_tls_and_the_key_guard_every_path_but_the_health(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "chat.certificate"
    words = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=chat")
    files = ("-keyout", key, "-out", certificate)
    subprocess.run(["openssl", *words, *files], check=True, capture_output=True)
    certificate.write_text(certificate.read_text() + key.read_text())
    (tmp_path / "chat.api_key").write_text("first\n")
    bed = Bed(tmp_path, Endpoint(certificate="chat.pem"), 0, 0, 0, api_key_file="key")

    def status(method: str, path: str, key: str | None = None) -> int:
        trust = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection("127.0.0.1", bed.port, context=trust, timeout=10)
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        with contextlib.closing(connection):
            connection.request(method, path, "{}" if method == "POST" else None, headers)
            return connection.getresponse().status

    try:
        assert status("GET", "/health") == 200
        assert [status("GET", path) for path in ("/metrics", "/v1/models")] == [401, 401]
        asked = [status("POST", "/v1/completions", key) for key in (None, "wrong", "first")]
        assert asked == [401, 401, 200]
        (tmp_path / "chat.api_key").write_text("second\n")
        before = bed.command("show info").split("Pid: ")[1].splitlines()[0]
        bed.reload()
        until(lambda: f"Pid: {before}\n" not in bed.command("show info"), 5)
        assert [status("POST", "/v1/x", key) for key in ("first", "second")] == [401, 200]
    finally:
        bed.close()


def test_a_full_queue_says_come_back_and_a_look_at_the_models_does_not_wait(
    tmp_path: Path,
) -> None:
    bed = Bed(tmp_path, Endpoint(), 2, 0, 0, slots=1)
    try:
        seen: list[str] = []
        users = [
            threading.Thread(target=lambda: seen.append(outcome(bed.port, False)), daemon=True)
            for _ in range(80)
        ]
        for user in users:
            user.start()
        until(lambda: "failed: 429" in seen, 10)
        started = time.monotonic()
        url = f"http://127.0.0.1:{bed.port}/v1/models"
        with urllib.request.urlopen(url, timeout=5) as answer:
            assert answer.status == 200
        assert time.monotonic() - started < 1.5
    finally:
        bed.close()


def test_a_client_that_is_gone_gives_its_place_free(tmp_path: Path) -> None:
    bed = Bed(tmp_path, Endpoint(), 8, 0, 0, slots=1)
    try:
        connections = [http.client.HTTPConnection("127.0.0.1", bed.port) for _ in range(6)]
        for connection in connections:
            connection.request("POST", "/v1/completions", '{"prompt": "x"}')
        until(lambda: current(bed) == 6, 5)
        for connection in connections:
            connection.close()
        assert until(lambda: current(bed) == 0, 5) < 3
    finally:
        bed.close()


def current(bed: Bed) -> int:
    """Requests at the engines and in the queue."""
    rows = [row.split(",") for row in bed.command("show stat").splitlines()]
    return sum(int(row[4]) for row in rows if row[:2] == ["chat", "BACKEND"])
