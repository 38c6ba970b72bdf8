"""Models from files of the controller and from what was fetched of a host."""

from __future__ import annotations

import hashlib
import json
import pathlib

import numpy as np
import pytest
from gguf import GGUFWriter

from multigpu.errors import ModelError
from multigpu.plan import Source
from multigpu.store.gguf_files import HostFile, shard_names
from multigpu.store.models import load, load_host_model, source
from tests.machines import dense


def write_gguf(path: pathlib.Path, blocks: int = 2) -> pathlib.Path:
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(blocks)
    writer.add_embedding_length(64)
    writer.add_head_count(4)
    writer.add_context_length(2048)
    writer.add_file_type(15)
    writer.add_token_list([f"t{i}".encode() for i in range(100)])
    names = [
        "token_embd.weight",
        "output.weight",
        *(f"blk.{i}.attn_q.weight" for i in range(blocks)),
    ]
    for name in names:
        writer.add_tensor(name, np.zeros((64, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_on_the_controller_carries_its_hash_and_size(tmp_path: pathlib.Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf")
    model = load("tiny.gguf", base=tmp_path)
    assert (model.source, model.format, model.quantization) == (Source.CONTROLLER, "gguf", "Q4_K_M")
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.size_bytes == path.stat().st_size
    assert (model.num_hidden_layers, model.vocab_size) == (2, 100)


def test_a_missing_shard_is_named(tmp_path: pathlib.Path) -> None:
    write_gguf(tmp_path / "m-00001-of-00002.gguf")
    with pytest.raises(ModelError, match="m-00002-of-00002"):
        load("m-00001-of-00002.gguf", base=tmp_path)


def test_shards_are_named_from_the_first_to_the_last() -> None:
    assert shard_names("a-00001-of-00003.gguf")[2] == "a-00003-of-00003.gguf"
    assert shard_names("a.gguf") == ("a.gguf",)


def test_a_cut_gguf_is_refused(tmp_path: pathlib.Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ModelError, match="not a whole GGUF"):
        load("tiny.gguf", base=tmp_path)


def test_the_head_of_a_gguf_on_the_host_is_enough(tmp_path: pathlib.Path) -> None:
    whole = write_gguf(tmp_path / "tiny.gguf").read_bytes()
    head = whole[: len(whole) - 4 * 64 * 64 * 4]
    model = load_host_model("/srv/tiny.gguf", {"tiny.gguf": HostFile(len(whole), head)})
    assert (model.source, model.sha256, model.size_bytes) == (Source.HOST, None, len(whole))
    assert model.layers_mib == (64 * 64 * 4 / 1024**2,) * 2


def test_a_head_that_ends_inside_the_header_is_refused(tmp_path: pathlib.Path) -> None:
    whole = write_gguf(tmp_path / "tiny.gguf").read_bytes()
    with pytest.raises(ModelError, match="header"):
        load_host_model("/srv/tiny.gguf", {"tiny.gguf": HostFile(len(whole), whole[:300])})


def folder(path: pathlib.Path, **files: bytes) -> pathlib.Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(dense()))
    for name, content in files.items():
        (path / name.replace("__", ".")).write_bytes(content)
    return path


def test_weights_of_a_folder_are_its_safetensors(tmp_path: pathlib.Path) -> None:
    path = folder(tmp_path / "m")
    with (path / "a.safetensors").open("wb") as file:
        file.truncate(16_000_000_000)
    assert load("m", base=tmp_path).weights_mib == pytest.approx(16e9 / 1024**2)


def test_an_index_says_the_size_where_the_weights_are_not_there(tmp_path: pathlib.Path) -> None:
    index = json.dumps({"metadata": {"total_size": 17_000_000_000}}).encode()
    folder(tmp_path / "m").joinpath("model.safetensors.index.json").write_bytes(index)
    assert load("m", base=tmp_path).size_bytes == 17_000_000_000


def test_a_folder_of_the_host_is_read_from_what_was_fetched() -> None:
    config = json.dumps(dense()).encode()
    files = {"config.json": HostFile(len(config), config), "a.safetensors": HostFile(16 * 10**9)}
    model = load_host_model("/srv/m", files)
    assert model.path == "/srv/m" and model.size_bytes == 16 * 10**9


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("nowhere", "no such file"),
        ("a/b/c", "no such file"),
        ("", "empty"),
        ("/srv/m", "on the GPU"),
    ],
)
def test_a_reference_that_cannot_be_read_here_says_why(
    reference: str, said: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(ModelError, match=said):
        load(reference, base=tmp_path)


@pytest.mark.parametrize("text", [b"{", b"[]", b"{}"])
def test_a_config_that_is_not_an_object_is_refused(text: bytes, tmp_path: pathlib.Path) -> None:
    folder(tmp_path / "m").joinpath("config.json").write_bytes(text)
    with pytest.raises(ModelError, match="JSON"):
        load("m", base=tmp_path)


def test_an_existing_path_wins_over_a_hub_id(tmp_path: pathlib.Path) -> None:
    (tmp_path / "org").mkdir()
    folder(tmp_path / "org/model")
    assert source("org/model", base=tmp_path) is Source.CONTROLLER
    assert source("org/other", base=tmp_path) is Source.HUB
    assert source("/org/model", base=tmp_path) is Source.HOST


def safetensors(path: pathlib.Path, tensors: dict[str, int]) -> None:
    """A file whose header lists these tensors with so many bytes; the weights are a hole."""
    at, listed = 0, {}
    for name, size in tensors.items():
        listed[name] = {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}
        at += size
    header = json.dumps({"__metadata__": {"format": "pt"}, **listed}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + at)


MIB = 1024 * 1024


def layered(blocks: int = 32, each_mib: int = 100) -> dict[str, int]:
    names = {
        "model.embed_tokens.weight": 500 * MIB,
        "lm_head.weight": 400 * MIB,
        "visual.blocks.0.attn.qkv.weight": 30 * MIB,
        "mtp.layers.0.mlp.up_proj.weight": 70 * MIB,
        f"model.layers.{blocks}.mlp.up_proj.weight": 60 * MIB,
    }
    for i in range(blocks):
        names[f"model.layers.{i}.mlp.experts.3.up_proj.weight"] = (each_mib - 10) * MIB
        names[f"model.layers.{i}.mlp.shared_experts.up_proj.weight"] = 6 * MIB
        names[f"model.layers.{i}.input_layernorm.weight"] = 4 * MIB
    return names


def test_headers_give_the_bytes_of_every_part(tmp_path: pathlib.Path) -> None:
    path = folder(tmp_path / "m")
    names = sorted(layered())
    safetensors(path / "model-1.safetensors", {n: layered()[n] for n in names[:40]})
    safetensors(path / "model-2.safetensors", {n: layered()[n] for n in names[40:]})
    safetensors(path / "consolidated.safetensors", {"tok_embeddings.weight": 900 * MIB})
    model = load("m", base=tmp_path)
    assert model.layers_mib == (100.0,) * 32 and model.experts_mib == (90.0,) * 32
    assert model.replicated_mib == (4.0,) * 32
    assert (model.embedding_mib, model.output_mib, model.vision_mib) == (500, 400, 30)
    assert model.draft_mib == 130 and model.weights_exact
    assert model.weights_mib == 32 * 100 + 500 + 400 + 30


def test_a_download_that_lacks_a_block_is_cut(tmp_path: pathlib.Path) -> None:
    path = folder(tmp_path / "m")
    safetensors(path / "model.safetensors", layered(blocks=30))
    with pytest.raises(ModelError, match="block 31"):
        load("m", base=tmp_path)


def test_headers_that_came_from_the_host_are_used(tmp_path: pathlib.Path) -> None:
    safetensors(tmp_path / "a.safetensors", layered())
    with (tmp_path / "a.safetensors").open("rb") as file:
        head = file.read(200_000)
    config = json.dumps(dense()).encode()
    files = {"config.json": HostFile(len(config), config), "a.safetensors": HostFile(10**9, head)}
    assert load_host_model("/srv/m", files).layers_mib == (100.0,) * 32
