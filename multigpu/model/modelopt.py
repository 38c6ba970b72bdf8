"""NVIDIA's ModelOpt: hf_quant_config.json, or the same keys in config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multigpu.errors import ModelError
from multigpu.model import stored_format as stored
from multigpu.model.module_names import Names
from multigpu.model.quantized import Quantization, ignored_names, kv_cache_dtype, simple
from multigpu.model.stored_format import Stored

MODELOPT: dict[str, Stored] = {
    "FP8": stored.fp8(),
    "FP8_PER_CHANNEL_PER_TOKEN": stored.fp8(channel=True),
    "FP8_PB_WO": stored.fp8(128),
    "FP8_PB_REAL_QUANT": stored.fp8(128),
    "NVFP4": stored.NVFP4,
    "W4A16_NVFP4": stored.NVFP4,
    "NVFP4_AWQ": stored.NVFP4,
    "W4A16_AWQ": stored.awq(4, 128),
    "W4A8_AWQ": stored.awq(4, 128),
    "MXFP4": stored.MXFP4,
    "MXFP8": stored.MXFP8,
    "INT8_SQ": stored.integers(8, None, zeros=False, activations=True),
}


def from_modelopt(quant_config: Mapping[str, Any]) -> Quantization:
    """The quantization that ModelOpt wrote down. Raises ModelError."""
    q = quant_config.get("quantization", quant_config)
    if not isinstance(q, Mapping) or not q.get("quant_algo"):
        raise ModelError("hf_quant_config.json has no quantization.quant_algo: the file is cut")
    algo = str(q["quant_algo"]).upper()
    if algo == "MIXED_PRECISION":
        return _from_mixed(q)
    found = MODELOPT.get(algo)
    if found is None:
        raise ModelError(f"ModelOpt algorithm {algo!r} is not known: use FP8 or NVFP4")
    return simple(q, found)


def _from_mixed(q: Mapping[str, Any]) -> Quantization:
    """Each module by name; the narrowest decides what the card must be able to do."""
    layers = q.get("quantized_layers")
    by_format: dict[Stored, list[str]] = {}
    for name, own in layers.items() if isinstance(layers, Mapping) else ():
        found = MODELOPT.get(str(own.get("quant_algo"))) if isinstance(own, Mapping) else None
        if found is not None:
            by_format.setdefault(found, []).append(str(name))
    if not by_format:
        return simple(q, stored.NVFP4, experts_only=True)
    narrowest = min(by_format, key=lambda f: f.bits)
    rules = tuple((Names(names), found) for found, names in by_format.items())
    return Quantization(
        narrowest.scheme,
        narrowest.group_size or None,
        None,
        ignored=Names(ignored_names(q)),
        rules=rules,
        kv_cache_dtype=kv_cache_dtype(q),
    )
