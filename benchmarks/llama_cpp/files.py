"""GGUF files of a real model's size without its data: a header, then a hole.

`llama-fit-params` and `llama-server --fit on` load with `no_alloc` and read no tensor data.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from benchmarks.llama_cpp.architectures import Metadata
from benchmarks.llama_cpp.program import environment

Q4_0, F16, F32 = (
    gguf.GGMLQuantizationType.Q4_0,
    gguf.GGMLQuantizationType.F16,
    gguf.GGMLQuantizationType.F32,
)
# What published files keep whole (src/llama-quant.cpp): norms, biases, routers, and the small
# tensors of recurrences and of gemma3n. CUDA multiplies by none of them element by element else.
WHOLE = (
    *("norm", "bias", "ffn_gate_inp", "ssm_a", "ssm_d", "ssm_dt", "ssm_conv1d", "shortconv.conv"),
    *("altup", "laurel", "per_layer_model_proj", "time_mix_first", "time_mix_lerp"),
    *("time_mix_decay_w", "time_mix_w0", "time_mix_w1", "time_mix_w2"),
)
# Optional tensors that the library lists for every model and that no published file has.
NEVER = (".scale", ".input_scale", "rope_freqs", "rope_factors", "cls.")


def _writer(path: Path, architecture: str, metadata: Metadata) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string("tokenizer.ggml.model", "no_vocab")
    for key, value in metadata.items():
        _add(writer, key[1:] if key[0] == "/" else f"{architecture}.{key}", value)
    return writer


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_array(key, value)


def shapes(
    library: Path, folder: Path, architecture: str, metadata: Metadata
) -> dict[str, list[int]]:
    """Tensors of the model, asked of llama.cpp in a process of its own."""
    path = folder / "metadata.gguf"
    writer = _writer(path, architecture, metadata)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.llama_cpp.tensors", str(library), str(path)],
        capture_output=True,
        text=True,
        env=environment(library),
        timeout=120,
        check=False,
    )
    path.unlink()
    if done.returncode != 0:
        raise RuntimeError(f"{architecture}: {done.stderr[-2000:]}")
    rows = [line.split() for line in done.stdout.splitlines()]
    return {name: [int(n) for n in shape] for name, *shape in rows}


# Architectures whose files have biases; llama.cpp lists them as optional for every other one too.
BIASED = {
    *(
        "bloom",
        "falcon",
        "falcon-h1",
        "gpt2",
        "phi2",
        "gpt-oss",
        "gptneox",
        "granitehybrid",
        "jamba",
    ),
    *("kimi-linear", "mamba", "mamba2", "nemotron", "nemotron_h", "phimoe", "qwen2", "qwen2moe"),
    *("qwen3next", "qwen35", "qwen35moe", "rwkv6", "stablelm", "starcoder2"),
}


def _kept(name: str, names: set[str], architecture: str, tied: bool) -> bool:
    if architecture == "gemma4" and name == "rope_freqs.weight":
        return True
    if any(part in name for part in NEVER) or (tied and name == "output.weight"):
        return False
    if "attn_qkv." in name and name.replace("attn_qkv.", "attn_q.") in names:
        return False
    return architecture in BIASED or not name.endswith(".bias") or "exp_probs_b" in name


def _type(name: str, shape: list[int]) -> gguf.GGMLQuantizationType:
    if len(shape) == 1 or any(part in name for part in WHOLE):
        return F32
    return Q4_0 if shape[0] % 32 == 0 else F16


def write(library: Path, path: Path, architecture: str, metadata: Metadata, *, tied: bool) -> None:
    """A GGUF with every tensor named and no byte of data."""
    found = shapes(library, path.parent, architecture, metadata)
    names = set(found)
    writer = _writer(path, architecture, metadata)
    size = 0
    for name, shape in found.items():
        if not _kept(name, names, architecture, tied):
            continue
        kind = _type(name, shape)
        n_bytes = _bytes(shape, kind)
        size += -(-n_bytes // 32) * 32
        rows = gguf.quant_shape_to_byte_shape(shape[::-1], kind) if kind is Q4_0 else shape[::-1]
        plain = np.dtype(np.uint8 if kind is Q4_0 else np.float16 if kind is F16 else np.float32)
        writer.add_tensor_info(name, rows, plain, n_bytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        header = -(-file.tell() // 32) * 32
        file.truncate(header + size)


def _bytes(shape: list[int], kind: gguf.GGMLQuantizationType) -> int:
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    elements = 1
    for n in shape:
        elements *= n
    return elements // block * block_bytes
