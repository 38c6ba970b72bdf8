"""The fetch program against a server that misbehaves: whole and right under its name, or not."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multigpu.host import fetch, fetch_file
from multigpu.host.fetch_http import LONGEST_WAIT_S, asked_to_wait, shown
from tests.scripted_server import Server, Turn, serving

CONTENT = random.Random(7).randbytes(300_000)
TOKEN = "hf_simulatedtokenfortests"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server of one test, and no waiting between tries."""
    monkeypatch.setattr(fetch_file, "backoff_s", lambda _: 0.0)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as running:
        running.contents["/m.gguf"] = CONTENT
        yield running


def entry(server: Server, name: str = "m.gguf", content: bytes = CONTENT, **more: Any) -> Any:
    return {
        "path": name,
        "url": f"{server.url}/{name}",
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        **more,
    }


def spec(directory: Path, *files: Any, **more: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "directory": str(directory),
        "stamp": "complete",
        "allow_http": True,
        "files": list(files),
        **more,
    }


def run(wanted: dict[str, Any], secret: str | None = None) -> int:
    return fetch.run(wanted, secret, threading.Event())


def reason(directory: Path) -> str:
    return str(json.loads((directory / "status.json").read_text())["reason"])


def names(directory: Path) -> list[str]:
    return sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())


def test_a_file_lies_under_its_name_read_only_and_the_stamp_tells_its_hash(
    server: Server, tmp_path: Path
) -> None:
    assert run(spec(tmp_path, entry(server))) == 0
    assert (tmp_path / "m.gguf").read_bytes() == CONTENT
    assert (tmp_path / "m.gguf").stat().st_mode & 0o777 == 0o444
    stamp = json.loads((tmp_path / "complete").read_text())
    assert stamp["files"]["m.gguf"]["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert names(tmp_path) == ["complete", "m.gguf"]


def test_what_is_there_already_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    assert run(spec(tmp_path, entry(server))) == 0
    assert run(spec(tmp_path, entry(server))) == 0
    assert len(server.seen) == 1


def test_a_damaged_file_under_its_final_name_is_fetched_again(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "m.gguf").write_bytes(CONTENT[:-1] + b"?")
    assert run(spec(tmp_path, entry(server))) == 0
    assert (tmp_path / "m.gguf").read_bytes() == CONTENT


@given(
    cuts=st.lists(st.integers(0, len(CONTENT)), max_size=6),
    ranges=st.booleans(),
    etag=st.sampled_from([None, '"one"', 'W/"weak"']),
    before=st.integers(0, len(CONTENT) + 5),
    damaged=st.booleans(),
    length=st.booleans(),
)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_wherever_it_is_cut_a_resumed_download_is_byte_equal(
    server: Server,
    tmp_path_factory: pytest.TempPathFactory,
    cuts: list[int],
    ranges: bool,
    etag: str | None,
    before: int,
    damaged: bool,
    length: bool,
) -> None:
    folder = tmp_path_factory.mktemp("model")
    old = bytearray((CONTENT + b"extra")[:before])
    if damaged and old:
        old[len(old) // 2] ^= 0xFF
    if before:
        (folder / "m.gguf.partial").write_bytes(old)
    server.etags = {"/m.gguf": etag} if etag else {}
    server.turns["/m.gguf"] = [Turn(cut=cut, ranges=ranges, length=length) for cut in cuts]
    assert run(spec(folder, entry(server))) == 0, reason(folder)
    assert (folder / "m.gguf").read_bytes() == CONTENT
    assert names(folder) == ["complete", "m.gguf"]


def test_a_resumed_download_asks_only_for_what_is_missing(server: Server, tmp_path: Path) -> None:
    server.etags["/m.gguf"] = '"one"'
    server.turns["/m.gguf"] = [Turn(cut=100_000)]
    assert run(spec(tmp_path, entry(server))) == 0
    asked = [s.headers for s in server.seen]
    assert asked[1]["Range"] == "bytes=100000-"
    assert asked[1]["If-Range"] == '"one"'


def test_a_file_that_changed_on_the_server_is_not_mixed_with_the_old_one(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "m.gguf.partial").write_bytes(b"x" * 1000)
    (tmp_path / "m.gguf.partial.etag").write_text('"old"')
    server.etags["/m.gguf"] = '"new"'
    assert run(spec(tmp_path, entry(server))) == 0
    assert len(server.seen) == 1, "If-Range made the server send the whole file"


def test_a_whole_partial_of_a_killed_run_is_taken_without_a_request(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "m.gguf.partial").write_bytes(CONTENT)
    (tmp_path / "m.gguf.partial").chmod(0o444)
    assert run(spec(tmp_path, entry(server))) == 0
    assert server.seen == []


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 408])
def test_a_server_that_is_busy_is_asked_again(server: Server, tmp_path: Path, status: int) -> None:
    server.turns["/m.gguf"] = [Turn(status=status, headers={"Retry-After": "0"})] * 3
    assert run(spec(tmp_path, entry(server))) == 0
    assert len(server.seen) == 4


def test_retry_after_is_obeyed(server: Server, tmp_path: Path) -> None:
    server.turns["/m.gguf"] = [Turn(status=429, headers={"Retry-After": "1"})]
    began = time.monotonic()
    assert run(spec(tmp_path, entry(server))) == 0
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", None),
        ("7", 7),
        ("999999999999", LONGEST_WAIT_S),
        ("Thu, 01 Jan 1970 00:00:30 GMT", 20),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0),
        ("soon", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(text: str, seconds: float | None) -> None:
    assert asked_to_wait({"Retry-After": text}, 10.0) == seconds


def test_a_server_that_stays_busy_is_given_up_in_one_line(server: Server, tmp_path: Path) -> None:
    server.always = Turn(status=503)
    assert run(spec(tmp_path, entry(server))) == 1
    assert "answered 503, 8 times in a row; do: " in reason(tmp_path)
    assert names(tmp_path) == ["m.gguf.partial", "status.json"]


def test_tries_are_counted_anew_when_bytes_came(server: Server, tmp_path: Path) -> None:
    busy = [Turn(status=503)] * 6
    server.turns["/m.gguf"] = [*busy, Turn(cut=10), *busy, Turn(cut=10), *busy]
    assert run(spec(tmp_path, entry(server))) == 0


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "answered 401: it wants a login"),
        (403, "answered 403: it wants a login"),
        (404, "answered 404: it is not there"),
        (418, "answered 418, needed is 200"),
    ],
)
def test_a_refusal_is_not_tried_again(
    server: Server, tmp_path: Path, status: int, said: str
) -> None:
    server.always = Turn(status=status)
    assert run(spec(tmp_path, entry(server))) == 1
    assert said in reason(tmp_path) and "do: " in reason(tmp_path)
    assert len(server.seen) == 1
    assert "m.gguf" not in names(tmp_path)


@pytest.mark.parametrize(
    ("secret", "said"), [(None, "no token was given"), (TOKEN, "the token of hf_token_file")]
)
def test_a_gated_repository_says_what_to_do(
    server: Server, tmp_path: Path, secret: str | None, said: str
) -> None:
    server.always = Turn(status=403)
    assert run(spec(tmp_path, entry(server), hub=server.url), secret) == 1
    assert said in reason(tmp_path) and "accept the model's licence" in reason(tmp_path)
    assert TOKEN not in reason(tmp_path)


def test_the_hub_gets_the_token_and_the_host_it_redirects_to_does_not(
    server: Server, tmp_path: Path
) -> None:
    with serving() as elsewhere:
        elsewhere.contents["/blob"] = CONTENT
        there = elsewhere.url.replace("127.0.0.1", "localhost") + "/blob?signature=s"
        server.turns["/m.gguf"] = [
            Turn(status=307, headers={"Location": "/hop"}),
        ]
        server.turns["/hop"] = [Turn(status=302, headers={"Location": there})]
        assert run(spec(tmp_path, entry(server), hub=server.url), TOKEN) == 0
        assert [s.headers.get("Authorization") for s in server.seen] == [f"Bearer {TOKEN}"] * 2
        assert [s.headers.get("Authorization") for s in elsewhere.seen] == [None]


def test_another_port_of_the_hubs_host_gets_no_token(server: Server, tmp_path: Path) -> None:
    with serving() as elsewhere:
        elsewhere.contents["/blob"] = CONTENT
        server.turns["/m.gguf"] = [Turn(status=302, headers={"Location": f"{elsewhere.url}/blob"})]
        assert run(spec(tmp_path, entry(server), hub=server.url), TOKEN) == 0
        assert "Authorization" not in elsewhere.seen[0].headers


def test_a_file_elsewhere_than_on_the_hub_gets_no_token(server: Server, tmp_path: Path) -> None:
    assert run(spec(tmp_path, entry(server), hub="http://hub.invalid"), TOKEN) == 0
    assert "Authorization" not in server.seen[0].headers


def test_http_is_refused_unless_told(server: Server, tmp_path: Path) -> None:
    assert run(spec(tmp_path, entry(server), allow_http=False)) == 1
    assert "is no https address" in reason(tmp_path)
    assert server.seen == []


def test_other_bytes_than_planned_are_refused_and_nothing_is_left(
    server: Server, tmp_path: Path
) -> None:
    server.contents["/m.gguf"] = CONTENT[:-1] + b"?"
    assert run(spec(tmp_path, entry(server))) == 1
    assert "m.gguf: sha256 is " in reason(tmp_path) and "planned is " in reason(tmp_path)
    assert names(tmp_path) == ["status.json"]
    assert len(server.seen) == 1


def test_a_file_of_another_size_is_refused_before_it_is_fetched(
    server: Server, tmp_path: Path
) -> None:
    server.contents["/m.gguf"] = CONTENT + b"?"
    assert run(spec(tmp_path, entry(server))) == 1
    assert "has 300001 bytes, planned were 300000" in reason(tmp_path)


def test_an_encoded_body_is_refused(server: Server, tmp_path: Path) -> None:
    server.turns["/m.gguf"] = [Turn(headers={"Content-Encoding": "gzip"})]
    assert run(spec(tmp_path, entry(server))) == 1
    assert "needed is identity" in reason(tmp_path)


def test_small_files_of_the_hub_are_verified_by_their_git_blob_id(
    server: Server, tmp_path: Path
) -> None:
    text = b'{"model_type": "llama"}'
    server.contents["/config.json"] = text
    blob = hashlib.sha1(b"blob %d\0" % len(text) + text).hexdigest()
    right = entry(server, "config.json", text, sha256=None, blob_id=blob)
    assert run(spec(tmp_path, right)) == 0
    wrong = entry(server, "config.json", text, sha256=None, blob_id="0" * 40)
    (tmp_path / "config.json").unlink()
    assert run(spec(tmp_path, wrong)) == 1
    assert "git blob id is " in reason(tmp_path)


def test_the_first_refusal_ends_the_other_files(server: Server, tmp_path: Path) -> None:
    server.turns["/m.gguf"] = [Turn(pause_s=0.2, chunk=1000)]
    began = time.monotonic()
    assert run(spec(tmp_path, entry(server), entry(server, "gone.gguf"))) == 1
    assert "gone.gguf answered 404" in reason(tmp_path)
    assert time.monotonic() - began < 20
    assert {"m.gguf", "gone.gguf", "complete"}.isdisjoint(names(tmp_path))


def test_a_server_that_is_not_there_is_one_line(server: Server, tmp_path: Path) -> None:
    gone = {**entry(server), "url": "http://127.0.0.1:9/m.gguf"}
    assert run(spec(tmp_path, gone)) == 1
    assert "127.0.0.1 cannot be reached" in reason(tmp_path) and "controller" in reason(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"path": "../m.gguf"}, "is no path below"),
        ({"path": "/etc/m.gguf"}, "is no path below"),
        ({"path": "pytorch_model.bin"}, "may run code"),
        ({"path": "m.PTH"}, "may run code"),
        ({"sha256": None}, "has no hash"),
    ],
)
def test_what_must_not_be_fetched_is_refused(
    server: Server, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    assert run(spec(tmp_path, {**entry(server), **change})) == 1
    assert said in reason(tmp_path)
    assert server.seen == []


def test_more_than_the_disk_holds_is_refused_before_anything_is_fetched(
    server: Server, tmp_path: Path
) -> None:
    assert run(spec(tmp_path, entry(server, size_bytes=1 << 60))) == 1
    assert reason(tmp_path).startswith("no space: ")
    assert server.seen == []


def test_addresses_are_shown_without_what_may_be_secret() -> None:
    assert shown("https://me:secret@host/a/b?signature=s") == "https://host/a/b"


def start(folder: Path, wanted: dict[str, Any], limit_bytes: int | None = None) -> Any:
    """The program as a process of its own."""
    (folder / "spec.json").write_text(json.dumps(wanted))

    def limits() -> None:
        if limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    return subprocess.Popen(
        [sys.executable, "-m", "multigpu.host", "fetch", "--spec", str(folder / "spec.json")],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=limits,
        env={k: v for k, v in os.environ.items() if "proxy" not in k.lower()},
    )


@pytest.mark.process
def test_the_archive_of_host_programs_fetches_with_a_credential(
    server: Server, tmp_path: Path
) -> None:
    from multigpu.store import archive

    program, credentials, model = tmp_path / "p.pyz", tmp_path / "credentials", tmp_path / "model"
    program.write_bytes(archive.host_program().content or b"")
    credentials.mkdir()
    (credentials / "hf_token").write_text(TOKEN + "\n")
    model.mkdir()
    (tmp_path / "spec.json").write_text(json.dumps(spec(model, entry(server), hub=server.url)))
    done = subprocess.run(
        ["/usr/bin/python3", program, "fetch", "--spec", tmp_path / "spec.json"],
        env={"CREDENTIALS_DIRECTORY": str(credentials), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("complete: 1 files, 0.3 MiB, verified in")
    assert server.seen[0].headers["Authorization"] == f"Bearer {TOKEN}"
    assert TOKEN not in done.stdout + done.stderr


@pytest.mark.process
def test_killed_at_any_moment_nothing_partial_has_a_final_name(
    server: Server, tmp_path: Path
) -> None:
    content = random.Random(1).randbytes(20 << 20)
    server.contents["/m.gguf"] = content
    moments = random.Random(3)
    model = tmp_path / "model"
    model.mkdir()
    killed = 0
    for _ in range(12):
        server.turns["/m.gguf"] = [Turn(pause_s=0.01)]
        process = start(tmp_path, spec(model, entry(server, content=content)))
        time.sleep(0.15 + moments.random() * 0.6)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        process.stdout.close()
        if (model / "m.gguf").exists():
            assert (model / "m.gguf").read_bytes() == content
        if (model / "complete").exists():
            break
    server.turns.clear()
    final = start(tmp_path, spec(model, entry(server, content=content)))
    said = final.communicate()[0]
    assert final.returncode == 0, said
    assert (model / "m.gguf").read_bytes() == content
    assert killed


@pytest.mark.process
def test_a_full_disk_is_one_line_and_leaves_no_final_name(server: Server, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    process = start(tmp_path, spec(model, entry(server)), limit_bytes=100_000)
    said = process.communicate()[0]
    assert process.returncode == 1, said
    assert said.startswith("multigpu: no space left for m.gguf (File too large)"), said
    assert len(said.splitlines()) == 1
    assert "m.gguf" not in names(model) and "complete" not in names(model)
    again = start(tmp_path, spec(model, entry(server)))
    assert (again.wait(), again.stdout.close()) == (0, None)


@pytest.mark.process
def test_asked_to_end_it_ends_soon_and_keeps_what_is_there(server: Server, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    server.turns["/m.gguf"] = [Turn(pause_s=0.05, chunk=1000)]
    process = start(tmp_path, spec(model, entry(server)))
    time.sleep(1)
    process.terminate()
    assert process.communicate(timeout=10)[0].startswith("interrupted")
    assert process.returncode == fetch.INTERRUPTED
    assert names(model)[0] == "m.gguf.partial"
