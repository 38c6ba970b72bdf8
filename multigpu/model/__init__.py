"""A model as the planner sees it, from config.json and from what is known of its files.

`from_hf_config` takes what was read elsewhere and gives a `ModelSpec`, or a ModelError that names
the key that is missing or the layout that is not supported. GGUF files are read by
`multigpu.model.gguf_model`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from multigpu.errors import ModelError
from multigpu.model import quantization
from multigpu.model.architecture import Block, Outside, Share, blocks, outside
from multigpu.model.architecture.attention import Heads, head_dim, key_value_heads
from multigpu.model.architecture.families import EMBEDDING_CLASSES, NOT_GENERATIVE
from multigpu.model.architecture.feed_forward import dense_size, expert_count, expert_size
from multigpu.model.config_json import ConfigJson
from multigpu.model.gguf_model import from_gguf as from_gguf
from multigpu.model.quantization import DTYPE_BYTES, Quantization
from multigpu.model.tensor_headers import StoredTensor, by_part
from multigpu.model.weights import Weights, from_shapes, scaled
from multigpu.plan import ModelSpec, Source


def from_hf_config(
    config: Mapping[str, Any],
    *,
    name: str,
    source: Source,
    path: str,
    weights_bytes: int | None,
    quant_config: Mapping[str, Any] | None = None,
    revision: str | None = None,
    tensors: Sequence[StoredTensor] | None = None,
) -> ModelSpec:
    """The model that a config.json describes.

    `weights_bytes` is the size of its *.safetensors together: where it is known the weights add up
    to it, and what shapes cannot tell (towers, draft layers) is what they leave. `tensors` are
    those that the headers of the files list: they decide over everything else. Without either the
    weights come from the shapes. `quant_config` is the parsed hf_quant_config.json. Raises
    ModelError.
    """
    if not isinstance(config, Mapping) or not config:
        raise ModelError(f"{name}: config.json is not a JSON object")
    try:
        refuse_heads(config)
        c = ConfigJson(config)
        read = _Read(c, blocks(c), outside(c), quantization.read(config, quant_config))
        weights = _weights(read, weights_bytes, tensors)
        return _spec(read, weights, name, source, path, revision, weights_bytes)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from None


@dataclass(frozen=True)
class _Read:
    """One configuration, taken apart."""

    config: ConfigJson
    blocks: tuple[Block, ...]
    outside: Outside
    quantization: Quantization | None

    @property
    def dtype(self) -> str:
        stated = self.config.text("dtype", "torch_dtype", default="bfloat16")
        return stated.removeprefix("torch.")


def refuse_heads(config: Mapping[str, Any]) -> None:
    """A class that classifies, ranks or embeds is no generator of text. Raises ModelError."""
    listed = config.get("architectures")
    for named in listed if isinstance(listed, list) else ():
        if str(named) in EMBEDDING_CLASSES or str(named).endswith(NOT_GENERATIVE):
            raise ModelError(f"{named} generates no text: it embeds, ranks or classifies")


def _weights(
    read: _Read, weights_bytes: int | None, tensors: Sequence[StoredTensor] | None
) -> Weights:
    if tensors:
        return by_part(tensors, len(read.blocks), tied=read.outside.tied)
    width = DTYPE_BYTES.get(read.dtype, 2.0)
    found = from_shapes(read.blocks, read.outside, read.quantization, width)
    return found if weights_bytes is None else scaled(found, weights_bytes)


def _spec(
    read: _Read,
    weights: Weights,
    name: str,
    source: Source,
    path: str,
    revision: str | None,
    weights_bytes: int | None,
) -> ModelSpec:
    c, q = read.config, read.quantization
    shape, routed = _shape(c), expert_count(c)
    return ModelSpec(
        name=name,
        source=source,
        path=path,
        format="safetensors",
        model_type=c.model_type,
        quantization=q.scheme if q else None,
        dtype=read.dtype,
        num_hidden_layers=len(read.blocks),
        num_attention_heads=shape.query,
        num_key_value_heads=shape.key_value,
        head_dim=shape.width,
        hidden_size=c.positive("hidden_size"),
        intermediate_size=dense_size(c),
        vocab_size=c.positive("vocab_size"),
        max_position_embeddings=c.optional("max_position_embeddings"),
        layers=tuple(block.cache for block in read.blocks),
        num_experts=routed,
        num_experts_per_tok=c.optional("num_experts_per_tok", layer=0),
        moe_intermediate_size=expert_size(c) if routed else None,
        group_size=q.group_size if q else None,
        tie_word_embeddings=read.outside.tied,
        revision=revision,
        size_bytes=weights_bytes,
        num_parameters=_parameters(read),
        active_parameters=_active(read),
        kv_cache_dtype=q.kv_cache_dtype if q else None,
        lower_bound=weights.missing,
        weights_exact=weights.exact,
        **_parts(weights),
    )


def _parts(weights: Weights) -> Any:
    """The fields of ModelSpec that hold MiB; an empty tuple where there are no experts."""
    return {
        "layers_mib": weights.layers_mib,
        "experts_mib": weights.experts_mib if any(weights.experts_mib) else (),
        "replicated_mib": weights.replicated_mib,
        "embedding_mib": weights.embedding_mib,
        "output_mib": weights.output_mib,
        "vision_mib": weights.vision_mib,
        "draft_mib": weights.draft_mib,
    }


def _shape(c: ConfigJson) -> Heads:
    """Heads of the model as stated; one without attention (Mamba) has one of the hidden width."""
    if c.model_type in ("mamba", "mamba2", "falcon_mamba"):
        hidden = c.positive("hidden_size")
        return Heads(1, 1, hidden, hidden)
    query, width = c.positive("num_attention_heads", layer=0), head_dim(c)
    return Heads(query, key_value_heads(c, query), width, width)


def _parameters(read: _Read) -> int:
    around = (*read.outside.embedding, *read.outside.output, *read.outside.vision)
    inside = (tensor for block in read.blocks for tensor in block.tensors)
    return sum(tensor.elements for tensor in (*around, *inside))


def _active(read: _Read) -> int:
    """Routed experts by their share; the output matrix, which may be the embedding."""
    c = read.config
    count, chosen = expert_count(c) or 1, c.integer("num_experts_per_tok", default=1, layer=0)
    always = routed = 0
    for block in read.blocks:
        for tensor in block.tensors:
            if tensor.share is Share.EXPERT:
                routed += tensor.elements
            else:
                always += tensor.elements
    head = c.positive("vocab_size") * c.positive("hidden_size")
    return always + head + routed * min(chosen, count) // count
