"""Quantization as checkpoints write it down: one scheme word, and how each module is stored.

Words: awq, gptq, fp8, nvfp4, mxfp4, mxfp8, bitsandbytes, and for compressed-tensors, Quark and
torchao the scheme (w4a16, w8a16, w8a8, w4a8). Rules of the planner are written in these words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multigpu.errors import ModelError
from multigpu.model import stored_format as stored
from multigpu.model.config_json import text_part
from multigpu.model.modelopt import from_modelopt
from multigpu.model.quantization_methods import METHODS, fp8_with_nvfp4_experts
from multigpu.model.quantized import Quantization

DTYPE_BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "float64": 8.0}
MARLIN = frozenset({"awq", "gptq", "w4a16", "w8a16"})
SUPPORTED = "AWQ, GPTQ, FP8, NVFP4, MXFP4, compressed-tensors, bitsandbytes, Quark or torchao"


def read(config: Mapping[str, Any], quant_config: Mapping[str, Any] | None) -> Quantization | None:
    """The quantization of a checkpoint, or None for a plain one.

    `config` is config.json (its `quantization_config`, which may sit in the text part),
    `quant_config` the hf_quant_config.json of NVIDIA's ModelOpt. Raises ModelError for a method
    that is not known here.
    """
    inner = text_part(config)
    described = config.get("quantization_config") or inner.get("quantization_config")
    if isinstance(described, Mapping):
        return _with_experts(_from_method(described, quant_config), inner)
    return from_modelopt(quant_config) if quant_config is not None else None


def _with_experts(q: Quantization | None, inner: Mapping[str, Any]) -> Quantization | None:
    """DeepSeek V4 ships FP8 with experts in MXFP4 (`expert_dtype`)."""
    if q is None or inner.get("expert_dtype") != "fp4" or q.scheme != "fp8":
        return q
    return Quantization(
        "mxfp4",
        32,
        q.default,
        ignored=q.ignored,
        experts=stored.MXFP4,
        kv_cache_dtype=q.kv_cache_dtype,
    )


def _from_method(
    q: Mapping[str, Any], quant_config: Mapping[str, Any] | None
) -> Quantization | None:
    method = str(q.get("quant_method") or "modelopt").lower()
    if method.startswith("modelopt"):
        return from_modelopt(quant_config or {"quantization": q})
    if method == "fp8" and q.get("moe_quant_algo") == "NVFP4":
        return fp8_with_nvfp4_experts(q)
    reader = METHODS.get(method)
    if reader is None:
        raise ModelError(
            f"quantization method {method!r} is not known: use a checkpoint in {SUPPORTED}, "
            "or a GGUF"
        )
    return reader(q)
