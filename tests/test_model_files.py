"""The reader of models on a host: it must find the very end of a GGUF header."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

from facts.model import ModelFiles
from multigpu.host import model_files


@pytest.fixture
def gguf_path(tmp_path: Path) -> Path:
    path = tmp_path / "small.gguf"
    writer = GGUFWriter(str(path), "llama")
    writer.add_context_length(2048)
    writer.add_token_list([f"token-{i}" for i in range(1000)])
    writer.add_token_scores([0.5] * 1000)
    writer.add_tensor("token_embd.weight", np.ones((1000, 64), np.float32))
    writer.add_tensor("blk.0.attn_q.weight", np.ones((64, 64), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def run(path: Path) -> list[str]:
    command = [sys.executable, model_files.__file__, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_the_header_length_covers_the_tensor_list_and_not_the_weights(gguf_path: Path) -> None:
    length = model_files.gguf_header_bytes(io.BytesIO(gguf_path.read_bytes()))
    assert 0 <= length - GGUFReader(gguf_path).data_offset <= 4096
    assert length < gguf_path.stat().st_size / 4


def test_the_fact_gives_size_and_header_of_a_gguf(gguf_path: Path) -> None:
    files = ModelFiles().process(run(gguf_path))
    assert files["small.gguf"].size_bytes == gguf_path.stat().st_size
    assert gguf_path.read_bytes().startswith(files["small.gguf"].head)


def test_a_folder_gives_its_configuration_whole_and_weights_by_size(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "model.safetensors").write_bytes(b"w" * 1000)
    files = ModelFiles().process(run(tmp_path))
    assert json.loads(files["config.json"].head) == {"model_type": "llama"}
    assert (files["model.safetensors"].size_bytes, files["model.safetensors"].head) == (1000, b"")


def test_a_path_that_is_not_there_gives_no_files(tmp_path: Path) -> None:
    assert ModelFiles().process(run(tmp_path / "absent.gguf")) == {}


def test_a_damaged_gguf_gives_its_first_page(tmp_path: Path) -> None:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(b"GGUF" + b"\xff" * 100)
    assert ModelFiles().process(run(path))["damaged.gguf"].size_bytes == 104
