"""A model as the planner sees it, from config.json or from the header of a GGUF file.

`from_hf_config` and `from_gguf` take what was read elsewhere and give a `ModelSpec`, or a
ModelError that names the key that is missing or the layout that is not supported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from multigpu import quantization
from multigpu.blocks import Block, blocks, expert_size, experts, head_dim
from multigpu.config_json import ConfigJson
from multigpu.errors import ModelError
from multigpu.gguf_model import from_gguf as from_gguf
from multigpu.plan import ModelSpec, Source
from multigpu.quantization import DTYPE_BYTES, SCHEME_BYTES, Quantization

MIB = 1024 * 1024


def from_hf_config(
    config: Mapping[str, Any],
    *,
    name: str,
    source: Source,
    path: str,
    weights_bytes: int | None,
    quant_config: Mapping[str, Any] | None = None,
    revision: str | None = None,
) -> ModelSpec:
    """The model that a config.json describes.

    `weights_bytes` is the size of its *.safetensors together; when it is None the weights are
    estimated from the shapes. A vision tower or layers of multi-token prediction are inside
    `weights_bytes` and are spread over the blocks, which errs towards too much. `quant_config` is
    the parsed hf_quant_config.json. Raises ModelError.
    """
    if not isinstance(config, Mapping) or not config:
        raise ModelError(f"{name}: config.json is not a JSON object")
    try:
        return _from_hf(config, name, source, path, weights_bytes, quant_config, revision)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from None


def _from_hf(
    config: Mapping[str, Any],
    name: str,
    source: Source,
    path: str,
    weights_bytes: int | None,
    quant_config: Mapping[str, Any] | None,
    revision: str | None,
) -> ModelSpec:
    c = ConfigJson(config)
    parts = blocks(c)
    q = quantization.read(config, quant_config)
    dtype = c.text("dtype", "torch_dtype", default="bfloat16").removeprefix("torch.")
    heads, routed = c.positive("num_attention_heads", "n_head"), experts(c)
    return ModelSpec(
        name=name,
        source=source,
        path=path,
        format="safetensors",
        model_type=c.text("model_type", default="unknown"),
        quantization=q.scheme if q else None,
        dtype=dtype,
        num_hidden_layers=len(parts),
        num_attention_heads=heads,
        num_key_value_heads=c.positive("num_key_value_heads", default=heads),
        head_dim=head_dim(c),
        hidden_size=c.positive("hidden_size", "n_embd"),
        intermediate_size=c.optional("intermediate_size_mlp", "intermediate_size", "n_inner"),
        vocab_size=c.positive("vocab_size"),
        max_position_embeddings=c.optional("max_position_embeddings", "n_positions"),
        layers=tuple(part.cache for part in parts),
        num_experts=routed,
        num_experts_per_tok=c.optional("num_experts_per_tok", "top_k_experts", "experts_per_token"),
        moe_intermediate_size=expert_size(c) if routed else None,
        group_size=q.group_size if q else None,
        tie_word_embeddings=_tied(c),
        revision=revision,
        size_bytes=weights_bytes,
        **_weights(c, parts, dtype, q, weights_bytes),
    )


def _weights(
    c: ConfigJson,
    parts: Sequence[Block],
    dtype: str,
    q: Quantization | None,
    weights_bytes: int | None,
) -> Any:
    """`layers_mib`, `embedding_mib` and `output_mib`, scaled to the file sizes when known."""
    elements = c.positive("vocab_size") * c.positive("hidden_size", "n_embd")
    embedding = elements * DTYPE_BYTES.get(dtype, 2.0) / MIB
    output = 0.0 if _tied(c) else embedding
    layers = _layers_mib(parts, dtype, q)
    if weights_bytes is not None:
        layers = _scaled(layers, weights_bytes / MIB - embedding - output)
    return {"layers_mib": layers, "embedding_mib": embedding, "output_mib": output}


def _tied(c: ConfigJson) -> bool:
    """Transformers ties by default; config.json leaves the key out where it is the default.

    Only small models ship tied; an absent key counts as untied unless the family is known to tie.
    """
    value = c.get("tie_word_embeddings")
    return (
        value if isinstance(value, bool) else c.text("model_type", default="").startswith("gemma")
    )


def _layers_mib(parts: Sequence[Block], dtype: str, q: Quantization | None) -> tuple[float, ...]:
    plain = DTYPE_BYTES.get(dtype, 2.0)
    narrow = SCHEME_BYTES[q.scheme] if q else plain
    attention = plain if q and q.keeps("attn", "mixer") else narrow
    return tuple(
        (part.attention * attention + part.ffn * narrow + part.plain * plain) / MIB
        for part in parts
    )


def _scaled(layers_mib: tuple[float, ...], total_mib: float) -> tuple[float, ...]:
    """The known total, shared over the blocks as the shapes say."""
    if total_mib <= 0:
        raise ModelError("the weight files are smaller than the embeddings: the download is cut")
    factor = total_mib / sum(layers_mib)
    return tuple(mib * factor for mib in layers_mib)
