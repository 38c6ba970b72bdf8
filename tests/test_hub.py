"""Models of a simulated hub, and of addresses: planned, pinned, fetched, byte for byte."""

from __future__ import annotations

import hashlib
import json
import struct
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from multigpu import fetching, generation
from multigpu.errors import ModelError
from multigpu.fetching import Fetch, watched
from multigpu.hardware import Host, ManagedFile
from multigpu.host import fetch as program
from multigpu.host import fetch_file
from multigpu.plain import to_plain, to_plan
from multigpu.plan import ModelSpec, Source
from multigpu.store.models import Terms, load
from tests import plans
from tests.machines import dense
from tests.scripted_server import Server, Turn, serving
from tests.simulated_hub import COMMIT, SimulatedHub
from tests.test_store_models import write_gguf

TOKEN = "hf_simulatedtokenfortests"


def safetensors(blocks: int = 32) -> bytes:
    names = [f"model.layers.{i}.mlp.down_proj.weight" for i in range(blocks)]
    listed = {
        name: {"dtype": "F16", "shape": [4], "data_offsets": [8 * i, 8 * i + 8]}
        for i, name in enumerate([*names, "model.embed_tokens.weight", "lm_head.weight"])
    }
    header = json.dumps(listed).encode()
    return struct.pack("<Q", len(header)) + header + bytes(8 * len(listed))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SimulatedHub]:
    """A hub whose large files lie on another origin."""
    monkeypatch.setattr(fetch_file, "backoff_s", lambda _: 0.0)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    gguf = write_gguf(tmp_path / "tiny-Q4_K_M.gguf").read_bytes()
    model = {
        "config.json": json.dumps(dense()).encode(),
        "model.safetensors": safetensors(),
        "tokenizer.json": b"{}",
        "modeling_own.py": b"print('code')",
        "pytorch_model.bin": b"pickle",
    }
    with serving() as storage:
        simulated = SimulatedHub(storage.url, TOKEN)
        simulated.repositories = {
            "org/dense": model,
            "org/gated": model,
            "org/gguf": {"q/tiny-Q4_K_M.gguf": gguf, "q/tiny-Q8_0.gguf": gguf + b"x"},
            "org/pickled": {"config.json": model["config.json"], "pytorch_model.bin": b"p"},
            "org/code": {
                **model,
                "config.json": json.dumps(
                    {**dense(), "model_type": "llama", "auto_map": {"AutoModel": "modeling_own.M"}}
                    | {"model_type": "granite"}
                ).encode(),
            },
        }
        simulated.gated = {"org/gated"}
        simulated.stored = storage  # type: ignore[attr-defined]
        for repo_id, files in simulated.repositories.items():
            for name, content in files.items():
                storage.contents[f"/{repo_id}/{name}"] = content
        thread = threading.Thread(target=simulated.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", simulated.url)
        yield simulated
        simulated.shutdown()
        simulated.server_close()


def planned(reference: str, base: Path, **terms: Any) -> ModelSpec:
    return load(reference, base=base, terms=Terms(**terms))


def fetched(model: ModelSpec, folder: Path, hub: SimulatedHub | None, secret: str | None) -> Path:
    """Run the program on the plan's spec, with the directory moved into `folder`."""
    wanted = fetching.fetch(model, endpoint=hub.url if hub else fetching.HUB)
    assert wanted is not None and wanted.spec.content is not None
    spec = {**json.loads(wanted.spec.content), "directory": str(folder)}
    assert program.run(spec, secret, threading.Event()) == 0, (folder / "status.json").read_text()
    return folder / wanted.path.removeprefix(f"{wanted.directory}/")


def test_a_repository_is_pinned_to_its_commit_with_every_files_hash(
    hub: SimulatedHub, tmp_path: Path
) -> None:
    model = planned("org/dense", tmp_path)
    assert (model.source, model.path, model.revision) == (Source.HUB, "org/dense", COMMIT)
    files = {file.path: file for file in model.files}
    assert set(files) == {"config.json", "model.safetensors", "tokenizer.json"}
    weights = hub.repositories["org/dense"]["model.safetensors"]
    assert files["model.safetensors"].sha256 == hashlib.sha256(weights).hexdigest()
    assert files["tokenizer.json"].blob_id == hashlib.sha1(b"blob 2\0{}").hexdigest()
    assert model.size_bytes == len(weights)


def test_what_is_planned_is_fetched_and_the_storage_sees_no_token(
    hub: SimulatedHub, tmp_path: Path
) -> None:
    model = planned("org/gated", tmp_path, token=TOKEN)
    place = fetched(model, tmp_path, hub, TOKEN)
    assert place == tmp_path / "gated"
    for file in model.files:
        assert (place / file.path).read_bytes() == hub.repositories["org/gated"][file.path]
    assert not list(tmp_path.rglob("*.py")) and not list(tmp_path.rglob("*.bin"))
    stored: Server = hub.stored  # type: ignore[attr-defined]
    assert stored.seen and all("Authorization" not in seen.headers for seen in stored.seen)


@pytest.mark.parametrize("token", [None, "hf_wrong"])
def test_a_gated_repository_says_what_to_do_and_not_the_token(
    hub: SimulatedHub, tmp_path: Path, token: str | None
) -> None:
    with pytest.raises(ModelError, match="accept the licence there and set hf_token_file") as said:
        planned("org/gated", tmp_path, token=token)
    assert "hf_wrong" not in str(said.value)


@pytest.mark.parametrize(
    ("reference", "terms", "said"),
    [
        ("org/nothing", {}, "no such model on the hub"),
        ("org/dense", {"revision": "v9"}, "the hub has no revision v9"),
        ("org/pickled", {}, "a pickle, which can run code"),
        ("org/code", {}, "runs code of its own .modeling_own.py"),
        ("org/gguf", {}, "holds 2 GGUFs that are meant"),
        ("org/gguf:Q5_K_M", {}, "holds no GGUF Q5_K_M"),
        (
            "org/gguf:Q4_K_M",
            {"sha256": ("0" * 64,)},
            "the hub lists sha256 [0-9a-f]{64}, sha256 of",
        ),
        ("/srv/m", {"revision": "v1"}, "revision names a commit of a hub repository"),
    ],
)
def test_what_cannot_be_planned_is_one_line(
    hub: SimulatedHub, tmp_path: Path, reference: str, terms: Mapping[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said) as refused:
        planned(reference, tmp_path, **terms)
    assert "\n" not in str(refused.value)


def test_code_of_a_repository_is_fetched_where_it_is_asked_for(
    hub: SimulatedHub, tmp_path: Path
) -> None:
    model = planned("org/code", tmp_path, trust_remote_code=True)
    assert "modeling_own.py" in {file.path for file in model.files}


def test_one_gguf_of_a_repository_is_planned_by_its_quantization(
    hub: SimulatedHub, tmp_path: Path
) -> None:
    model = planned("org/gguf:Q4_K_M", tmp_path, revision="v1")
    content = hub.repositories["org/gguf"]["q/tiny-Q4_K_M.gguf"]
    assert (model.format, model.quantization, model.revision) == ("gguf", "Q4_K_M", COMMIT)
    digest = hashlib.sha256(content).hexdigest()
    wanted = fetching.fetch(model, endpoint=hub.url)
    assert wanted is not None
    assert wanted.path == f"/var/lib/multigpu/models/{digest[:12]}/q/tiny-Q4_K_M.gguf"
    assert fetched(model, tmp_path, hub, None).read_bytes() == content


def test_a_plan_file_gives_back_what_is_to_be_fetched(hub: SimulatedHub, tmp_path: Path) -> None:
    from dataclasses import replace

    model = planned("org/dense", tmp_path)
    plan = replace(plans.plan(), model=model)
    again = to_plan(to_plain(plan))
    assert again.model.files == model.files
    assert fetching.fetch(again.model) == fetching.fetch(model)


def test_the_second_planning_of_a_moved_branch_keeps_the_same_directory(
    hub: SimulatedHub, tmp_path: Path
) -> None:
    first, second = (planned("org/dense", tmp_path, revision=r) for r in ("main", COMMIT))
    assert fetching.content_name(first) == fetching.content_name(second)


# --- addresses -----------------------------------------------------------------------------------


@pytest.fixture
def web(hub: SimulatedHub, tmp_path: Path) -> Iterator[Server]:
    with serving() as server:
        for name in ("one.gguf", "m-00001-of-00002.gguf", "m-00002-of-00002.gguf"):
            server.contents[f"/{name}"] = write_gguf(tmp_path / name).read_bytes()
        yield server


def digest(server: Server, name: str) -> str:
    return hashlib.sha256(server.contents[f"/{name}"]).hexdigest()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_gguf_of_any_server_is_planned_by_its_header_and_fetched(
    web: Server, tmp_path: Path, ranges: bool
) -> None:
    web.turns["/one.gguf"] = [Turn(ranges=ranges)]
    address = f"{web.url}/one.gguf"
    model = planned(address, tmp_path, sha256=(digest(web, "one.gguf"),))
    assert (model.source, model.name, model.num_hidden_layers) == (Source.URL, "one.gguf", 2)
    folder = tmp_path / "model"
    folder.mkdir()
    assert fetched(model, folder, None, TOKEN).read_bytes() == web.contents["/one.gguf"]
    assert all("Authorization" not in seen.headers for seen in web.seen)


def test_a_header_longer_than_the_first_request_is_read_on(
    web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from multigpu.store import remote

    monkeypatch.setattr(remote, "FIRST_BYTES", 64)
    model = planned(f"{web.url}/one.gguf", tmp_path, sha256=(digest(web, "one.gguf"),))
    assert model.num_hidden_layers == 2
    assert 2 <= len(web.seen) <= 6


def test_all_shards_of_a_set_are_planned_by_naming_one(web: Server, tmp_path: Path) -> None:
    names = ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf")
    hashes = tuple(digest(web, name) for name in names)
    model = planned(f"{web.url}/{names[1]}", tmp_path, sha256=hashes)
    assert tuple(file.path for file in model.files) == names
    assert model.size_bytes == sum(len(web.contents[f"/{name}"]) for name in names)


@pytest.mark.parametrize(
    ("name", "hashes", "said"),
    [
        ("one.gguf", 0, "no sha256 given, needed is one for each of 1 files: set sha256 = "),
        ("m-00001-of-00002.gguf", 1, "1 sha256 given, needed is one for each of 2 files"),
        ("none.gguf", 1, "answered 404"),
    ],
)
def test_an_address_without_its_hashes_or_its_file_is_refused(
    web: Server, tmp_path: Path, name: str, hashes: int, said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        planned(f"{web.url}/{name}", tmp_path, sha256=("0" * 64,) * hashes or None)


def test_what_is_no_gguf_is_refused_at_planning(web: Server, tmp_path: Path) -> None:
    web.contents["/page.gguf"] = b"<html>" + bytes(9000)
    with pytest.raises(ModelError, match=r"not? .*whole GGUF"):
        planned(f"{web.url}/page.gguf", tmp_path, sha256=("0" * 64,))


# --- what is missing, and how far it is ----------------------------------------------------------


def wanted() -> Fetch:
    files = {"/m/d/a.gguf": 10, "/m/d/b.gguf": 20}
    return Fetch("m", "/m/d/a.gguf", "/m/d", files, fetching.Upload("/spec", content=b""))


def on_host(**sizes: int) -> Host:
    files = tuple(ManagedFile(f"/m/d/{n.replace('_', '.')}", None, s) for n, s in sizes.items())
    return Host("tower", files=files)


@pytest.mark.parametrize(
    ("sizes", "missing"),
    [
        ({"a_gguf": 10, "b_gguf": 20, "complete": 5}, False),
        ({"a_gguf": 10, "b_gguf": 20}, True),
        ({"a_gguf": 10, "b_gguf": 19, "complete": 5}, True),
        ({"a_gguf": 10, "complete": 5}, True),
        ({}, True),
    ],
)
def test_a_model_is_there_when_its_stamp_and_its_files_are(
    sizes: dict[str, int], missing: bool
) -> None:
    found = generation.fetches_missing(on_host(**sizes), [wanted(), wanted()])
    assert found == ((wanted(),) if missing else ())


STATUS = '{"bytes_done": 50, "bytes_total": 200, "mib_per_s": 1.5, "seconds_left": 300}'


@pytest.mark.parametrize(
    ("text", "busy", "complete", "line", "reason"),
    [
        ("ActiveState=activating\n" + STATUS, True, False, "25 % of", None),
        ("ActiveState=inactive\nJob=17\n", True, False, None, None),
        ("ActiveState=inactive\nJob=0\nstamp\n", False, True, None, None),
        ('ActiveState=failed\n{"state": "failed", "reason": "no space"}', False, False, None, "no"),
        ("", False, False, None, None),
        ("ActiveState=inactive\n{broken", False, False, None, None),
    ],
)
def test_one_look_at_a_fetch_tells_how_far_it_is(
    text: str, busy: bool, complete: bool, line: str | None, reason: str | None
) -> None:
    found = watched(text)
    assert (found.busy, found.complete) == (busy, complete)
    assert (found.line or "").startswith(line or "") and (line is None) == (found.line is None)
    assert (found.reason or "").startswith(reason or "")


def test_the_line_has_speed_and_time_left() -> None:
    assert watched(STATUS).line == "25 % of 0.0 MiB, 1.5 MiB/s, 5 min left"
