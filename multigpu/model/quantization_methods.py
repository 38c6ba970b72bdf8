"""`quantization_config` of config.json, one reader per method. All raise ModelError."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multigpu.errors import ModelError
from multigpu.model import stored_format as stored
from multigpu.model.module_names import Names
from multigpu.model.quantized import (
    Quantization,
    ignored_names,
    kv_cache_dtype,
    simple,
    texts,
    whole,
)
from multigpu.model.stored_format import Stored

# Targets that mean every linear layer.
LAYER_CLASSES = ("Linear", "LinearBase", "FusedMoE", "MoE")


def _awq(q: Mapping[str, Any]) -> Quantization:
    group = whole(q.get("group_size", q.get("q_group_size")))
    return simple(q, stored.awq(_bits(q), group))


def _gptq(q: Mapping[str, Any]) -> Quantization:
    """GPTQModel's `dynamic`: `-:regex` leaves modules alone, `+:regex` gives them other bits."""
    bits, group = _bits(q), whole(q.get("group_size"))
    rules: list[tuple[Names, Stored | None]] = []
    dynamic = q.get("dynamic")
    for pattern, change in dynamic.items() if isinstance(dynamic, Mapping) else ():
        names = Names(["re:" + str(pattern).removeprefix("-:").removeprefix("+:")])
        if str(pattern).startswith("-:"):
            rules.append((names, None))
        elif isinstance(change, Mapping):
            own = whole(change.get("bits")) or bits, whole(change.get("group_size")) or group
            rules.append((names, stored.gptq(*own)))
    return simple(q, stored.gptq(bits, group), rules=tuple(rules))


def _auto_round(q: Mapping[str, Any]) -> Quantization:
    """AutoRound packs as GPTQ or AWQ; `extra_config` names modules with bits of their own."""
    bits, group = _bits(q), whole(q.get("group_size"))
    packing = str(q.get("packing_format", ""))
    make = stored.awq if "awq" in packing else stored.gptq
    if str(q.get("data_type", "int")).startswith(("nv_fp", "mx_fp")):
        default = stored.NVFP4 if "nv" in str(q.get("data_type")) else stored.MXFP4
        return simple(q, default)
    rules: list[tuple[Names, Stored | None]] = []
    extra = q.get("extra_config")
    for name, own in extra.items() if isinstance(extra, Mapping) else ():
        width = whole(own.get("bits")) if isinstance(own, Mapping) else None
        pattern = f"re:{name}" if set(str(name)) & set("\\*+[(") else str(name)
        kept = None if width is None or width >= 16 else make(width, group)
        rules.append((Names([pattern]), kept))
    return simple(q, make(bits, group), rules=tuple(rules))


def _bits(q: Mapping[str, Any]) -> int:
    bits = whole(q.get("bits", q.get("w_bit"))) or 4
    if bits not in (2, 3, 4, 8):
        raise ModelError(f"quantization_config: {bits} bits are not known: use 4 or 8 bits")
    return bits


def _fp8(q: Mapping[str, Any]) -> Quantization:
    block = q.get("weight_block_size")
    size = block[0] if isinstance(block, list) and block else None
    if size is not None and (type(size) is not int or not 0 < size <= 4096):
        raise ModelError(f"quantization_config: weight_block_size is {block!r}")
    channel = str(q.get("quant_method")) == "fbgemm_fp8"
    return simple(q, stored.fp8(size, channel=channel))


def fp8_with_nvfp4_experts(q: Mapping[str, Any]) -> Quantization:
    """NVIDIA's DeepSeek V4: what the ignore list names stays FP8, not the model's dtype."""
    default = _fp8(q).default
    cached = kv_cache_dtype(q)
    return Quantization("nvfp4", 16, default, experts=stored.NVFP4, kv_cache_dtype=cached)


def _bitsandbytes(q: Mapping[str, Any]) -> Quantization:
    eight = q.get("load_in_8bit") is True or q.get("load_in_4bit") is False
    names = [*ignored_names(q), *texts(q.get("llm_int8_skip_modules"))]
    default = stored.BITSANDBYTES_8 if eight else stored.BITSANDBYTES_4
    return Quantization("bitsandbytes", None, default, ignored=Names(names))


def _torchao(q: Mapping[str, Any]) -> Quantization:
    """torchao names a configuration class (`Int4WeightOnlyConfig`) or a short word (int4wo)."""
    kind = q.get("quant_type")
    if isinstance(kind, Mapping):
        kind = kind.get("default") or kind
        kind = kind.get("_type") if isinstance(kind, Mapping) else kind
    word = str(kind).lower().replace("_", "")
    if "int4" in word:
        return simple(q, stored.integers(4, 128, zeros=True, activations=False))
    if "int8" in word:
        dynamic = "dynamic" in word
        return simple(q, stored.integers(8, None, zeros=False, activations=dynamic))
    if "float8" in word or "fp8" in word:
        return simple(q, stored.fp8(channel=True))
    raise ModelError(f"torchao type {kind!r} is not known: use int4, int8 or float8")


def _quark(q: Mapping[str, Any]) -> Quantization:
    """AMD's Quark: `global_quant_config.weight` with dtype and scheme."""
    described = q.get("global_quant_config")
    weight = described.get("weight") if isinstance(described, Mapping) else None
    weight = weight[0] if isinstance(weight, list) and weight else weight
    if not isinstance(weight, Mapping):
        raise ModelError("quantization method 'quark' without global_quant_config.weight")
    dtype, scheme = str(weight.get("dtype")), str(weight.get("qscheme"))
    group = whole(weight.get("group_size"))
    activations = isinstance(described, Mapping) and bool(described.get("input_tensors"))
    if dtype == "fp4":
        return simple(q, stored.NVFP4 if group == 16 else stored.MXFP4)
    if dtype.startswith("fp8"):
        return simple(q, stored.fp8(channel="channel" in scheme))
    if dtype in ("int4", "uint4", "int8"):
        bits = 8 if dtype == "int8" else 4
        zeros = dtype == "uint4"
        return simple(q, stored.integers(bits, group, zeros=zeros, activations=activations))
    raise ModelError(f"quark dtype {dtype!r} is not known: use fp8, fp4, int4 or int8")


def _compressed_tensors(q: Mapping[str, Any]) -> Quantization:
    """Every group has its targets: all Linear modules, names or `re:` patterns."""
    groups = q.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        raise ModelError("quantization_config of compressed-tensors has no config_groups.weights")
    formats = [(group, _group_format(group)) for group in groups.values()]
    rules: list[tuple[Names, Stored | None]] = []
    default: Stored | None = None
    for group, found in formats:
        named = [t for t in texts(group.get("targets")) if t not in LAYER_CLASSES]
        if named:
            rules.append((Names(named), found))
        else:
            default = found
    narrowest = min((f for _, f in formats), key=lambda f: f.bits)
    return Quantization(
        narrowest.scheme,
        narrowest.group_size or None,
        default,
        ignored=Names(ignored_names(q)),
        rules=tuple(rules),
        kv_cache_dtype=kv_cache_dtype(q),
    )


def _group_format(group: object) -> Stored:
    weights = group.get("weights") if isinstance(group, Mapping) else None
    if not isinstance(group, Mapping) or not isinstance(weights, Mapping):
        raise ModelError("quantization_config of compressed-tensors has no config_groups.weights")
    bits, kind = whole(weights.get("num_bits")), str(weights.get("type", "int"))
    group_size, strategy = whole(weights.get("group_size")), str(weights.get("strategy", ""))
    if kind == "float" and bits == 4:
        return stored.NVFP4 if group_size == 16 else stored.MXFP4
    if kind == "float":
        block = weights.get("block_structure")
        size = block[0] if isinstance(block, list) and block else None
        size = size if type(size) is int and size > 0 else None
        return stored.fp8(size, channel=strategy in ("channel", ""))
    if bits not in (4, 8):
        raise ModelError(f"compressed-tensors with {bits} bits is not known: use 4 or 8 bits")
    return stored.integers(
        bits,
        group_size,
        zeros=weights.get("symmetric") is False,
        activations=bool(group.get("input_activations")),
    )


# quant_method -> its reader.
METHODS = {
    "awq": _awq,
    "awq_marlin": _awq,
    "gptq": _gptq,
    "gptq_marlin": _gptq,
    "auto-round": _auto_round,
    "auto_round": _auto_round,
    "inc": _auto_round,
    "fp8": _fp8,
    "fbgemm_fp8": _fp8,
    "mxfp4": lambda q: simple(q, stored.MXFP4, experts_only=True),
    "gpt_oss_mxfp4": lambda q: simple(q, stored.MXFP4, experts_only=True),
    "mxfp8": lambda q: simple(q, stored.MXFP8),
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed_tensors,
    "quark": _quark,
    "torchao": _torchao,
}
