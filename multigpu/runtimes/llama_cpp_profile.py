"""What each block of a GGUF takes of a card, summed once per model and set of flags.

A card holds a contiguous span of units (blocks, then the output layer); sums from the first unit on
make every span a subtraction. Facts of 0.5.0-dev (0c1e57098): src/llama-kv-cache*.cpp for cells,
src/llama-graph.cpp for inputs, ggml/src/ggml-backend.cpp for what is kept once per copy of pipeline
parallelism (`GGML_SCHED_MAX_COPIES`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate

from multigpu.gguf_facts import GgufBlock, GgufFacts
from multigpu.memo import memo
from multigpu.memory import MIB, ffn_size
from multigpu.plan import LayerCache, ModelSpec

# `pipeline parallelism enabled`: inputs of a step are kept once per copy, on more than one card.
COPIES = 4
# The context is padded to 256 (llama-context.cpp), the window's cells too (llama-kv-cache-iswa.cpp).
KV_PAD = 256
F32 = 4

CACHE_TYPE_BYTES = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}

Span = tuple[int, int]


@dataclass(frozen=True)
class Settings:
    """Flags of llama-server that decide memory: `--ubatch-size`, `--flash-attn`, cache types.

    `k_bytes` and `v_bytes` are per cached element, `swa_full` keeps the whole context for sliding
    windows too.
    """

    ubatch: int = 512
    flash_attn: bool = True
    k_bytes: float = 2.0
    v_bytes: float = 2.0
    swa_full: bool = False


@dataclass(frozen=True)
class Slots:
    """How the context is shared: `tokens` in all (`--ctx-size`) over `count` slots.

    With `unified` every slot may use all of it, else each has its own equal part.
    """

    tokens: int
    count: int = 1
    unified: bool = False

    @property
    def streams(self) -> int:
        """Caches that stand side by side."""
        return 1 if self.unified else self.count

    @property
    def stream_tokens(self) -> int:
        """Cells of one of them."""
        return self.tokens // self.streams


def padded(tokens: int) -> int:
    """A multiple of 256, as llama.cpp rounds up."""
    return -(-tokens // KV_PAD) * KV_PAD


class Profile:
    """Sums over the units of one model under one set of flags."""

    def __init__(self, model: ModelSpec, settings: Settings) -> None:
        self.model, self.settings = model, settings
        facts = facts_of(model)
        self.blocks = blocks = facts.blocks
        self.n_units = len(blocks) + 1
        self.output_mib = _output_mib(model, facts)
        self.weights = _sums([*model.layers_mib, self.output_mib])
        k, v = settings.k_bytes, settings.v_bytes
        widest = 0 if settings.flash_attn else max((b.v for b in blocks), default=0)
        cell = [b.k * k + (max(b.v, widest) if b.v else 0) * v for b in blocks]
        sliding = [b.window > 0 and not settings.swa_full for b in blocks]
        self.full = _sums(0.0 if s else c for c, s in zip(cell, sliding, strict=True))
        self.sliding = _sums(c if s else 0.0 for c, s in zip(cell, sliding, strict=True))
        self.state = _sums(float(F32 * b.state) for b in blocks)
        self.window = max((b.window for b in blocks), default=0)
        self.peaks = [b.peak for b in blocks]
        self.widest = max((b.v for b in blocks), default=0)

    def cells(self, slots: Slots) -> int:
        """Cells of a sliding cache, one stream (`llama_kv_cache_iswa`)."""
        seen = self.window * (slots.count if slots.unified else 1) + self.settings.ubatch
        return padded(min(slots.stream_tokens, seen))

    def held(self, span: Span) -> float:
        """Weights of a span, in MiB."""
        return self.weights[span[1]] - self.weights[span[0]]

    def cache(self, span: Span, slots: Slots) -> float:
        """KV cache and recurrent state of a span, in MiB."""
        start, end = span[0], min(span[1], self.n_units - 1)
        found = (self.full[end] - self.full[start]) * slots.tokens
        if self.window:
            found += (self.sliding[end] - self.sliding[start]) * self.cells(slots) * slots.streams
        return (found + (self.state[end] - self.state[start]) * slots.count) / MIB

    def sums(self, slots: Slots) -> list[float]:
        """Weights and cache of the units before each border, in MiB."""
        cells = self.cells(slots) * slots.streams if self.window else 0
        held = zip(self.weights, self.full, self.sliding, self.state, strict=False)
        found = [
            w + (f * slots.tokens + s * cells + r * slots.count) / MIB for w, f, s, r in held
        ]
        return [*found, found[-1] + self.output_mib]

    def compute(self, span: Span, slots: Slots, cards: int, *, copies: int = COPIES) -> float:
        """Compute buffer of the card with that span of `cards`, in MiB."""
        step = min(self.settings.ubatch, slots.tokens)
        copies = copies if cards > 1 else 1
        found = copies * self._masks(span, slots, step)
        if cards > 1:
            found += copies * step * F32 * self._border(span)
        if span[1] == self.n_units:
            found += F32 * slots.count * self.model.vocab_size
        return (found + self._peak(span, slots, step)) / MIB

    def _masks(self, span: Span, slots: Slots, step: int) -> float:
        """Attention masks, and without flash attention the cells that values are written to."""
        start, end = span[0], min(span[1], self.n_units - 1)
        kept = 0
        cells = [slots.stream_tokens] if self.full[end] > self.full[start] else []
        if self.sliding[end] > self.sliding[start]:
            cells.append(self.cells(slots))
        width = 2 if self.settings.flash_attn else F32
        if not self.settings.flash_attn:
            kept = 8 * step * self.widest * len(cells)
        return step * width * sum(cells) + kept

    def _border(self, span: Span) -> int:
        """What one token brings from the card before; the first gets the embedding."""
        if span[0] == 0:
            return self.model.hidden_size
        if span[0] >= len(self.blocks):
            return 2 * self.model.hidden_size
        block = self.blocks[span[0]]
        return block.border if span[1] == self.n_units else block.passing

    def _peak(self, span: Span, slots: Slots, step: int) -> float:
        start, end = span[0], min(span[1], self.n_units - 1)
        found = float(F32 * step * max(self.peaks[start:end], default=self.model.hidden_size))
        if self.settings.flash_attn:
            return found
        cells = self.cells(slots) if self.window else 0
        for block in self.distinct(start, end):
            rows = block.heads * (cells if block.window else slots.stream_tokens)
            found = max(found, float(F32 * step * (block.attention + rows)))
        return found

    def distinct(self, start: int, end: int) -> Iterable[GgufBlock]:
        """Blocks of a span, each kind once."""
        return {id(block): block for block in self.blocks[start:end]}.values()


def _sums(values: Iterable[float]) -> list[float]:
    return [0.0, *accumulate(values)]


def _output_mib(model: ModelSpec, facts: GgufFacts) -> float:
    """The output layer; a tied model keeps a second copy of the token embedding on the last card."""
    return model.output_mib + (facts.token_embedding_mib if model.tie_word_embeddings else 0.0)


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


def profile(model: ModelSpec, settings: Settings) -> Profile:
    """The sums of a model, computed once."""
    known = memo(model)
    key = ("llama.cpp", settings)
    if key not in known:
        known[key] = Profile(model, settings)
    found: Profile = known[key]
    return found
