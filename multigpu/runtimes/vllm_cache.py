"""vLLM's KV cache: pages, groups of layers, blocks of one request, tokens and concurrency.

Layers of one kind share block tables in groups of equal size; all groups draw blocks of one size
from one pool (`v1/core/kv_cache_planning.py`, `get_max_concurrency_for_kv_cache_config` in
`v1/core/kv_cache_utils.py`, 0.33.0). Recurrent states take whole pages: the attention block is
enlarged until its page holds a state (`platforms/interface.py`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from multigpu.memo import memo
from multigpu.plan import LayerCache, ModelSpec

BLOCK_TOKENS = 16
# With prefix caching, which is on by default, a state is kept at two block borders (mode "align").
STATE_BLOCKS = 2
# More layers of one kind are not split into several groups below this ratio.
SIMILAR = 1.5


@dataclass(frozen=True)
class Bucket:
    """Layers of one kind: `groups` block tables, blocks of `block_tokens` tokens.

    `window` is None where the whole context is kept, 0 for a recurrent state.
    """

    block_tokens: int
    groups: int
    window: int | None = None

    def blocks(self, context: int, in_flight: int) -> int:
        """Blocks of all groups for one request of `context` tokens."""
        if self.window is None:
            return self.groups * -(-context // self.block_tokens)
        if self.window == 0:
            return self.groups * STATE_BLOCKS
        held = min(self.window - 1 + in_flight, context)
        return self.groups * (-(-held // self.block_tokens) + 1)


@dataclass(frozen=True)
class Layout:
    """How one rank's pool is cut: bytes of one block over all its layers, and who takes blocks."""

    block_bytes: float
    buckets: tuple[Bucket, ...]

    def blocks(self, context: int, in_flight: int) -> int:
        """Blocks of one request of `context` tokens."""
        if len(self.buckets) == 1:
            return self.buckets[0].blocks(context, in_flight)
        return sum([bucket.blocks(context, in_flight) for bucket in self.buckets])

    def request_mib(self, context: int, in_flight: int) -> float:
        """The cache of one request of `context` tokens, in MiB."""
        return self.blocks(context, in_flight) * self.block_bytes / 1024**2

    def longest(self, blocks: float, in_flight: int) -> int:
        """Tokens of the longest request that fits into that many blocks; 0 for none.

        Without windows the answer is closed; with them the tokens are found by halving.
        """
        if len(self.buckets) == 1 and self.buckets[0].window is None:
            only = self.buckets[0]
            return max(0, int(blocks) // only.groups * only.block_tokens)
        full = [bucket for bucket in self.buckets if bucket.window is None]
        if self.blocks(1, in_flight) > blocks:
            return 0
        if not full:
            return UNBOUNDED
        low, high = 1, max(1, int(blocks) * max(bucket.block_tokens for bucket in full))
        while low < high:
            middle = (low + high + 1) // 2
            if self.blocks(middle, in_flight) <= blocks:
                low = middle
            else:
                high = middle - 1
        return low


UNBOUNDED = 1 << 40
"""The context of a model whose cache does not grow."""


def layout(model: ModelSpec, stage: tuple[int, int], tp: int, kv_bytes: float) -> Layout | None:
    """The layout of a rank that holds the blocks [start, end); None where nothing is cached.

    Groups are made over the whole model, as vLLM does, so that stages agree on the blocks.
    """
    key = ("vllm-layout", stage, tp, kv_bytes)
    kept = memo(model)
    if key not in kept:
        whole = ("vllm-kinds", tp, kv_bytes)
        if whole not in kept:
            kept[whole] = _kinds(model.layers, tp, kv_bytes)
        made = _layout(kept[whole], stage)
        # Most stages of as many blocks are cut alike: one object for all.
        kept[key] = kept.setdefault(("vllm-layouts", made), made)
    return kept[key]  # type: ignore[no-any-return]


Kinds = dict[tuple[str, float, int], list[int]]
"""Blocks, ascending, by what they cache: (kind, bytes per token or state, window)."""


def _kinds(layers: Sequence[LayerCache], tp: int, kv_bytes: float) -> Kinds:
    kinds: Kinds = {}
    for index, layer in enumerate(layers):
        width = _token_bytes(layer, tp, kv_bytes) if layer.kind != "none" else 0.0
        if width:
            window = (layer.window or 0) if layer.kind == "sliding" else 0
            kinds.setdefault((layer.kind, width, window), []).append(index)
        if layer.sequence_bytes:
            divided = 1 if layer.kind == "mla" else tp
            state = float(ceil(layer.sequence_bytes / divided))
            kinds.setdefault(("state", state, 0), []).append(index)
    return kinds


def _layout(kinds: Kinds, stage: tuple[int, int]) -> Layout | None:
    if not kinds:
        return None
    if all(kind in ("full", "mla") for kind, _, _ in kinds):
        held = sum(w * _inside(indices, stage) for (_, w, _), indices in kinds.items())
        return Layout(BLOCK_TOKENS * held, (Bucket(BLOCK_TOKENS, 1),)) if held else None
    return _grouped(kinds, stage)


def _grouped(kinds: Kinds, stage: tuple[int, int]) -> Layout | None:
    """Groups of equal size over one page; the fullest group of a stage sets its block.

    A narrower layer takes a longer block where its page divides the widest one, else it is padded.
    """
    page = _page_bytes(kinds)
    counts = [len(indices) for indices in kinds.values()]
    size = max(counts) if max(counts) < SIMILAR * min(counts) else min(counts)
    buckets, fullest = [], 0
    for (kind, width, window), indices in kinds.items():
        groups = ceil(len(indices) / size)
        fullest = max(fullest, *(_inside(indices[i::groups], stage) for i in range(groups)))
        if kind == "state":
            buckets.append(Bucket(0, groups, 0))
        else:
            times, rest = divmod(page, width * BLOCK_TOKENS)
            tokens = BLOCK_TOKENS * (int(times) if not rest else 1)
            buckets.append(Bucket(tokens, groups, window if kind == "sliding" else None))
    return Layout(page * fullest, tuple(buckets)) if fullest else None


def _page_bytes(kinds: Kinds) -> float:
    """One page for all: the widest attention block, enlarged until it holds a state."""
    states = max((width for kind, width, _ in kinds if kind == "state"), default=0.0)
    tokens = max((width for kind, width, _ in kinds if kind != "state"), default=0.0)
    if not tokens:
        return states
    return tokens * BLOCK_TOKENS * max(1, ceil(states / (tokens * BLOCK_TOKENS)))


def _token_bytes(layer: LayerCache, tp: int, kv_bytes: float) -> float:
    """Bytes of one token on one rank; of the whole state for a recurrent layer."""
    width = layer.element_bytes or kv_bytes
    if layer.kind == "state":
        return ceil(layer.elements / tp) * (layer.element_bytes or 2)
    if layer.kind == "mla":
        return layer.elements * width
    return 2 * max(1, ceil(layer.num_key_value_heads / tp)) * layer.head_dim * width


def _inside(indices: Sequence[int], stage: tuple[int, int]) -> int:
    return bisect_left(indices, stage[1]) - bisect_left(indices, stage[0])
