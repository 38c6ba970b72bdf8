"""Which block is which: the mixer (attention or a recurrence) and the feed-forward part of each.

Mixers: full | sliding | chunked | gated_delta | kimi_delta | lightning | mamba | mamba2 | conv |
parallel (attention and Mamba-2 side by side) | shared (Zamba2: Mamba-2 and a shared attention) |
compressed (DeepSeek V4) | none. Feed-forward parts: auto (dense or routed, as the keys of the
layer say) | moe | mlp | none.
"""

from __future__ import annotations

from dataclasses import dataclass

from multigpu.errors import ModelError
from multigpu.model.architecture.families import ALL_SLIDING, KNOWN, REFUSED
from multigpu.model.config_json import ConfigJson

LAYERS_MAX = 4096

# Names of `layer_types` and `layers_block_type` -> mixer; "recurrent" is the family's own kind.
NAMES = {
    "full_attention": "full",
    "attention": "full",
    "global_attention": "full",
    "global": "full",
    "sliding_attention": "sliding",
    "local": "sliding",
    "chunked_attention": "chunked",
    "deepseek_sparse_attention": "full",
    "indexed_attention": "full",
    "linear_attention": "recurrent",
    "mamba": "recurrent",
    "mamba2": "recurrent",
    "conv": "conv",
    "short_conv": "conv",
    "hybrid": "shared",
    "compressed_sparse_attention": "compressed",
    "heavily_compressed_attention": "compressed",
    "moe": "moe",
    "mlp": "mlp",
}

# Nemotron-H: one letter per block, a mixer or a feed-forward part, never both.
LETTERS = {"M": "recurrent", "*": "full", "E": "moe", "-": "mlp"}
ONE_PART = ("nemotron_h", "nemotron_h_puzzle", "mamba", "mamba2", "falcon_mamba", "zamba2")

RECURRENT_KIND = {
    "mamba": "mamba",
    "falcon_mamba": "mamba",
    "jamba": "mamba",
    "plamo2": "mamba2",
    "lfm2": "conv",
    "lfm2_moe": "conv",
    "kimi_linear": "kimi_delta",
    "bailing_hybrid": "kimi_delta",
    "minimax": "lightning",
    "minimax_text_01": "lightning",
    "minimax_m1": "lightning",
    "bailing_moe_v2_5": "lightning",
    "bailing_moe_linear": "lightning",
}
GATED_DELTA = ("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text")


@dataclass(frozen=True)
class Kind:
    """The two parts of one block."""

    mixer: str
    feed_forward: str = "auto"


def kinds(c: ConfigJson) -> tuple[Kind, ...]:
    """The kind of every block, in order. Raises ModelError for what is not modelled."""
    refuse_unknown(c)
    if c.model_type == "falcon_h1":
        return (Kind("parallel"),) * layer_count(c)
    pattern = c.get("hybrid_override_pattern")
    if isinstance(pattern, str):
        return _from_letters(c, pattern)
    named = c.names("layer_types") or c.names("layers_block_type")
    if named is not None:
        return tuple(_kind(c, NAMES[name]) for name in _named(c, named))
    return tuple(_kind(c, mixer) for mixer in _mixers(c, layer_count(c)))


def refuse_unknown(c: ConfigJson) -> None:
    """A family whose blocks are not modelled: the reason, and what to do."""
    reason = REFUSED.get(c.model_type)
    if reason is not None:
        raise ModelError(f"{c.model_type}: {reason}")
    if c.get("is_encoder_decoder") is True:
        raise ModelError(f"{c.model_type}: an encoder-decoder model, which is not supported")
    if c.model_type not in KNOWN:
        raise ModelError(
            f"model_type {c.model_type!r} is not known, and the layout of its blocks and cache is "
            "needed: take a GGUF of it, whose header lists every tensor"
        )


def layer_count(c: ConfigJson) -> int:
    """`num_hidden_layers`, or the length of the lists that stand for it."""
    for key in ("layers_block_type", "hybrid_override_pattern", "block_configs"):
        listed = c.get(key)
        if isinstance(listed, (list, str)) and listed and not c.has("num_hidden_layers"):
            return len(listed)
    key = "num_layers" if c.model_type == "longcat_flash" else "num_hidden_layers"
    count = c.positive(key)
    if count > LAYERS_MAX:
        raise ModelError(f"config.json: {count} layers, more than any model has")
    return count


def _kind(c: ConfigJson, mixer: str) -> Kind:
    if mixer in ("moe", "mlp"):
        return Kind("none", mixer)
    if mixer == "recurrent":
        mixer = recurrent_kind(c)
    return Kind(mixer, "none" if c.model_type in ONE_PART else "auto")


def recurrent_kind(c: ConfigJson) -> str:
    """What this family's recurrent layers are."""
    if c.model_type in GATED_DELTA or c.has("linear_num_value_heads"):
        return "gated_delta"
    return RECURRENT_KIND.get(c.model_type, "mamba2")


def _named(c: ConfigJson, names: tuple[str, ...]) -> tuple[str, ...]:
    """The list may be longer than the model: layers of multi-token prediction stand at its end."""
    stated = c.stated("num_hidden_layers")
    count = layer_count(c) if stated is not None else len(names)
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise ModelError(f"config.json: layer type {unknown[0]!r} is not supported")
    if len(names) < count or not 1 <= count <= LAYERS_MAX:
        raise ModelError(f"config.json: {len(names)} layer types for {count} layers")
    return names[:count]


def _from_letters(c: ConfigJson, pattern: str) -> tuple[Kind, ...]:
    unknown = sorted(set(pattern) - set(LETTERS))
    if unknown or not pattern or len(pattern) > LAYERS_MAX:
        raise ModelError(f"config.json: hybrid_override_pattern has {unknown or 'no letters'}")
    return tuple(_kind(c, LETTERS[letter]) for letter in pattern)


def _mixers(c: ConfigJson, count: int) -> list[str]:
    """Where no list of names says it: the families' own lists, intervals and periods."""
    recurrent = _recurrent_at(c, count)
    if recurrent is not None:
        return ["recurrent" if here else "full" for here in recurrent]
    if c.has("compress_ratios"):
        return ["compressed"] * count
    binary = c.get("hybrid_layer_pattern")
    if isinstance(binary, list) and len(binary) >= count:
        return ["sliding" if item == 1 else "full" for item in binary[:count]]
    return [_attention_at(c, i) for i in range(count)]


def _recurrent_at(c: ConfigJson, count: int) -> list[bool] | None:
    """True for every recurrent layer; None for a family without any."""
    layers = range(count)
    if c.model_type in ("mamba", "mamba2", "falcon_mamba"):
        return [True] * count
    if c.has("full_attention_interval"):
        interval = c.positive("full_attention_interval")
        return [(i + 1) % interval != 0 for i in layers]
    if c.has("layer_group_size"):
        group = c.positive("layer_group_size")
        return [(i + 1) % group != 0 and i < count // group * group for i in layers]
    if c.has("attn_layer_period"):
        period, offset = c.positive("attn_layer_period"), c.integer("attn_layer_offset", default=0)
        return [i % period != offset for i in layers]
    if c.has("attn_layer_indices"):
        attention = c.whole_numbers("attn_layer_indices")
        return [i not in attention for i in layers]
    if c.model_type == "bamba":
        return [True] * count
    listed = c.get("attn_type_list", "decoder_attention_types")
    if isinstance(listed, list) and len(listed) >= count:
        return [item == 0 for item in listed[:count]]
    return _recurrent_by_family(c, count)


def _recurrent_by_family(c: ConfigJson, count: int) -> list[bool] | None:
    linear = c.part("linear_attn_config")
    if linear is not None:  # Kimi counts its layers from 1
        attention = linear.whole_numbers("full_attn_layers")
        return [i + 1 not in attention for i in range(count)]
    if c.model_type == "plamo2":
        step = c.positive("mamba_step", default=2)
        if count <= step // 2:  # a model that small has attention on its last layer only
            return [i != count - 1 for i in range(count)]
        return [i % step != step // 2 for i in range(count)]
    if c.model_type in ("lfm2", "lfm2_moe"):
        attention = c.whole_numbers("full_attn_idxs")
        return [i not in attention for i in range(count)]
    return None


def _attention_at(c: ConfigJson, index: int) -> str:
    """Full or sliding by a period; the window of some families holds on every layer."""
    if c.has("attention_chunk_size") and c.model_type.startswith("llama4"):
        return "chunked" if (index + 1) % 4 else "full"
    pattern = c.get(
        "sliding_window_pattern", "_sliding_window_pattern", "global_attn_every_n_layers"
    )
    if not c.has("sliding_window") or c.get("use_sliding_window") is False:
        return "full"
    if isinstance(pattern, str) and pattern:  # EXAONE 4: "LLLG"
        return "sliding" if pattern[index % len(pattern)] == "L" else "full"
    if type(pattern) is int and pattern > 0:
        return "full" if (index + 1) % pattern == 0 else "sliding"
    if c.model_type in ("gemma2", "gpt_oss", "vaultgemma"):
        return "full" if index % 2 else "sliding"
    return "sliding" if c.model_type in ALL_SLIDING else "full"
