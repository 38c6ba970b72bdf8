"""Every block of a model: what it caches and what it holds."""

from __future__ import annotations

from dataclasses import replace

from multigpu.model.architecture import attention, compressed, feed_forward, recurrent, searched
from multigpu.model.architecture.kinds import Kind, kinds
from multigpu.model.architecture.tensors import Block, Tensor, linear, plain
from multigpu.model.config_json import ConfigJson
from multigpu.plan import LayerCache

NONE = LayerCache("none")


def blocks(c: ConfigJson) -> tuple[Block, ...]:
    """Every block of the model, in order. Raises ModelError for what is not modelled."""
    if searched.is_searched(c):
        return searched.blocks(c)
    found = kinds(c)
    shared_from = len(found) - c.integer("num_kv_shared_layers", default=0)
    return tuple(block(c, i, kind, shares_cache=i >= shared_from) for i, kind in enumerate(found))


def block(c: ConfigJson, index: int, kind: Kind, *, shares_cache: bool = False) -> Block:
    """One block. With `shares_cache` it reads the cache of an earlier one (Gemma 3n and 4)."""
    mixer = _mixer(c, index, kind.mixer)
    held = mixer.tensors
    if shares_cache:
        held = tuple(t for t in held if not t.name.endswith((".k_proj", ".v_proj")))
    parts = (*held, *feed_forward.tensors(c, kind.feed_forward, index), *_beside(c))
    return Block(NONE if shares_cache else mixer.cache, parts)


def _mixer(c: ConfigJson, index: int, mixer: str) -> Block:
    if mixer == "none":
        return Block(NONE, ())
    if mixer in recurrent.KINDS:
        return Block(recurrent.state(c, mixer), recurrent.tensors(c, mixer))
    if mixer == "compressed":
        return compressed.block(c, index)
    if mixer in ("parallel", "shared"):
        return _with_mamba2(c, index, mixer)
    return Block(attention.cache(c, mixer, index), attention.tensors(c, mixer, index))


def _with_mamba2(c: ConfigJson, index: int, mixer: str) -> Block:
    """Falcon-H1 runs both side by side; Zamba2 feeds a shared attention into a Mamba-2 layer."""
    state, held = recurrent.state(c, "mamba2"), recurrent.tensors(c, "mamba2")
    kept = state.elements * (state.element_bytes or 2)
    if mixer == "parallel":
        cache = replace(attention.cache(c, "full", index), sequence_bytes=kept)
        return Block(cache, (*attention.tensors(c, "full", index), *held))
    shape = attention.heads(c)
    cache = LayerCache("full", shape.key_value, shape.width, sequence_bytes=kept)
    return Block(cache, (*held, *_zamba_shared(c, index)))


def _zamba_shared(c: ConfigJson, index: int) -> tuple[Tensor, ...]:
    """Zamba2: few attention blocks serve all hybrid layers; each layer adapts them a little.

    The shared block works on the concatenation of hidden state and embedding. Its weights are
    counted with the first layers that use it.
    """
    hidden, shape = c.positive("hidden_size"), attention.heads(c)
    size, rank = (
        c.positive("intermediate_size", default=4 * hidden),
        c.integer("adapter_rank", default=0),
    )
    found = linear("linear", hidden, hidden)
    if rank:
        found += (*linear("adapter.0", rank, hidden), *linear("adapter.1", 2 * size, rank))
    names = c.names("layers_block_type") or ()
    if names[:index].count("hybrid") >= c.positive("num_mem_blocks", default=1):
        return found
    query, kv = shape.query * shape.width, shape.key_value * shape.width
    return (
        *found,
        *linear("shared_transformer.self_attn.qkv_proj", query + 2 * kv, 2 * hidden),
        *linear("shared_transformer.self_attn.o_proj", hidden, query),
        *linear("shared_transformer.feed_forward.gate_up_proj", 2 * size, hidden),
        *linear("shared_transformer.feed_forward.down_proj", hidden, size),
    )


def _beside(c: ConfigJson) -> tuple[Tensor, ...]:
    """Norms of a block, and what Gemma 3n and 4 add per layer."""
    hidden = c.positive("hidden_size")
    found: tuple[Tensor, ...] = (plain("norms", 2, hidden),)
    own = c.integer("hidden_size_per_layer_input", default=0)
    if own:
        found += linear("per_layer_input_gate", own, hidden)
        found += linear("per_layer_projection", hidden, own)
    rank = c.integer("laurel_rank", default=0)
    if rank:
        found += (*linear("laurel.left", rank, hidden), *linear("laurel.right", hidden, rank))
    return found
