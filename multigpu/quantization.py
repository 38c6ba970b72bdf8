"""Quantization as checkpoints write it down: one scheme word, and how each module is stored.

Words: awq, gptq, fp8, nvfp4, mxfp4, mxfp8, bitsandbytes, and for compressed-tensors, Quark and
torchao the scheme (w4a16, w8a16, w8a8, w4a8). Rules of the planner are written in these words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from multigpu import stored_format as stored
from multigpu.config_json import text_part
from multigpu.errors import ModelError
from multigpu.module_names import Names
from multigpu.stored_format import Stored

DTYPE_BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "float64": 8.0}

MARLIN = frozenset({"awq", "gptq", "w4a16", "w8a16"})

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
IGNORE_KEYS = ("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules", "exclude")
SUPPORTED = "AWQ, GPTQ, FP8, NVFP4, MXFP4, compressed-tensors, bitsandbytes, Quark or torchao"


@dataclass(frozen=True)
class Quantization:
    """One checkpoint's quantization.

    `scheme` and `group_size` are those of the narrowest format. `rules` are tried in order: the
    first whose names match decides; None as a format means the model's own dtype. What no rule
    names has `default`. `experts_only` leaves everything but routed experts alone.
    """

    scheme: str
    group_size: int | None
    default: Stored | None
    ignored: Names = field(default_factory=lambda: Names(()))
    rules: tuple[tuple[Names, Stored | None], ...] = ()
    experts_only: bool = False
    experts: Stored | None = None
    kv_cache_dtype: str | None = None

    def named(self, module: str) -> Stored | None:
        """How a module outside of the blocks is stored, where a rule names it (lm_head)."""
        return next((found for names, found in self.rules if names.match(None, module)), None)

    def stored(self, layer: int | None, module: str, *, expert: bool = False) -> Stored | None:
        """How a module is stored, or None where it kept the model's dtype."""
        if self.ignored.match(layer, module):
            return None
        for names, found in self.rules:
            if names.match(layer, module):
                return found
        if expert and self.experts is not None:
            return self.experts
        return None if self.experts_only and not expert else self.default


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
    return _from_modelopt(quant_config) if quant_config is not None else None


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
        return _from_modelopt(quant_config or {"quantization": q})
    if method == "fp8" and q.get("moe_quant_algo") == "NVFP4":
        return _fp8_with_nvfp4_experts(q)
    reader = _METHODS.get(method)
    if reader is None:
        raise ModelError(
            f"quantization method {method!r} is not known: use a checkpoint in {SUPPORTED}, "
            "or a GGUF"
        )
    return reader(q)


def _fp8_with_nvfp4_experts(q: Mapping[str, Any]) -> Quantization:
    """NVIDIA's DeepSeek V4: what the ignore list names stays FP8, not the model's dtype."""
    default = _fp8(q).default
    cached = kv_cache_dtype(q)
    return Quantization("nvfp4", 16, default, experts=stored.NVFP4, kv_cache_dtype=cached)


def _simple(q: Mapping[str, Any], default: Stored, **more: Any) -> Quantization:
    group = default.group_size or None
    ignored = Names(ignored_names(q))
    return Quantization(
        default.scheme, group, default, ignored=ignored, kv_cache_dtype=kv_cache_dtype(q), **more
    )


def _awq(q: Mapping[str, Any]) -> Quantization:
    group = _int(q.get("group_size", q.get("q_group_size")))
    return _simple(q, stored.awq(_bits(q), group))


def _gptq(q: Mapping[str, Any]) -> Quantization:
    """GPTQModel's `dynamic`: `-:regex` leaves modules alone, `+:regex` gives them other bits."""
    bits, group = _bits(q), _int(q.get("group_size"))
    rules: list[tuple[Names, Stored | None]] = []
    dynamic = q.get("dynamic")
    for pattern, change in dynamic.items() if isinstance(dynamic, Mapping) else ():
        names = Names(["re:" + str(pattern).removeprefix("-:").removeprefix("+:")])
        if str(pattern).startswith("-:"):
            rules.append((names, None))
        elif isinstance(change, Mapping):
            own = _int(change.get("bits")) or bits, _int(change.get("group_size")) or group
            rules.append((names, stored.gptq(*own)))
    return _simple(q, stored.gptq(bits, group), rules=tuple(rules))


def _auto_round(q: Mapping[str, Any]) -> Quantization:
    """AutoRound packs as GPTQ or AWQ; `extra_config` names modules with bits of their own."""
    bits, group = _bits(q), _int(q.get("group_size"))
    packing = str(q.get("packing_format", ""))
    make = stored.awq if "awq" in packing else stored.gptq
    if str(q.get("data_type", "int")).startswith(("nv_fp", "mx_fp")):
        default = stored.NVFP4 if "nv" in str(q.get("data_type")) else stored.MXFP4
        return _simple(q, default)
    rules: list[tuple[Names, Stored | None]] = []
    extra = q.get("extra_config")
    for name, own in extra.items() if isinstance(extra, Mapping) else ():
        width = _int(own.get("bits")) if isinstance(own, Mapping) else None
        pattern = f"re:{name}" if set(str(name)) & set("\\*+[(") else str(name)
        kept = None if width is None or width >= 16 else make(width, group)
        rules.append((Names([pattern]), kept))
    return _simple(q, make(bits, group), rules=tuple(rules))


def _bits(q: Mapping[str, Any]) -> int:
    bits = _int(q.get("bits", q.get("w_bit"))) or 4
    if bits not in (2, 3, 4, 8):
        raise ModelError(f"quantization_config: {bits} bits are not known: use 4 or 8 bits")
    return bits


def _fp8(q: Mapping[str, Any]) -> Quantization:
    block = q.get("weight_block_size")
    size = block[0] if isinstance(block, list) and block else None
    if size is not None and (type(size) is not int or not 0 < size <= 4096):
        raise ModelError(f"quantization_config: weight_block_size is {block!r}")
    channel = str(q.get("quant_method")) == "fbgemm_fp8"
    return _simple(q, stored.fp8(size, channel=channel))


def _bitsandbytes(q: Mapping[str, Any]) -> Quantization:
    eight = q.get("load_in_8bit") is True or q.get("load_in_4bit") is False
    names = [*ignored_names(q), *_texts(q.get("llm_int8_skip_modules"))]
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
        return _simple(q, stored.integers(4, 128, zeros=True, activations=False))
    if "int8" in word:
        dynamic = "dynamic" in word
        return _simple(q, stored.integers(8, None, zeros=False, activations=dynamic))
    if "float8" in word or "fp8" in word:
        return _simple(q, stored.fp8(channel=True))
    raise ModelError(f"torchao type {kind!r} is not known: use int4, int8 or float8")


def _quark(q: Mapping[str, Any]) -> Quantization:
    """AMD's Quark: `global_quant_config.weight` with dtype and scheme."""
    described = q.get("global_quant_config")
    weight = described.get("weight") if isinstance(described, Mapping) else None
    weight = weight[0] if isinstance(weight, list) and weight else weight
    if not isinstance(weight, Mapping):
        raise ModelError("quantization method 'quark' without global_quant_config.weight")
    dtype, scheme = str(weight.get("dtype")), str(weight.get("qscheme"))
    group = _int(weight.get("group_size"))
    activations = isinstance(described, Mapping) and bool(described.get("input_tensors"))
    if dtype == "fp4":
        return _simple(q, stored.NVFP4 if group == 16 else stored.MXFP4)
    if dtype.startswith("fp8"):
        return _simple(q, stored.fp8(channel="channel" in scheme))
    if dtype in ("int4", "uint4", "int8"):
        bits = 8 if dtype == "int8" else 4
        zeros = dtype == "uint4"
        return _simple(q, stored.integers(bits, group, zeros=zeros, activations=activations))
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
        named = [t for t in _texts(group.get("targets")) if t not in LAYER_CLASSES]
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


# Targets that mean every linear layer.
LAYER_CLASSES = ("Linear", "LinearBase", "FusedMoE", "MoE")


def _group_format(group: object) -> Stored:
    weights = group.get("weights") if isinstance(group, Mapping) else None
    if not isinstance(group, Mapping) or not isinstance(weights, Mapping):
        raise ModelError("quantization_config of compressed-tensors has no config_groups.weights")
    bits, kind = _int(weights.get("num_bits")), str(weights.get("type", "int"))
    group_size, strategy = _int(weights.get("group_size")), str(weights.get("strategy", ""))
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


def _from_modelopt(quant_config: Mapping[str, Any]) -> Quantization:
    q = quant_config.get("quantization", quant_config)
    if not isinstance(q, Mapping) or not q.get("quant_algo"):
        raise ModelError("hf_quant_config.json has no quantization.quant_algo: the file is cut")
    algo = str(q["quant_algo"]).upper()
    if algo == "MIXED_PRECISION":
        return _from_mixed(q)
    found = MODELOPT.get(algo)
    if found is None:
        raise ModelError(f"ModelOpt algorithm {algo!r} is not known: use FP8 or NVFP4")
    return _simple(q, found)


def _from_mixed(q: Mapping[str, Any]) -> Quantization:
    """Each module by name; the narrowest decides what the card must be able to do."""
    layers = q.get("quantized_layers")
    by_format: dict[Stored, list[str]] = {}
    for name, own in layers.items() if isinstance(layers, Mapping) else ():
        found = MODELOPT.get(str(own.get("quant_algo"))) if isinstance(own, Mapping) else None
        if found is not None:
            by_format.setdefault(found, []).append(str(name))
    if not by_format:
        return _simple(q, stored.NVFP4, experts_only=True)
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


def ignored_names(q: Mapping[str, Any]) -> tuple[str, ...]:
    """Modules that kept the model's dtype, under all spellings of the key."""
    return tuple(item for key in IGNORE_KEYS for item in _texts(q.get(key)))


def kv_cache_dtype(q: Mapping[str, Any]) -> str | None:
    """The type of the KV cache that the checkpoint was calibrated for."""
    algo = q.get("kv_cache_quant_algo") or q.get("kv_cache_scheme")
    if isinstance(algo, str):
        return {"FP8": "fp8", "NVFP4": "nvfp4", "INT8": "int8"}.get(algo.upper())
    if isinstance(algo, Mapping):
        return "fp8" if (algo.get("num_bits"), algo.get("type")) == (8, "float") else None
    return "fp8" if isinstance(q.get("kv_cache_quant_config"), Mapping) else None


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


_METHODS = {
    "awq": _awq,
    "awq_marlin": _awq,
    "gptq": _gptq,
    "gptq_marlin": _gptq,
    "auto-round": _auto_round,
    "auto_round": _auto_round,
    "inc": _auto_round,
    "fp8": _fp8,
    "fbgemm_fp8": _fp8,
    "mxfp4": lambda q: _simple(q, stored.MXFP4, experts_only=True),
    "gpt_oss_mxfp4": lambda q: _simple(q, stored.MXFP4, experts_only=True),
    "mxfp8": lambda q: _simple(q, stored.MXFP8),
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed_tensors,
    "quark": _quark,
    "torchao": _torchao,
}
