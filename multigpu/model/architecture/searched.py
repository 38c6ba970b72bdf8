"""Models of architecture search: every block has sizes of its own (`block_configs`).

Two spellings: DeciLM and Nemotron-NAS (attention and ffn per block, either may be absent), and
the puzzles of Nemotron-H (one part per block).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multigpu.errors import ModelError
from multigpu.model.architecture import attention, feed_forward, recurrent
from multigpu.model.architecture.kinds import LAYERS_MAX, refuse_unknown
from multigpu.model.architecture.tensors import Block, Tensor, linear, plain
from multigpu.model.config_json import ConfigJson
from multigpu.plan import LayerCache

NONE = LayerCache("none")


def is_searched(c: ConfigJson) -> bool:
    """True for a model whose blocks are described one by one."""
    return c.stated("block_configs", "num_key_value_heads_per_layer") is not None


def blocks(c: ConfigJson) -> tuple[Block, ...]:
    """Every block, in order."""
    refuse_unknown(c)
    listed = c.stated("block_configs")
    if listed is None:
        return _per_layer(c)
    valid = isinstance(listed, list) and all(isinstance(item, Mapping) for item in listed)
    if not valid or not 0 < len(listed) <= LAYERS_MAX:
        raise ModelError("config.json: block_configs is not a list of blocks")
    return tuple(_block(c, item) for item in listed)


def _per_layer(c: ConfigJson) -> tuple[Block, ...]:
    """DeciLM's first form: one number of KV heads per layer."""
    found = []
    for kv in c.whole_numbers("num_key_value_heads_per_layer"):
        held = (*_grouped(c, kv), *_mlp(c, feed_forward.dense_size(c)))
        found.append(Block(LayerCache("full", kv, attention.head_dim(c)), held))
    if not found or len(found) > LAYERS_MAX:
        raise ModelError("config.json: num_key_value_heads_per_layer lists no layers")
    return tuple(found)


def _block(c: ConfigJson, own: Mapping[str, Any]) -> Block:
    if isinstance(own.get("block_type"), str):
        return _one_part(ConfigJson({**c.inner, **own}), own["block_type"])
    mixer, ffn = own.get("attention"), own.get("ffn")
    if not isinstance(mixer, Mapping) or not isinstance(ffn, Mapping):
        raise ModelError("config.json: a block of block_configs has no attention or no ffn")
    cache, held = _attention(c, mixer)
    norms = plain("norms", 2, c.positive("hidden_size"))
    return Block(cache, (*held, *_ffn(c, ffn), norms))


def _one_part(c: ConfigJson, kind: str) -> Block:
    """Nemotron-H: the block's own keys replace those of the model."""
    norm = plain("norm", c.positive("hidden_size"))
    if kind in ("mamba", "linear_attention"):
        return Block(recurrent.state(c, "mamba2"), (*recurrent.tensors(c, "mamba2"), norm))
    if kind in ("attention", "full_attention"):
        held = attention.tensors(c, "full", 0)
        return Block(attention.cache(c, "full", 0), (*held, norm))
    if kind in ("moe", "mlp"):
        return Block(NONE, (*feed_forward.tensors(c, kind, 0), norm))
    raise ModelError(f"config.json: block_type {kind!r} is not supported")


def _attention(c: ConfigJson, own: Mapping[str, Any]) -> tuple[LayerCache, tuple[Tensor, ...]]:
    hidden = c.positive("hidden_size")
    if own.get("no_op"):
        return NONE, ()
    if own.get("replace_with_linear"):
        return NONE, linear("self_attn.linear_attn", hidden, hidden)
    group = ConfigJson(own).positive("n_heads_in_group")
    kv = c.positive("num_attention_heads") // group
    if kv < 1:
        raise ModelError(f"config.json: n_heads_in_group is {group}, more than there are heads")
    return LayerCache("full", kv, attention.head_dim(c)), _grouped(c, kv)


def _grouped(c: ConfigJson, kv: int) -> tuple[Tensor, ...]:
    hidden, width = c.positive("hidden_size"), attention.head_dim(c)
    query = c.positive("num_attention_heads") * width
    return (
        *linear("self_attn.q_proj", query, hidden),
        *linear("self_attn.k_proj", kv * width, hidden),
        *linear("self_attn.v_proj", kv * width, hidden),
        *linear("self_attn.o_proj", hidden, query),
    )


def _ffn(c: ConfigJson, own: Mapping[str, Any]) -> tuple[Tensor, ...]:
    hidden = c.positive("hidden_size")
    if own.get("no_op"):
        return ()
    if own.get("replace_with_linear"):
        return linear("mlp.linear_mlp", hidden, hidden)
    size = own.get("intermediate_size")
    multiple = own.get("ffn_mult")
    if isinstance(multiple, (int, float)) and not isinstance(multiple, bool) and 0 < multiple < 99:
        size = -(-int(2 * multiple * hidden / 3) // 256) * 256
    if type(size) is not int or size < 1:
        raise ModelError("config.json: an ffn of block_configs has no ffn_mult")
    return _mlp(c, size)


def _mlp(c: ConfigJson, size: int) -> tuple[Tensor, ...]:
    hidden = c.positive("hidden_size")
    return (
        *linear("mlp.gate_proj", size, hidden),
        *linear("mlp.up_proj", size, hidden),
        *linear("mlp.down_proj", hidden, size),
    )
