"""Secrets on the host: read from systemd, handed to the engine, masked in its output."""

from __future__ import annotations

import http.server
import io
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.host import secret
from multigpu.host.verdicts import EXIT_STATUSES

ENGINE_EXIT, CONFIG = EXIT_STATUSES["engine_exit"], EXIT_STATUSES["config"]
SOURCE = Path(__file__).parent.parent
KEY = "sk-marker-3f9a"


def copied(chunks: list[bytes], secrets: list[str]) -> bytes:
    """What leaves the mask of a stream that came in these pieces."""
    reader, writer = os.pipe()
    target = io.BytesIO()
    with os.fdopen(reader, "rb", buffering=0) as source:
        masked = secret.Masked(source, target, secrets)
        for chunk in chunks:
            os.write(writer, chunk)
        os.close(writer)
        masked.finish(5)
    return target.getvalue()


@given(st.lists(st.sampled_from(["a", "ab", "abc", "x", "\n", "bc"]), max_size=8))
def test_a_secret_is_masked_however_the_stream_is_cut(pieces: list[str]) -> None:
    whole = "".join(pieces).encode()
    found = copied([piece.encode() for piece in pieces], ["abc"])
    assert found == whole.replace(b"abc", secret.HIDDEN)


def test_of_two_secrets_the_longer_one_is_masked_whole() -> None:
    assert copied([b"abcd abc"], ["abc", "abcd"]) == b"(hidden) (hidden)"


@pytest.mark.parametrize("content", [b"", b"\n", b"a\nb\n", "schlüssel\n".encode()])
def test_what_is_no_line_of_ascii_is_no_secret_and_is_not_repeated(content: bytes) -> None:
    with pytest.raises(ValueError, match="a secret") as caught:
        secret.line(content)
    assert "schl" not in str(caught.value)


def test_the_end_of_the_line_is_not_part_of_a_secret() -> None:
    assert secret.line(b"sk-1\r\n") == "sk-1"


@pytest.fixture
def unit(tmp_path: Path) -> dict[str, str]:
    """The environment that systemd makes for a unit with a credential."""
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials/api_key").write_text(f"{KEY}\n")
    (tmp_path / "runtime").mkdir()
    return {
        **os.environ,
        "PYTHONPATH": str(SOURCE),
        "CREDENTIALS_DIRECTORY": str(tmp_path / "credentials"),
        "RUNTIME_DIRECTORY": str(tmp_path / "runtime"),
    }


def supervise(
    unit: dict[str, str], *words: str, url: str = "http://127.0.0.1:9/", engine: str
) -> subprocess.CompletedProcess[str]:
    program = (
        "import sys; from multigpu.host import supervisor as s; sys.exit(s.main(sys.argv[1:]))"
    )
    argv = [sys.executable, "-c", program, "--health", url, "--tick-s", "0.05", *words]
    return subprocess.run(
        [*argv, "--", sys.executable, "-c", engine],
        env=unit,
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.process
def test_the_engine_gets_its_key_and_what_it_prints_of_it_is_masked(unit: dict[str, str]) -> None:
    engine = (
        "import os, sys; key = os.environ['VLLM_API_KEY']; assert key.startswith('sk-marker'); "
        "print('args', {'api_key': key}, flush=True); print(key, file=sys.stderr)"
    )
    done = supervise(unit, "--secret", "VLLM_API_KEY=api_key", engine=engine)
    assert done.returncode == ENGINE_EXIT
    assert "args {'api_key': '(hidden)'}" in done.stdout
    assert KEY not in done.stdout + done.stderr


@pytest.mark.process
def test_a_configuration_with_the_key_is_for_the_engines_user_alone(
    unit: dict[str, str], tmp_path: Path
) -> None:
    for _ in range(2):  # the second one replaces that of the first
        supervise(unit, "--secret-config", "api-key=api_key", engine="pass")
    path = tmp_path / "runtime/secrets.yaml"
    assert path.read_text() == f'api-key: "{KEY}"\n'
    assert stat.S_IMODE(path.stat().st_mode) == 0o400


@pytest.mark.process
def test_a_missing_secret_ends_as_a_configuration_that_cannot_start(unit: dict[str, str]) -> None:
    done = supervise(unit, "--secret", "K=other", engine="pass")
    assert done.returncode == CONFIG
    assert "a secret cannot be handed on" in done.stderr


@pytest.mark.process
def test_a_health_url_that_asks_for_the_key_gets_it(unit: dict[str, str]) -> None:
    asked: list[str | None] = []

    class Guarded(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["Authorization"])
            self.send_response(200 if asked[-1] == f"Bearer {KEY}" else 401)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1/models"
        done = supervise(
            unit,
            *("--secret", "api_key", "--bearer", "api_key"),
            url=url,
            engine="import time; time.sleep(0.5)",
        )
        server.shutdown()
    assert asked[0] == f"Bearer {KEY}"
    assert "while serving" in done.stderr
