"""Sums over the blocks of a model: weights by how they are read, active parameters, like caches.

`facts(model)` is cheap to call in a loop: the sums are made at the first call for a model object
and kept with it. All figures are of the whole model over all cards.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from multigpu.memo import memo
from multigpu.plan import LayerCache, ModelSpec

MIB = 1024 * 1024


@dataclass(frozen=True)
class ModelFacts:
    """Sums of one ModelSpec.

    `always_mib` are weights that every step reads whatever it routes to: attention, norms, shared
    experts, dense feed-forward parts and the output matrix (the input embedding is a lookup).
    `experts_mib` are all routed experts. `active_parameters` are those that one token is multiplied
    with, `head_parameters` the part of them in the output matrix. `caches` counts equal layers.
    """

    always_mib: float
    experts_mib: float
    num_experts: int
    num_experts_per_tok: int
    active_parameters: float
    head_parameters: float
    caches: tuple[tuple[LayerCache, int], ...]


def facts(model: ModelSpec) -> ModelFacts:
    """The sums of a model; the same object gets the same answer without summing again."""
    known = memo(model)
    found: ModelFacts | None = known.get("facts")
    if found is None:
        found = known["facts"] = _facts(model)
    return found


def _facts(model: ModelSpec) -> ModelFacts:
    head_mib = model.embedding_mib if model.tie_word_embeddings else model.output_mib
    experts_mib = _experts_mib(model)
    head = float(model.vocab_size * model.hidden_size)
    return ModelFacts(
        always_mib=sum(model.layers_mib) - experts_mib + head_mib,
        experts_mib=experts_mib,
        num_experts=(model.num_experts or 0) if experts_mib else 0,
        num_experts_per_tok=model.num_experts_per_tok or 0,
        active_parameters=_active(model, experts_mib, head),
        head_parameters=head,
        caches=tuple(Counter(model.layers).items()),
    )


def _experts_mib(model: ModelSpec) -> float:
    """Stated per block, else from the experts' shapes as a share of the known weights.

    Where active parameters were counted, the blocks were read one by one, and a model without
    stated experts has none, whatever number a configuration class has as its default
    (NemotronHConfig: 8 routed experts, in a model whose pattern has no expert block).
    """
    counted = model.active_parameters is not None
    if model.experts_mib or counted or not model.num_experts or not model.moe_intermediate_size:
        return sum(model.experts_mib)
    routed = 3 * model.hidden_size * model.moe_intermediate_size * model.num_experts
    attention = 4 * model.hidden_size * model.num_attention_heads * model.head_dim
    return sum(model.layers_mib) * routed / (routed + attention)


def _active(model: ModelSpec, experts_mib: float, head: float) -> float:
    """`active_parameters` where it was counted, else by the share of weights that a token reads."""
    if model.active_parameters is not None:
        return float(model.active_parameters)
    blocks_mib = sum(model.layers_mib)
    routed = (model.num_experts_per_tok or 0) / (model.num_experts or 1)
    read_mib = blocks_mib - experts_mib * max(0.0, 1.0 - routed) if experts_mib else blocks_mib
    if model.num_parameters is not None and model.weights_mib:
        return model.num_parameters * read_mib / model.weights_mib + head
    return read_mib * MIB / _BYTES.get(model.quantization or "", 2.0) + head


# Bytes per parameter where a model was not counted (a GGUF without shapes): its nominal width.
_BYTES = {
    **dict.fromkeys(("awq", "gptq", "w4a16", "nvfp4", "mxfp4", "bitsandbytes"), 0.55),
    **dict.fromkeys(("fp8", "w8a8", "w8a16", "Q8_0"), 1.05),
    **dict.fromkeys(("Q4_0", "Q4_K_S", "Q4_K_M", "IQ4_NL", "IQ4_XS"), 0.6),
    **dict.fromkeys(("Q5_0", "Q5_K_S", "Q5_K_M"), 0.7),
    **dict.fromkeys(("Q6_K",), 0.82),
    **dict.fromkeys(("Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L"), 0.45),
}
