"""Blocks of a model as llama.cpp sees them, by its GGUF or by what all runtimes share."""

from __future__ import annotations

from dataclasses import replace

from multigpu.memory import ffn_size
from multigpu.model_spec import GgufBlock, GgufFacts
from multigpu.plan import LayerCache, ModelSpec


def facts_of(model: ModelSpec) -> GgufFacts:
    """The GGUF's own facts, or what the words that all runtimes share allow to say."""
    return model.gguf or GgufFacts(
        tuple(_block(model, layer) for layer in model.layers), model.embedding_mib
    )


def _block(model: ModelSpec, layer: LayerCache) -> GgufBlock:
    width, queries = model.hidden_size, model.num_attention_heads * model.head_dim
    block = GgufBlock(
        heads=model.num_attention_heads,
        attention=2 * width + 2 * queries,
        peak=3 * ffn_size(model) + 2 * width + max(width, queries),
        border=2 * width,
        passing=2 * width,
    )
    if layer.kind in ("state", "none"):
        return replace(block, heads=0, state=layer.elements if layer.kind == "state" else 0)
    if layer.kind == "mla":
        return replace(block, k=layer.elements)
    row = layer.num_key_value_heads * layer.head_dim
    return replace(block, k=row, v=row, window=layer.window or 0)
