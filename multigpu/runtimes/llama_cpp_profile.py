"""What each block of a GGUF takes of a card, summed once per model and set of flags.

A card holds a contiguous span of units (blocks, then the output layer); sums from the first unit on
make every span a subtraction. Facts of 0.5.0-dev (0c1e57098): src/llama-kv-cache*.cpp for cells,
src/llama-graph.cpp for inputs, ggml/src/ggml-backend.cpp for what is kept once per copy of pipeline
parallelism (`GGML_SCHED_MAX_COPIES`).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

from multigpu.memo import memo
from multigpu.memory import MIB
from multigpu.model_spec import GgufBlock, GgufFacts
from multigpu.placement import extremes_of
from multigpu.plan import ModelSpec
from multigpu.runtimes import llama_cpp_attention as attention
from multigpu.runtimes.llama_cpp_facts import facts_of
from multigpu.runtimes.llama_cpp_settings import Settings, Slots, padded

# `pipeline parallelism enabled`: inputs of a step are kept once per copy, on more than one card.
COPIES = 4
F32, F16 = 4, 2
# Ways of sharing the context that a part keeps its terms for.
KEPT, KEPT_PARTS = 64, 2048

Span = tuple[int, int]


class Part:
    """The units [start, end) on one of several cards: what they take for any share of the context.

    `full`, `sliding` and `state` are bytes per cell of the whole context, per cell of a window and
    per sequence; `peak` and `border` elements per token of a step.
    """

    __slots__ = (
        *("attending", "border", "cards", "copies", "full", "has_full", "has_sliding", "kept"),
        *("last", "peak"),
        *("profile", "scores", "sliding", "state", "unpacked", "weights"),
    )

    def __init__(self, p: Profile, span: Span, cards: int, copies: int) -> None:
        start, end = span[0], min(span[1], len(p.blocks))
        self.profile, self.last = p, span[1] > len(p.blocks)
        self.copies, self.cards = copies, cards
        self.weights = p.weights[span[1]] - p.weights[span[0]]
        self.full = p.full[end] - p.full[start]
        self.sliding = p.sliding[end] - p.sliding[start]
        self.state = p.state[end] - p.state[start]
        self.has_full, self.has_sliding = self.full > 0, self.sliding > 0
        blocks = {id(block): block for block in p.blocks[start:end]}.values()
        self.peak = max((b.peak for b in blocks), default=p.width)
        self.scores = () if p.flash_attn else tuple(b for b in blocks if b.heads)
        self.attending = sum(b.heads > 0 for b in p.blocks[start:end])
        self.unpacked = p.unpacked(blocks)
        self.border = self._border(span) if cards > 1 else 0
        self.kept: dict[tuple[int, int, bool], tuple[float, float]] = {}

    def _border(self, span: Span) -> int:
        """What one token brings from the card before; the first gets the embedding."""
        if span[0] == 0:
            # Projections of a Mamba block that leave with the stream are kept here as well.
            width, block = self.profile.width, self.profile.blocks[-1]
            leaving = not self.last and block.passing > block.border > 4 * width
            return width * (3 if leaving else 1)
        if span[0] >= len(self.profile.blocks):
            return 2 * self.profile.width
        block = self.profile.blocks[span[0]]
        return block.border if self.last else block.passing

    def held(self, slots: Slots) -> tuple[float, float]:
        """Cache and compute buffer in MiB; kept, as cards of other hosts ask for the same."""
        found = self.kept.get(slots.key)
        if found is None:
            if len(self.kept) >= KEPT:
                self.kept.clear()
            found = self.kept[slots.key] = self._cache(slots), self._compute(slots)
        return found

    def cache(self, slots: Slots) -> float:
        """KV cache and recurrent state, in MiB."""
        return self.held(slots)[0]

    def compute(self, slots: Slots) -> float:
        """Compute buffer, in MiB."""
        return self.held(slots)[1]

    def _cache(self, slots: Slots) -> float:
        found = self.full * slots.tokens + self.state * slots.count
        if self.has_sliding:
            found += self.sliding * self.profile.cells(slots) * slots.streams
        return found / MIB

    def _compute(self, slots: Slots) -> float:
        """What lives at one time, and inputs once per copy."""
        p = self.profile
        step = min(p.settings.ubatch, slots.tokens)
        inputs = self._masks(slots) + F32 * self.border
        peak = self.peak
        if self.scores:
            inputs += 8 * p.widest * (self.has_full + self.has_sliding)
            peak = max(peak, self._scores(slots))
        logits = F32 * slots.count * p.vocab if self.last else 0
        alive = F32 * step * peak
        if self.unpacked:
            alive = max(alive, self._unpacking(slots, step))
        return (step * self.copies * inputs + alive + logits) / MIB

    def _masks(self, slots: Slots) -> int:
        """Bytes per token of a step that say which cells it sees.

        Where the card cannot do the attention the CPU does, and every block's result comes in.
        """
        p = self.profile
        if p.flash_attn and not p.attends:
            return F32 * self.attending * p.queries
        cells = slots.stream_tokens if self.has_full else 0
        if self.has_sliding:
            cells += p.cells(slots)
        return cells * (F16 if p.flash_attn else F32)

    def _unpacking(self, slots: Slots, step: int) -> int:
        """Flash attention of CUDA over another type than f16: a block's K and V as f16 beside it.

        ggml_cuda_flash_attn_ext_get_alloc_size (ggml/src/ggml-cuda/fattn.cu) puts both behind the
        result, for all cells of all streams; a view of K is V as well in MLA.
        """
        seen = self.profile.cells(slots) * slots.streams
        return max(
            (
                F32 * step * attention + F16 * row * (seen if window else slots.tokens)
                for attention, row, window in self.unpacked
            ),
            default=0,
        )

    def _scores(self, slots: Slots) -> int:
        """Without flash attention: a row of scores per head and token, and what lives beside."""
        seen = self.profile.cells(slots)
        return max(
            b.attention + b.heads * (seen if b.window else slots.stream_tokens) for b in self.scores
        )


class Profile:
    """Sums over the units of one model under one set of flags."""

    def __init__(self, model: ModelSpec, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.width, self.vocab = model.hidden_size, model.vocab_size
        self.queries = model.num_attention_heads * model.head_dim
        facts = facts_of(model)
        kinds = settings.k_type, settings.v_type
        self.attends = settings.device != "cuda" or attention.taken(facts, *kinds)
        wanted = self.attends or settings.v_type not in attention.PLAIN
        self.flash_attn = wanted if settings.flash_attn is None else settings.flash_attn
        self.blocks = blocks = facts.blocks
        self.n_units = len(blocks) + 1
        self.output_mib = _output_mib(model, facts)
        self.weights = _sums([*model.layers_mib, self.output_mib])
        self.widest = max((b.v for b in blocks), default=0)
        rows = [self._row(block) for block in blocks]
        sliding = [b.window > 0 and not settings.swa_full for b in blocks]
        self.full = _sums(0.0 if s else row for row, s in zip(rows, sliding, strict=True))
        self.sliding = _sums(row if s else 0.0 for row, s in zip(rows, sliding, strict=True))
        self.state = _sums(float(F32 * b.state) for b in blocks)
        self.window = max((b.window for b in blocks), default=0)
        self._parts: dict[tuple[Span, int, int], Part] = {}
        self._sums: dict[tuple[int, int, bool], tuple[list[float], tuple[float, float]]] = {}

    def _row(self, block: GgufBlock) -> float:
        """Bytes of one cell; without flash attention V is transposed and as wide everywhere."""
        v = block.v if self.flash_attn or not block.v else self.widest
        return block.k * self.settings.k_bytes + v * self.settings.v_bytes

    def unpacked(self, blocks: Iterable[GgufBlock]) -> tuple[tuple[int, int, bool], ...]:
        """Per block beside what lives with attention: elements of a cell made f16 for it."""
        s = self.settings
        quantized = not s.k_type == s.v_type == "f16"
        if not (quantized and self.flash_attn and self.attends and s.device == "cuda"):
            return ()
        found = set()
        for b in blocks:
            k, v = b.k * (s.k_type != "f16"), b.v * (s.v_type != "f16")
            found.add((b.attention, k + v, b.window > 0 and not s.swa_full))
        return tuple(row for row in found if row[1])

    def cells(self, slots: Slots) -> int:
        """Cells of a sliding cache, one stream (`llama_kv_cache_iswa`)."""
        seen = self.window * (slots.count if slots.unified else 1) + self.settings.ubatch
        return padded(min(slots.stream_tokens, seen))

    def part(self, span: Span, cards: int, copies: int = COPIES) -> Part:
        """The units of one of `cards` cards; on one card there is one copy of everything."""
        key = (span, cards, copies)
        found = self._parts.get(key)
        if found is None:
            if len(self._parts) >= KEPT_PARTS:
                self._parts.clear()
            found = Part(self, span, cards, copies if cards > 1 else 1)
            self._parts[key] = found
        return found

    def sums(self, slots: Slots) -> tuple[list[float], tuple[float, float]]:
        """Weights and cache of the units before each border, in MiB; the least and largest unit."""
        found = self._sums.get(slots.key)
        if found is None:
            if len(self._sums) >= KEPT:
                self._sums.clear()
            sums = self._summed(slots)
            found = self._sums[slots.key] = sums, extremes_of(sums)
        return found

    def _summed(self, slots: Slots) -> list[float]:
        full, state = slots.tokens / MIB, slots.count / MIB
        sliding = self.cells(slots) * slots.streams / MIB if self.window else 0.0
        held = zip(self.weights, self.full, self.sliding, self.state, strict=False)
        found = [w + f * full + s * sliding + r * state for w, f, s, r in held]
        return [*found, found[-1] + self.output_mib]


def _sums(values: Iterable[float]) -> list[float]:
    return [0.0, *accumulate(values)]


def _output_mib(model: ModelSpec, facts: GgufFacts) -> float:
    """The output layer; a tied model keeps the token embedding on the last card once more."""
    return model.output_mib + (facts.token_embedding_mib if model.tie_word_embeddings else 0.0)


def profile(model: ModelSpec, settings: Settings) -> Profile:
    """The sums of a model, computed once."""
    known = memo(model)
    key = ("llama.cpp", settings)
    if key not in known:
        known[key] = Profile(model, settings)
    found: Profile = known[key]
    return found
