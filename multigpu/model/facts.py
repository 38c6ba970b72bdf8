"""What serving one model costs per token: weights read, arithmetic, cache; summed once per model.

`facts(model)` is cheap to call in a loop: the sums over blocks are made at the first call for a
model object and kept. All figures are of the whole model over all cards.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from multigpu.plan import LayerCache, ModelSpec

MIB = 1024 * 1024
# Models whose sums are kept; a planning run knows one, a test run a few hundred.
KEPT_MODELS = 64


@dataclass(frozen=True)
class ModelFacts:
    """Sums of one ModelSpec.

    `always_mib` are weights that every step reads whatever it routes to: attention, norms, shared
    experts, dense feed-forward parts and the output matrix (the input embedding is a lookup).
    `experts_mib` are all routed experts. `active_parameters` are those that one token is multiplied
    with, `head_parameters` the part of them in the output matrix. `caches` counts equal layers;
    `attention_width` is query heads x head_dim, the width of one layer's scores and values.
    """

    weights_mib: float
    always_mib: float
    experts_mib: float
    num_experts: int
    num_experts_per_tok: int
    active_parameters: float
    head_parameters: float
    caches: tuple[tuple[LayerCache, int], ...]
    attention_width: int
    num_attention_heads: int

    def distinct_experts(self, tokens: float) -> float:
        """Experts of one block that a step of `tokens` tokens hits, in the mean.

        `E * (1 - (1 - k/E) ** tokens)`: tokens choose k of E experts independently and evenly.
        Real routers are less even, so this is the upper end.
        """
        if not self.num_experts:
            return 0.0
        share = min(1.0, self.num_experts_per_tok / self.num_experts)
        return self.num_experts * (1.0 - float((1.0 - share) ** tokens))

    def read_mib(self, tokens: float = 1.0) -> float:
        """Weights in MiB that one step over `tokens` tokens reads (decode: one per sequence)."""
        if not self.num_experts:
            return self.always_mib
        return self.always_mib + self.experts_mib * self.distinct_experts(tokens) / self.num_experts

    def cache_bytes(self, context: float, kv_bytes: float = 2.0) -> float:
        """Bytes of cache and state that one decoded token reads at `context` tokens of history.

        Sliding layers stop at their window, state layers read their whole state. `kv_bytes` is the
        size of a cached element.
        """
        return sum(n * _read_bytes(layer, context, kv_bytes) for layer, n in self.caches)

    def cache_bytes_per_token(self, kv_bytes: float = 2.0) -> float:
        """Bytes by which one sequence's cache grows per token, past all sliding windows."""
        growing = ("full", "mla")
        return sum(
            n * _token_elements(layer) * (layer.element_bytes or kv_bytes)
            for layer, n in self.caches
            if layer.kind in growing
        )

    def state_bytes(self) -> float:
        """Bytes of recurrent state of one sequence, read and written at every decoded token."""
        return sum(n * _read_bytes(layer, 0, 2.0) for layer, n in self.caches)

    def flops_per_token(self, context: float = 0.0, *, logits: bool = True) -> float:
        """Floating-point operations of one token at `context` tokens of history.

        Two per active parameter, and four per history token and element of the attention width
        (scores and values). A prefill computes logits of its last token only: `logits=False`.
        """
        multiplied = self.active_parameters - (0.0 if logits else self.head_parameters)
        attention = sum(n * self._attention_flops(layer, context) for layer, n in self.caches)
        return 2.0 * multiplied + attention

    def _attention_flops(self, layer: LayerCache, context: float) -> float:
        if layer.kind in ("none", "state"):
            return 0.0
        seen = min(context, layer.window) if layer.window else context
        if layer.kind == "mla":
            return 4.0 * self.num_attention_heads * layer.elements * seen
        return 4.0 * (self.attention_width or layer.head_dim) * seen


def facts(model: ModelSpec) -> ModelFacts:
    """The sums of a model; the same object gets the same answer without summing again."""
    kept = _KEPT.get(id(model))
    if kept is not None and kept[0] is model:
        return kept[1]
    if len(_KEPT) >= KEPT_MODELS:
        _KEPT.clear()
    found = _facts(model)
    _KEPT[id(model)] = (model, found)
    return found


# By identity: a ModelSpec holds tuples of a hundred layers, hashing it costs more than planning.
_KEPT: dict[int, tuple[ModelSpec, ModelFacts]] = {}


def _facts(model: ModelSpec) -> ModelFacts:
    head_mib = model.embedding_mib if model.tie_word_embeddings else model.output_mib
    experts_mib = _experts_mib(model)
    head = float(model.vocab_size * model.hidden_size)
    return ModelFacts(
        weights_mib=model.weights_mib,
        always_mib=sum(model.layers_mib) - experts_mib + head_mib,
        experts_mib=experts_mib,
        num_experts=(model.num_experts or 0) if experts_mib else 0,
        num_experts_per_tok=model.num_experts_per_tok or 0,
        active_parameters=_active(model, experts_mib, head),
        head_parameters=head,
        caches=tuple(Counter(model.layers).items()),
        attention_width=model.num_attention_heads * model.head_dim,
        num_attention_heads=model.num_attention_heads,
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


def _token_elements(layer: LayerCache) -> int:
    return layer.elements if layer.kind == "mla" else 2 * layer.num_key_value_heads * layer.head_dim


def _read_bytes(layer: LayerCache, context: float, kv_bytes: float) -> float:
    width = layer.element_bytes or kv_bytes
    if layer.kind == "state":
        return layer.elements * width
    if layer.kind == "none":
        return 0.0
    seen = min(context, layer.window) if layer.window else context
    return seen * _token_elements(layer) * width + layer.sequence_bytes
