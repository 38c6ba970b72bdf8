"""Quantization as checkpoints write it down: one scheme word, its group size, bytes per weight.

Words: awq, gptq, fp8, nvfp4, mxfp4, bitsandbytes, and for compressed-tensors the scheme (w4a16,
w8a16, w8a8). Rules of the planner are written in these words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multigpu.errors import ModelError

DTYPE_BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0}

# Bytes per quantized weight with its scales: 4-bit integers with 16-bit scales and packed zeros per
# group of 128; NVFP4 one fp8 scale per 16; MXFP4 one 8-bit exponent per 32.
SCHEME_BYTES = {
    "awq": 0.52,
    "gptq": 0.52,
    "w4a16": 0.52,
    "bitsandbytes": 0.52,
    "nvfp4": 0.5625,
    "mxfp4": 0.53125,
    "fp8": 1.0,
    "w8a16": 1.0,
    "w8a8": 1.0,
}

MARLIN = frozenset({"awq", "gptq", "w4a16", "w8a16"})

MODELOPT = {
    "FP8": "fp8",
    "FP8_PB_WO": "fp8",
    "NVFP4": "nvfp4",
    "W4A16_NVFP4": "nvfp4",
    "W4A16_AWQ": "awq",
}


@dataclass(frozen=True)
class Quantization:
    """One checkpoint's quantization. `ignored` are module patterns left at the model's dtype."""

    scheme: str
    group_size: int | None = None
    ignored: tuple[str, ...] = ()

    def keeps(self, *modules: str) -> bool:
        """True when one of the modules is named by the patterns that are not quantized."""
        return any(module in pattern for pattern in self.ignored for module in modules)


def read(config: Mapping[str, Any], quant_config: Mapping[str, Any] | None) -> Quantization | None:
    """The quantization of a checkpoint, or None for a plain one.

    `config` is config.json (its `quantization_config`, which may sit in `text_config`),
    `quant_config` the hf_quant_config.json of NVIDIA's ModelOpt. Raises ModelError for a method
    that is not known here.
    """
    inner = config.get("text_config")
    nested = inner.get("quantization_config") if isinstance(inner, Mapping) else None
    described = config.get("quantization_config") or nested
    if isinstance(described, Mapping):
        return _from_method(described, quant_config)
    return _from_modelopt(quant_config) if quant_config is not None else None


def _from_method(
    q: Mapping[str, Any], quant_config: Mapping[str, Any] | None
) -> Quantization | None:
    method = str(q.get("quant_method") or "modelopt").lower()
    ignored = _ignored(q, "modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules")
    if method.startswith("modelopt"):
        return _from_modelopt(quant_config or {"quantization": q})
    if method in ("awq", "gptq", "auto-round", "awq_marlin", "gptq_marlin"):
        scheme = "awq" if method.startswith("awq") else "gptq"
        return Quantization(scheme, _int(q.get("group_size")), ignored)
    if method == "fp8" and str(q.get("quant_algo")) == "MIXED_PRECISION":
        return Quantization("nvfp4", 16, ignored)
    if method in ("fp8", "fbgemm_fp8"):
        block = q.get("weight_block_size")
        return Quantization("fp8", int(block[0]) if block else None, ignored)
    if method == "mxfp4":
        return Quantization("mxfp4", 32, ignored)
    if method == "bitsandbytes":
        return Quantization("bitsandbytes" if q.get("load_in_4bit", True) else "w8a16", None, ())
    if method == "compressed-tensors":
        return _from_compressed_tensors(q, ignored)
    raise ModelError(
        f"quantization method {method!r} is not known: use a checkpoint in AWQ, GPTQ, FP8, NVFP4, "
        "MXFP4 or compressed-tensors, or a GGUF"
    )


def _from_modelopt(quant_config: Mapping[str, Any]) -> Quantization | None:
    q = quant_config.get("quantization", quant_config)
    if not isinstance(q, Mapping) or not q.get("quant_algo"):
        raise ModelError("hf_quant_config.json has no quantization.quant_algo: the file is cut")
    algo = str(q["quant_algo"]).upper()
    ignored = _ignored(q, "exclude_modules", "ignore")
    group = _int(q.get("group_size"))
    if algo == "MIXED_PRECISION":
        return _from_mixed(q, ignored)
    if algo not in MODELOPT:
        raise ModelError(f"ModelOpt algorithm {algo!r} is not known: use FP8 or NVFP4")
    return Quantization(MODELOPT[algo], 16 if "NVFP4" in algo else group, ignored)


def _from_mixed(q: Mapping[str, Any], ignored: tuple[str, ...]) -> Quantization:
    """The narrowest of the per-layer algorithms decides what the card must be able to do."""
    layers = q.get("quantized_layers")
    named = layers.values() if isinstance(layers, Mapping) else ()
    schemes = {MODELOPT.get(str(v.get("quant_algo"))) for v in named if isinstance(v, Mapping)}
    if schemes == {"fp8"}:
        return Quantization("fp8", None, ignored)
    return Quantization("nvfp4", 16, ignored)


def _from_compressed_tensors(q: Mapping[str, Any], ignored: tuple[str, ...]) -> Quantization:
    groups = q.get("config_groups")
    group = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = group.get("weights") if isinstance(group, Mapping) else None
    if not isinstance(group, Mapping) or not isinstance(weights, Mapping):
        raise ModelError("quantization_config of compressed-tensors has no config_groups.weights")
    bits, kind = _int(weights.get("num_bits")), str(weights.get("type", "int"))
    group_size = _int(weights.get("group_size"))
    if kind == "float":
        if bits == 4:
            return Quantization("nvfp4" if group_size == 16 else "mxfp4", group_size, ignored)
        block = weights.get("block_structure")
        return Quantization("fp8", int(block[0]) if isinstance(block, list) else None, ignored)
    if bits == 4:
        return Quantization("w4a16", group_size, ignored)
    if bits == 8:
        return Quantization("w8a8" if group.get("input_activations") else "w8a16", group_size)
    raise ModelError(f"compressed-tensors with {bits} bits is not known: use 4 or 8 bits")


def _ignored(q: Mapping[str, Any], *keys: str) -> tuple[str, ...]:
    return tuple(str(item) for key in keys for item in q.get(key) or ())


def _int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
