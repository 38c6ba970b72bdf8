"""A model as the planner sees it, from the header of a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from multigpu.errors import ModelError
from multigpu.model.gguf_cache import caches
from multigpu.model.gguf_graph import facts
from multigpu.model.gguf_header import MIB, GgufHeader, Tensor
from multigpu.plan import ModelSpec, Source

# Blocks of multi-token prediction are left in the file unless speculative decoding is asked for
# (`load_mtp`, `TENSOR_SKIP` in src/models/*.cpp, 0c1e57098). Others load them always.
MTP_SKIPPED = {
    *("bailingmoe3", "cohere2moe", "deepseek2", "deepseek32", "glm-dsa", "glm4moe", "hy-v3"),
    *("mimo2", "nemotron_h", "nemotron_h_moe", "qwen35", "qwen35moe", "qwen3next", "step35"),
}


def from_gguf(
    fields: Mapping[str, object],
    tensors: Sequence[Tensor],
    *,
    name: str,
    source: Source,
    path: str,
    size_bytes: int,
    sha256: str | None = None,
) -> ModelSpec:
    """The model that a GGUF header describes.

    `fields` are the metadata as Python values, `tensors` the (name, bytes, elements) of every
    tensor of all shards, `size_bytes` the size of the file (all shards together). Raises
    ModelError.
    """
    try:
        header = GgufHeader(fields, tensors)
        return _from_header(header, name, source, path, size_bytes, sha256)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from None


def _from_header(
    h: GgufHeader, name: str, source: Source, path: str, size_bytes: int, sha256: str | None
) -> ModelSpec:
    heads, kv_heads = h.heads(), h.kv_heads()
    ffn = h.per_layer("feed_forward_length", default=0)
    size = h.per_layer("expert_feed_forward_length", default=0)
    skipped = range(h.trunk if h.architecture in MTP_SKIPPED else h.block_count, h.block_count)
    layers_mib = _per_block(h, skipped)
    return ModelSpec(
        name=name,
        source=source,
        path=path,
        format="gguf",
        model_type=h.architecture,
        quantization=h.file_type(),
        dtype="float16",
        num_hidden_layers=h.block_count,
        num_attention_heads=max(heads),
        num_key_value_heads=max(kv_heads),
        head_dim=h.head_dim(),
        hidden_size=h.integer("embedding_length"),
        intermediate_size=max(ffn) or None,
        vocab_size=h.vocab_size(),
        max_position_embeddings=h.optional("context_length"),
        layers=caches(h),
        layers_mib=(layers_mib[0] + h.first_mib(), *layers_mib[1:]),
        embedding_mib=h.embedding_mib(),
        output_mib=h.output_mib(),
        experts_mib=_per_block(h, skipped, "_exps."),
        replicated_mib=_per_block(h, skipped, *REPLICATED),
        draft_mib=sum(sum(h.by_block[i].values()) for i in skipped) / MIB,
        num_parameters=h.num_parameters,
        num_experts=h.optional("expert_count") or None,
        num_experts_per_tok=max(h.per_layer("expert_used_count", default=0)) or None,
        moe_intermediate_size=max(size) or None,
        tie_word_embeddings=h.tied,
        size_bytes=size_bytes,
        sha256=sha256,
        weights_exact=True,
        gguf=facts(h),
    )


# Norms, biases, routers and the latent projections of MLA.
REPLICATED = ("norm", ".bias", "ffn_gate_inp", "attn_q_a", "attn_kv_a")


def _per_block(h: GgufHeader, skipped: range, *parts: str) -> tuple[float, ...]:
    """MiB of every block's tensors with one of these parts in their name; none means all."""
    return tuple(
        0.0
        if i in skipped
        else sum(
            size
            for name, size in block.items()
            if not parts or any(part in f"{name}." for part in parts)
        )
        / MIB
        for i, block in enumerate(h.by_block)
    )
