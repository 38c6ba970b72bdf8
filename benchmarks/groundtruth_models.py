"""Models of the measurement table: which config.json, which quantization, and GGUF sizes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from multigpu.errors import MultigpuError
from multigpu.model import from_hf_config
from multigpu.plan import ModelSpec, Source

HERE = Path(__file__).resolve().parent / "models"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "models"

# A model of the table whose configuration is that of another repository: (model, words of its
# quantization, repository). The first line that matches counts.
SAME = (
    ("Qwen/Qwen3-32B", "fp8", "Qwen/Qwen3-32B-FP8"),
    ("meta-llama/Llama-3.1-70B", "fp8", "meta-llama/Llama-3.1-70B-Instruct-FP8"),
    ("meta-llama/Meta-Llama-3.1-8B-Instruct", "", "meta-llama/Meta-Llama-3.1-8B"),
    ("Qwen/Qwen3.6-35B-A3B", "INT4", "Intel/Qwen3.6-35B-A3B-int4-AutoRound"),
    ("Qwen3.6-27B-AWQ-BF16-INT4", "", "cyankiwi/Qwen3.6-27B-AWQ-INT4"),
    ("Qwen3.6-27B", "", "Lorbus/Qwen3.6-27B-int4-AutoRound"),
    ("Qwen3.8-27B", "", "Frozenlock/Qwen3.8-27B-int4-AutoRound"),
    ("Tess-4-27B", "", "nvidia/Qwen3.6-27B-NVFP4"),
    ("Qwen/Qwen3-0.6B-GGUF", "", "Qwen/Qwen3-0.6B"),
    ("Qwen/Qwen3-1.7B-GGUF", "", "Qwen/Qwen3-1.7B"),
    ("LFM2.5-8B-A1B", "", "LiquidAI/LFM2-8B-A1B"),
    ("LFM2-8B-A1B", "", "LiquidAI/LFM2-8B-A1B"),
    ("LFM2.5-1.2B", "", "LiquidAI/LFM2.5-1.2B-Thinking"),
    ("Phi-4-mini", "", "microsoft/Phi-4-mini-reasoning"),
    ("Qwen3.5-9B", "", "Qwen/Qwen3.5-9B"),
    ("gemma-4-26B-A4B", "", "google/gemma-4-26B-A4B"),
    ("gemma4 26B A4B", "", "google/gemma-4-26B-A4B"),
    ("llama 1B", "", "meta-llama/Llama-3.2-1B"),
    # Fine-tunes of Qwen3.6-35B-A3B.
    ("Ornstein3.6-35B-A3B", "", "Qwen/Qwen3.6-35B-A3B"),
    ("Ornith-1.0-35B", "", "Qwen/Qwen3.6-35B-A3B"),
    ("Agents-A1", "", "Qwen/Qwen3.6-35B-A3B"),
)

# Bits per weight that llama.cpp's quantize prints for Llama-3.1-8B (tools/quantize/README.md).
GGUF_BITS = {
    "F16": 16.0,
    "Q8_0": 8.5,
    "Q8_K_XL": 9.0,
    "Q6_K": 6.56,
    "Q4_K_M": 4.89,
    "Q4_K_S": 4.67,
    "Q4_0": 4.66,
    "UD-IQ4_NL": 4.65,
    "Q3_K_XL": 4.3,
}


def model_for(raw: dict[str, str]) -> tuple[ModelSpec | None, Path | None, tuple[str, ...]]:
    """(model, its config.json, reasons); without a model the reasons say why."""
    path = _path(raw["model"], raw["quant"])
    if path is None:
        return None, None, (f"no configuration of {raw['model']}",)
    bits = GGUF_BITS.get(raw["quant"]) if "llama" in raw["runtime_flags"].lower() else None
    width = 8 if "INT8_W8A16" in raw["quant"] else None
    spec = _spec(path, raw["quant"] if bits else None, width)
    if isinstance(spec, str):
        return None, path, (spec,)
    return spec, path, ()


def _path(model: str, quant: str) -> Path | None:
    """The configuration of a repository of that name, or of the one it shares its shapes with."""
    own = _config(model)
    quantized = "fp8" in quant.lower() and "fp8" not in model.lower()
    if own is not None and not quantized and quant != "INT4":
        return own
    for name, words, repository in SAME:
        if name.lower() in model.lower() and words.lower() in quant.lower():
            return _config(repository)
    return own


def _config(repository: str) -> Path | None:
    name = repository.replace("/", "--")
    for path in (HERE / name / "config.json", SHARED / f"{name}_config.json"):
        if path.exists():
            return path
    return None


@cache
def _spec(path: Path, gguf: str | None, width: int | None) -> ModelSpec | str:
    """The model, or why its configuration cannot be read."""
    config: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if width is not None:
        scheme = {"num_bits": width, "type": "int", "strategy": "channel", "symmetric": True}
        groups = {"group_0": {"targets": ["Linear"], "weights": scheme}}
        described = {"quant_method": "compressed-tensors", "config_groups": groups}
        config = {**config, "quantization_config": {**described, "format": "pack-quantized"}}
    second = path.with_name(path.name.replace("_config.json", "_hf_quant_config.json"))
    quant = json.loads(second.read_text(encoding="utf-8")) if second.exists() else None
    name = path.parent.name if path.name == "config.json" else path.name.split("_config")[0]
    try:
        spec = from_hf_config(
            config,
            name=name.replace("--", "/", 1),
            source=Source.CONTROLLER,
            path=str(path),
            weights_bytes=None,
            quant_config=quant if quant != config else None,
        )
    except MultigpuError as error:
        return str(error)
    return spec if gguf is None else as_gguf(spec, gguf)


def as_gguf(spec: ModelSpec, file_type: str) -> ModelSpec:
    """The GGUF of an unquantized model: every matrix at the mean width of that file type."""
    share = GGUF_BITS[file_type] / 16.0
    return replace(
        spec,
        name=f"{spec.name} {file_type}",
        format="gguf",
        quantization=None if file_type == "F16" else file_type,
        layers_mib=tuple(mib * share for mib in spec.layers_mib),
        experts_mib=tuple(mib * share for mib in spec.experts_mib),
        replicated_mib=tuple(mib * share for mib in spec.replicated_mib),
        embedding_mib=spec.embedding_mib * share,
        output_mib=spec.output_mib * share,
        vision_mib=0.0,
        draft_mib=0.0,
    )
