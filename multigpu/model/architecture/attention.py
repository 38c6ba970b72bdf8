"""Attention of a block: heads that may change from layer to layer, latent attention, its cache."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from multigpu.errors import ModelError
from multigpu.model.architecture.families import (
    HEAD_GATE,
    LATENT,
    OUTPUT_GATE,
    QKV_BIAS,
)
from multigpu.model.architecture.tensors import Share, Tensor, linear, plain
from multigpu.model.config_json import ConfigJson
from multigpu.plan import LayerCache

REPLICATED = Share.REPLICATED
# DeepSeek's indexer caches one fp8 vector and a float32 scale per 128 elements for every token
# (vLLM 0.33, models/deepseek_v32): counted in elements of two bytes, the cache's plain type.
INDEX_SCALE_BYTES, INDEX_GROUP, CACHE_BYTES = 4, 128, 2

# Width of full attention in Gemma 4 where the file leaves it out (Gemma4TextConfig).
GEMMA_4_GLOBAL = 512


@dataclass(frozen=True)
class Heads:
    """Query heads, KV heads, and the widths of keys and of values of one layer."""

    query: int
    key_value: int
    width: int
    value_width: int


def heads(c: ConfigJson, mixer: str = "full", layer: int = 0) -> Heads:
    """The attention shape of one layer."""
    query = c.positive("num_attention_heads", layer=layer)
    width = head_dim(c)
    if mixer in ("sliding", "chunked"):
        return _sliding_heads(c, query, width, layer)
    query = c.positive("num_attention_heads_per_layer", default=query, layer=layer)
    kv = c.optional("num_global_key_value_heads") or key_value_heads(c, query, layer)
    width = c.optional("global_head_dim") or (GEMMA_4_GLOBAL if _gemma4(c) else width)
    return Heads(query, kv, width, c.positive("v_head_dim", default=width))


def _gemma4(c: ConfigJson) -> bool:
    return c.model_type in ("gemma4_text", "gemma4_unified_text")


def _sliding_heads(c: ConfigJson, query: int, width: int, layer: int) -> Heads:
    """MiMo (`swa_*`) and Step (`attention_other_setting`) have other heads on sliding layers."""
    own = c.part("attention_other_setting")
    if own is not None:
        query = own.positive("num_attention_heads", default=query)
        kv = own.positive("num_key_value_heads", default=key_value_heads(c, query, layer))
        width = own.positive("head_dim", default=width)
        return Heads(query, kv, width, width)
    query = c.positive("num_attention_heads_per_layer", default=query, layer=layer)
    query = c.positive("swa_num_attention_heads", "num_sliding_attention_heads", default=query)
    kv = c.positive("swa_num_key_value_heads", default=key_value_heads(c, query, layer))
    width = c.positive("swa_head_dim", default=width)
    value = c.positive("swa_v_head_dim", "v_head_dim", default=width)
    return Heads(query, kv, width, value)


def key_value_heads(c: ConfigJson, query: int, layer: int = 0) -> int:
    """KV heads of a layer; without a key all heads have their own, or one serves all (MQA)."""
    if c.model_type in ("falcon", "RefinedWeb", "RefinedWebModel"):
        if not c.flag("new_decoder_architecture"):
            return 1 if c.get("multi_query") is not False else query
        return c.positive("num_kv_heads", "n_head_kv", default=query)
    if c.model_type in ("gpt_bigcode",) and c.get("multi_query") is not False:
        return 1
    if c.model_type == "chatglm" and not c.flag("multi_query_attention"):
        return query
    return c.positive("num_key_value_heads", default=query, layer=layer)


def head_dim(c: ConfigJson) -> int:
    """`head_dim`, which need not be hidden_size / num_attention_heads (gpt-oss, Qwen3, Gemma)."""
    stated = c.stated("head_dim")
    if stated is not None:
        return c.positive("head_dim")
    query, hidden = c.positive("num_attention_heads", layer=0), c.positive("hidden_size")
    if c.model_type == "zamba2":
        return max(1, 2 * hidden // query)
    default = c.get("head_dim")
    if default is None and hidden < query:
        raise ModelError(f"config.json: hidden_size {hidden} is less than {query} heads")
    return c.positive("head_dim", default=hidden // query)


def is_latent(c: ConfigJson) -> bool:
    """True for multi-head latent attention: `num_key_value_heads` says nothing then."""
    return c.model_type in LATENT and c.has("kv_lora_rank")


def cache(c: ConfigJson, mixer: str, layer: int) -> LayerCache:
    """What an attention layer caches."""
    if is_latent(c):
        twice = 2 if c.model_type == "longcat_flash" else 1
        elements = c.positive("kv_lora_rank") + c.integer("qk_rope_head_dim", default=0)
        return LayerCache("mla", elements=twice * (elements + _index_elements(c, layer)))
    shape = heads(c, mixer, layer)
    width = ceil((shape.width + shape.value_width) / 2)
    if mixer == "chunked":
        return LayerCache("sliding", shape.key_value, width, c.positive("attention_chunk_size"))
    if mixer == "sliding":
        window = c.positive("sliding_window", "attention_chunk_size")
        return LayerCache("sliding", shape.key_value, width, window)
    return LayerCache("full", shape.key_value, width)


def indexes(c: ConfigJson, layer: int) -> bool:
    """True where a layer has its own sparse indexer; GLM-5.2 shares one among several layers."""
    if not c.has("index_head_dim") or not c.has("index_n_heads"):
        return False
    types = c.get("indexer_types")
    if isinstance(types, list) and layer < len(types):
        return bool(types[layer] == "full")
    return True


def _index_elements(c: ConfigJson, layer: int) -> int:
    if not indexes(c, layer):
        return 0
    width = c.positive("index_head_dim")
    return ceil((width + ceil(width / INDEX_GROUP) * INDEX_SCALE_BYTES) / CACHE_BYTES)


def tensors(c: ConfigJson, mixer: str, layer: int) -> tuple[Tensor, ...]:
    """Projections of one attention layer under the names of its checkpoint."""
    if is_latent(c):
        return _latent(c, layer) * (2 if c.model_type == "longcat_flash" else 1)
    return _grouped(c, heads(c, mixer, layer), mixer)


def _grouped(c: ConfigJson, shape: Heads, mixer: str) -> tuple[Tensor, ...]:
    hidden, name = c.positive("hidden_size"), prefix(c)
    bias = c.flag("attention_bias", "qkv_bias", "add_qkv_bias", "use_qkv_bias")
    bias = bias or c.model_type in QKV_BIAS
    query = shape.query * shape.width
    gated = 2 if c.flag("attn_output_gate") or _gated_family(c) else 1
    parts = linear(f"{name}.q_proj", gated * query, hidden, bias=bias)
    parts += linear(f"{name}.k_proj", shape.key_value * shape.width, hidden, bias=bias)
    if not (mixer == "full" and c.flag("attention_k_eq_v")):  # Gemma 4 keeps one matrix for both
        parts += linear(f"{name}.v_proj", shape.key_value * shape.value_width, hidden, bias=bias)
    if c.model_type in OUTPUT_GATE:
        parts += linear(f"{name}.gate_proj", query, hidden)
    if c.model_type in HEAD_GATE and (
        c.has("gating") or c.get("use_head_wise_attn_gate") is not False
    ):
        parts += linear(f"{name}.g_proj", shape.query, hidden)
    output = linear(f"{name}.o_proj", hidden, shape.query * shape.value_width)
    return (*parts, *output, plain(f"{name}.qk_norm", 2, shape.width))


def _gated_family(c: ConfigJson) -> bool:
    """Qwen3-Next and Qwen3.5 gate the output of attention unless they say otherwise."""
    family = c.model_type == "qwen3_next" or c.model_type.startswith("qwen3_5")
    return family and c.get("attn_output_gate") is not False


def prefix(c: ConfigJson) -> str:
    """How checkpoints call the module."""
    return "mixer" if c.model_type.startswith("nemotron_h") else "self_attn"


def _latent(c: ConfigJson, layer: int) -> tuple[Tensor, ...]:
    """Down projections and norms are whole on every rank, up projections sharded by head."""
    hidden, query = c.positive("hidden_size"), c.positive("num_attention_heads")
    rank, rope = c.positive("kv_lora_rank"), c.integer("qk_rope_head_dim", default=0)
    nope, value = c.positive("qk_nope_head_dim"), c.positive("v_head_dim")
    q_rank, name = c.integer("q_lora_rank", default=0), "self_attn"
    if q_rank:
        parts = linear(f"{name}.q_a_proj", q_rank, hidden, share=REPLICATED)
        parts += linear(f"{name}.q_b_proj", query * (nope + rope), q_rank)
        parts += (plain(f"{name}.q_a_layernorm", q_rank),)
    else:
        parts = linear(f"{name}.q_proj", query * (nope + rope), hidden)
    parts += linear(f"{name}.kv_a_proj_with_mqa", rank + rope, hidden, share=REPLICATED)
    parts += (plain(f"{name}.kv_a_layernorm", rank),)
    parts += linear(f"{name}.kv_b_proj", query * (nope + value), rank)
    parts += linear(f"{name}.o_proj", hidden, query * value)
    if c.model_type == "bailing_hybrid":
        parts += linear(f"{name}.g_proj", query, hidden)
    return parts + (_indexer(c, hidden, q_rank) if indexes(c, layer) else ())


def _indexer(c: ConfigJson, hidden: int, q_rank: int) -> tuple[Tensor, ...]:
    """The lightning indexer of DeepSeek V3.2; vLLM keeps it whole on every rank."""
    count, width, name = c.positive("index_n_heads"), c.positive("index_head_dim"), "self_attn"
    return (
        *linear(f"{name}.indexer.wq_b", count * width, q_rank or hidden, share=REPLICATED),
        *linear(f"{name}.indexer.wk", width, hidden, share=REPLICATED),
        plain(f"{name}.indexer.weights_proj", count, hidden),
        plain(f"{name}.indexer.k_norm", 2, width),
    )
