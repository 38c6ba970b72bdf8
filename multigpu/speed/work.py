"""What one rank of one model does per step: bytes read, operations, cached bytes; kept per model.

A rank is one card of a tensor parallel group of `tp` that holds all blocks; a pipeline stage does
its share of the blocks. Bytes and operations, no times.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from multigpu.memo import memo
from multigpu.model.facts import facts
from multigpu.plan import LayerCache, ModelSpec

MIB = 1024 * 1024
ELEMENT_BYTES = {
    "f32": 4.0,
    "float32": 4.0,
    "fp8": 1.0,
    "int8": 1.01,
    "mxfp8": 1.03,
    "nvfp4": 0.5625,
    "fp4": 0.53,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}
"""Bytes per cached element with its scales, by how the runtime's word for the type begins (vLLM and
SGLang: --kv-cache-dtype; llama.cpp: ggml's blocks of 32); all others are 16 bit."""


@cache
def element_bytes(kv_cache_dtype: str | None) -> float:
    """Bytes of one cached element."""
    if kv_cache_dtype is None:
        return 2.0
    found = (size for start, size in ELEMENT_BYTES.items() if kv_cache_dtype.startswith(start))
    return next(found, 2.0)


@dataclass(frozen=True, slots=True)
class Work:
    """One rank's work. `windows` holds (tokens, bytes per token, operations per token).

    `blocks_bytes` are weights that every step reads, without `experts_bytes` and the `head_bytes`
    of the output matrix. Cached bytes per token of history are `cache_bytes` for layers that see
    all of it; `state_bytes` are per sequence. `flops` are per token without history, `head_flops`
    those of the output matrix, `history_flops` per token of history. `hidden_bytes` are what one
    token sends in an all-reduce (16 bit; ggml keeps activations in 32).
    """

    layers: int
    hidden_bytes: float
    blocks_bytes: float
    head_bytes: float
    experts_bytes: float
    unrouted: float
    cache_bytes: float
    state_bytes: float
    windows: tuple[tuple[float, float, float], ...]
    flops: float
    head_flops: float
    history_flops: float
    quantization: str | None
    gguf: bool
    weights_per_byte: float

    def weights(self, tokens: float) -> tuple[float, float]:
        """(bytes of weights every step reads, bytes of experts that `tokens` tokens hit)."""
        if not self.experts_bytes:
            return self.blocks_bytes, 0.0
        return self.blocks_bytes, self.experts_bytes * (1.0 - self.unrouted**tokens)

    def cached(self, context: float) -> float:
        """Bytes one sequence reads and writes of cache and state at `context` tokens."""
        total = self.cache_bytes * context + 2.0 * self.state_bytes
        for window, width, _ in self.windows:
            total += width * (window if window < context else context)
        return total

    def held(self, context: float) -> float:
        """Bytes one sequence of `context` tokens holds."""
        total = self.cache_bytes * context + self.state_bytes
        for window, width, _ in self.windows:
            total += width * (window if window < context else context)
        return total

    def attention_flops(self, context: float) -> float:
        """Operations of one token on `context` tokens of history."""
        total = self.history_flops * context
        for window, _, flops in self.windows:
            total += flops * (window if window < context else context)
        return total


def work(model: ModelSpec, tp: int, kv_bytes: float = 2.0) -> Work:
    """The work of one of `tp` ranks; the same model object is summed once."""
    known = memo(model)
    key = ("work", tp, kv_bytes)
    found: Work | None = known.get(key)
    if found is None:
        found = known[key] = _work(model, tp, kv_bytes)
    return found


def _work(model: ModelSpec, tp: int, kv_bytes: float) -> Work:
    known = facts(model)
    head = model.embedding_mib if model.tie_word_embeddings else model.output_mib
    layers = list(known.caches)
    windows: dict[int, list[float]] = {}
    cached = state = history = 0.0
    for layer, count in layers:
        width = layer.element_bytes or kv_bytes
        flops = _history_flops(layer, model) * count / tp
        state += count * layer.sequence_bytes / (1 if layer.kind == "mla" else tp)
        if layer.kind == "state":
            state += count * layer.elements * (layer.element_bytes or 2.0) / tp
        elif layer.window:
            found = windows.setdefault(layer.window, [0.0, 0.0])
            found[0] += count * _token_elements(layer, tp) * width
            found[1] += flops
        elif layer.kind != "none":
            cached += count * _token_elements(layer, tp) * width
            history += flops
    routed = known.num_experts_per_tok / known.num_experts if known.num_experts else 0.0
    flops = 2.0 * (known.active_parameters - known.head_parameters) / tp
    read = (known.always_mib - head + known.experts_mib * routed) * MIB / tp
    gguf = model.format == "gguf"
    return Work(
        layers=model.num_hidden_layers,
        hidden_bytes=(4.0 if gguf else 2.0) * model.hidden_size,
        blocks_bytes=(known.always_mib - head) * MIB / tp,
        head_bytes=head * MIB / tp,
        experts_bytes=known.experts_mib * MIB / tp if routed else 0.0,
        unrouted=max(0.0, 1.0 - routed),
        cache_bytes=cached,
        state_bytes=state,
        windows=tuple((float(w), b, f) for w, (b, f) in windows.items()),
        flops=flops,
        head_flops=2.0 * known.head_parameters / tp,
        history_flops=history,
        quantization=model.quantization,
        gguf=gguf,
        weights_per_byte=flops / 2 / read if read > 0 else 0.0,
    )


def _token_elements(layer: LayerCache, tp: int) -> float:
    """Cached elements per token and layer: KV heads are divided down to one, MLA is not."""
    if layer.kind == "mla":
        return layer.elements
    return 2.0 * max(1, -(-layer.num_key_value_heads // tp)) * layer.head_dim


def _history_flops(layer: LayerCache, model: ModelSpec) -> float:
    """Two for scores and two for values, per token of history and query element."""
    if layer.kind in ("none", "state"):
        return 0.0
    if layer.kind == "mla":
        return 4.0 * model.num_attention_heads * layer.elements
    return 4.0 * model.num_attention_heads * layer.head_dim
