"""Transformer blocks of a Hugging Face model: what each caches and how many weights it holds.

Layouts: full, sliding window, MLA, recurrent state (gated delta net, Mamba-2), none. A model that
caches in a way not modelled here is refused by name: a wrong KV cache size is worse than none.
"""

from __future__ import annotations

from dataclasses import dataclass

from multigpu.config_json import ConfigJson
from multigpu.errors import ModelError
from multigpu.plan import LayerCache

# Keys that stand for a cache or a block layout that is not modelled.
UNSUPPORTED = {
    "compress_ratios": "compressed sparse attention (DeepSeek V4)",
    "block_configs": "per-layer blocks of a searched architecture (NAS)",
    "linear_attn_config": "Kimi linear attention",
    "attn_layer_period": "Jamba blocks",
    "mamba_d_state": "blocks that mix Mamba and attention (Granite, Bamba, Falcon-H1)",
    "rwkv_version": "RWKV",
    "decoder_layers": "an encoder-decoder model",
}

# What the names of `layer_types` and `layers_block_type` mean for the cache.
KINDS = {
    "full_attention": "full",
    "attention": "full",
    "sliding_attention": "sliding",
    "chunked_attention": "sliding",
    "deepseek_sparse_attention": "full",
    "linear_attention": "state",
    "mamba": "mamba",
    "moe": "moe",
    "mlp": "mlp",
}

PATTERN = {"M": "mamba", "*": "full", "E": "moe", "-": "mlp"}

# The recurrent state of Mamba and of gated delta nets is kept in float32 unless said otherwise.
STATE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Block:
    """One block: its cache, and its weights by how quantizers treat them (in elements)."""

    cache: LayerCache
    attention: int
    ffn: int
    plain: int


def kinds(c: ConfigJson) -> tuple[str, ...]:
    """The kind of every block, in order: full | sliding | state | mamba | moe | mlp."""
    for key, what in UNSUPPORTED.items():
        if c.has(key):
            raise ModelError(f"{c.text('model_type', default='model')}: {what} is not supported")
    named = c.names("layer_types") or c.names("layers_block_type")
    if named is not None:
        return _named(c, named)
    pattern = c.get("hybrid_override_pattern")
    if isinstance(pattern, str):
        return _from_letters(pattern)
    return _without_names(c, c.positive("num_hidden_layers", "n_layer", "n_layers"))


def _named(c: ConfigJson, names: tuple[str, ...]) -> tuple[str, ...]:
    """The list may be longer than the model: layers of multi-token prediction stand at its end."""
    count = c.integer("num_hidden_layers", default=len(names))
    unknown = sorted(set(names) - set(KINDS))
    if unknown:
        raise ModelError(f"config.json: layer type {unknown[0]!r} is not supported")
    if len(names) < count or count < 1:
        raise ModelError(f"config.json: {len(names)} layer types for {count} layers")
    return tuple(KINDS[name] for name in names[:count])


def _from_letters(pattern: str) -> tuple[str, ...]:
    unknown = sorted(set(pattern) - set(PATTERN))
    if unknown or not pattern:
        raise ModelError(f"config.json: hybrid_override_pattern has {unknown or 'no letters'}")
    return tuple(PATTERN[letter] for letter in pattern)


def _without_names(c: ConfigJson, count: int) -> tuple[str, ...]:
    """Where no list says it: intervals and patterns; a window without a pattern counts as full.

    Counting it as full is an upper bound; no fit is promised that does not hold.
    """
    listed = c.get("hybrid_layer_pattern")
    if isinstance(listed, list) and len(listed) == count:
        return tuple("sliding" if item == 1 else "full" for item in listed)
    attention_types = c.get("attn_type_list")
    if isinstance(attention_types, list) and 0 in attention_types:
        raise ModelError("config.json: attn_type_list has linear attention, which is not supported")
    interval = c.integer("full_attention_interval", default=0)
    if interval:
        return tuple("full" if (i + 1) % interval == 0 else "state" for i in range(count))
    period = c.integer("sliding_window_pattern", default=0)
    if period and c.has("sliding_window"):
        return tuple("full" if (i + 1) % period == 0 else "sliding" for i in range(count))
    return ("full",) * count


def blocks(c: ConfigJson) -> tuple[Block, ...]:
    """Every block of the model, in order."""
    names = kinds(c)
    shared_from = len(names) - c.integer("num_kv_shared_layers", default=0)
    return tuple(_block(c, i, kind, shared=i >= shared_from) for i, kind in enumerate(names))


def _block(c: ConfigJson, index: int, kind: str, *, shared: bool) -> Block:
    hidden = c.positive("hidden_size", "n_embd")
    cache = LayerCache("none") if shared else _cache(c, kind)
    whole = "hybrid_override_pattern" not in c.inner and "layers_block_type" not in c.inner
    attention = _mixer_weights(c, kind, hidden)
    if whole:
        ffn, plain = _ffn_weights(c, index, hidden)
    else:  # Nemotron-H: a block is a mixer or a feed-forward part, never both
        ffn, plain = _nemotron_ffn_weights(c, kind, hidden)
    return Block(cache, attention, ffn, plain + 2 * hidden)


def head_dim(c: ConfigJson) -> int:
    """`head_dim`, which need not be hidden_size / num_attention_heads (gpt-oss, Qwen3, Gemma)."""
    heads = c.positive("num_attention_heads", "n_head")
    return c.positive(
        "head_dim", "attention_head_dim", default=c.positive("hidden_size", "n_embd") // heads
    )


def _attention_shape(c: ConfigJson, kind: str) -> tuple[int, int, int]:
    """(query heads, KV heads, head_dim) of a block; Gemma 4 and MiMo change them per kind."""
    heads = c.positive("num_attention_heads", "n_head")
    kv = c.positive("num_key_value_heads", default=heads)
    dim = head_dim(c)
    if kind == "full":
        return (
            heads,
            c.positive("num_global_key_value_heads", default=kv),
            c.positive("global_head_dim", default=dim),
        )
    return (
        c.positive("swa_num_attention_heads", default=heads),
        c.positive("swa_num_key_value_heads", default=kv),
        c.positive("swa_head_dim", default=dim),
    )


def _cache(c: ConfigJson, kind: str) -> LayerCache:
    if kind in ("moe", "mlp"):
        return LayerCache("none")
    if kind in ("state", "mamba"):
        return _state(c, kind)
    if c.has("kv_lora_rank"):
        elements = c.positive("kv_lora_rank") + c.integer("qk_rope_head_dim")
        return LayerCache("mla", elements=elements + c.integer("index_head_dim", default=0))
    _, kv, dim = _attention_shape(c, kind)
    if kind == "sliding":
        window = c.positive("sliding_window", "sliding_window_size", "attention_chunk_size")
        return LayerCache("sliding", kv, dim, window)
    return LayerCache("full", kv, dim)


def _state(c: ConfigJson, kind: str) -> LayerCache:
    """Recurrent state of one sequence; the short convolution is counted at the same width."""
    if kind == "state":
        values = c.positive("linear_num_value_heads") * c.positive("linear_value_head_dim")
        keys = c.positive("linear_num_key_heads") * c.positive("linear_key_head_dim")
        ssm = values * c.positive("linear_key_head_dim")
        channels, kernel = 2 * keys + values, c.positive("linear_conv_kernel_dim", default=4)
    else:
        inner = c.positive("mamba_num_heads") * c.positive("mamba_head_dim")
        size = c.positive("ssm_state_size")
        ssm = inner * size
        channels, kernel = inner + 2 * c.positive("n_groups") * size, c.positive("conv_kernel")
    width = STATE_BYTES.get(c.text("mamba_ssm_cache_dtype", "mamba_ssm_dtype", default=""), 4)
    return LayerCache("state", elements=ssm + channels * (kernel - 1), element_bytes=width)


def _mixer_weights(c: ConfigJson, kind: str, hidden: int) -> int:
    if kind in ("moe", "mlp"):
        return 0
    if kind == "state":
        values = c.positive("linear_num_value_heads") * c.positive("linear_value_head_dim")
        keys = c.positive("linear_num_key_heads") * c.positive("linear_key_head_dim")
        return hidden * (2 * keys + 3 * values + 2 * c.positive("linear_num_value_heads"))
    if kind == "mamba":
        heads = c.positive("mamba_num_heads")
        inner, state = heads * c.positive("mamba_head_dim"), c.positive("ssm_state_size")
        return hidden * (3 * inner + 2 * c.positive("n_groups") * state + heads)
    return _mla_weights(c, hidden) if c.has("kv_lora_rank") else _gqa_weights(c, kind, hidden)


def _gqa_weights(c: ConfigJson, kind: str, hidden: int) -> int:
    heads, kv, dim = _attention_shape(c, kind)
    value_dim = c.positive("swa_v_head_dim" if kind == "sliding" else "v_head_dim", default=dim)
    gate = 2 if c.get("attn_output_gate") else 1
    return hidden * (gate * heads * dim + kv * (dim + value_dim) + heads * value_dim)


def _mla_weights(c: ConfigJson, hidden: int) -> int:
    heads, rank = c.positive("num_attention_heads"), c.positive("kv_lora_rank")
    nope, rope = c.positive("qk_nope_head_dim"), c.integer("qk_rope_head_dim")
    value_dim, q_rank = c.positive("v_head_dim"), c.integer("q_lora_rank", default=0)
    query = q_rank * (hidden + heads * (nope + rope)) if q_rank else hidden * heads * (nope + rope)
    key_value = hidden * (rank + rope) + rank * heads * (nope + value_dim)
    index_heads = c.integer("index_n_heads", default=0)
    index_dim = c.integer("index_head_dim", default=0)
    indexer = index_heads * index_dim * q_rank + hidden * (index_dim + index_heads)
    return query + key_value + heads * value_dim * hidden + (indexer if index_dim else 0)


def experts(c: ConfigJson) -> int | None:
    """Number of routed experts of a block, None for a dense model."""
    return c.optional("num_experts", "num_local_experts", "n_routed_experts") or None


def expert_size(c: ConfigJson) -> int:
    """`moe_intermediate_size`; else `intermediate_size`, per expert in Mixtral and gpt-oss."""
    return c.positive("moe_intermediate_size", "intermediate_size")


def _is_moe(c: ConfigJson, index: int) -> bool:
    """Which blocks route: first_k_dense_replace, moe_layer_freq, decoder_sparse_step and kin."""
    if index < c.integer("first_k_dense_replace", default=0):
        return False
    if index in (c.get("mlp_only_layers") or ()):
        return False
    frequency = c.get("moe_layer_freq")
    if isinstance(frequency, list):
        return index < len(frequency) and bool(frequency[index])
    step = c.positive("decoder_sparse_step", "interleave_moe_layer_step", default=1)
    return (index + 1) % step == 0


def _ffn_weights(c: ConfigJson, index: int, hidden: int) -> tuple[int, int]:
    """(feed-forward weights, router weights) of a block with gate, up and down projections."""
    count = experts(c)
    dense = c.integer("intermediate_size_mlp", "intermediate_size", "n_inner", default=4 * hidden)
    if count is None or not _is_moe(c, index):
        return 3 * hidden * dense, 0
    shared = c.integer("shared_expert_intermediate_size", "share_expert_dim", default=0)
    shared = shared or c.integer("n_shared_experts", default=0) * expert_size(c)
    if c.has("interleave_moe_layer_step"):  # Llama 4 has a shared expert of the routed size
        shared = shared or expert_size(c)
    if c.get("enable_moe_block"):  # Gemma 4 keeps its dense part beside the experts
        shared += dense
    return 3 * hidden * (count * expert_size(c) + shared), hidden * count


def _nemotron_ffn_weights(c: ConfigJson, kind: str, hidden: int) -> tuple[int, int]:
    """Nemotron-H: squared ReLU has no gate projection; experts may work in a latent space."""
    if kind == "mlp":
        return 2 * hidden * c.positive("intermediate_size"), 0
    if kind != "moe":
        return 0, 0
    latent = c.positive("moe_latent_size", default=hidden)
    count = experts(c) or 0
    shared = c.integer("n_shared_experts", default=0) * c.integer(
        "moe_shared_expert_intermediate_size", default=0
    )
    bridge = 2 * hidden * latent if latent != hidden else 0
    return 2 * latent * count * expert_size(c) + 2 * hidden * shared + bridge, hidden * count
