"""What every card gets of a model that llama.cpp divides by tensor (`--split-mode tensor`).

Facts of 0.5.0-dev (0c1e57098), `llama_meta_device_get_split_state` in src/llama-model.cpp: rows are
cut at the running sums of `--tensor-split`, each cut is rounded down to a whole granule, the rest
is the last card's, and the card that begins moves on by one from block to block. Attention is cut
at whole KV heads, feed-forward networks at multiples of 128; norms, routers and what is not named
there lie on every card in full. Held against llama-server on an H200 (driver 580.159.04) standing
for two and three cards, 19 loads of seven models: the largest card's weights within 1 %, its caches
within 2 %, its compute buffer within 25 MiB. How blocks of a recurrence are cut is taken from the
attention beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm

from multigpu.memo import memo
from multigpu.memory import ffn_size
from multigpu.plan import ModelSpec

# Quantized blocks are no larger; kernels like more rows.
QUANTUM, ROWS = 32, 128


@dataclass(frozen=True)
class Shares:
    """Fractions of one card, averaged over the blocks: of attention, of networks, of the rest."""

    attention: float
    feed_forward: float
    plain: float


def cut(size: int, granule: int, ratios: Sequence[float], rotation: int = 0) -> list[int]:
    """Elements per card of `size` in whole granules; the card at `rotation` begins."""
    n, total = len(ratios), sum(ratios)
    found, low, seen = [0] * n, 0, 0.0
    for j in range(n - 1):
        seen += ratios[(j + rotation) % n]
        high = int(size * seen / total)
        high -= high % granule
        found[(j + rotation) % n] = high - low
        low = high
    found[(n - 1 + rotation) % n] = size - low
    return found


def shares(model: ModelSpec, ratios: tuple[int, ...]) -> list[Shares]:
    """What every card gets, in the order of the ratios; summed once per model."""
    known = memo(model)
    key = ("llama.cpp-shares", ratios)
    if key not in known:
        known[key] = _shares(model, ratios)
    found: list[Shares] = known[key]
    return found


def _shares(model: ModelSpec, ratios: tuple[int, ...]) -> list[Shares]:
    n, total = len(ratios), sum(ratios)
    heads = model.num_key_value_heads or n
    per_head = max(1, model.num_attention_heads // heads) * model.head_dim
    attention = _averages(heads, _granule(per_head, n), ratios, model.num_hidden_layers)
    size = model.moe_intermediate_size if model.num_experts else ffn_size(model)
    networks = _averages(size or ROWS * n, ROWS, ratios, model.num_hidden_layers)
    plain = [ratio / total for ratio in ratios]
    return [Shares(*card) for card in zip(attention, networks, plain, strict=True)]


def _granule(per_head: int, cards: int) -> int:
    """KV heads that are not parted, with the query heads that read them."""
    rows = QUANTUM
    while rows < ROWS and rows * cards < per_head:
        rows *= 2
    return lcm(per_head, rows) // max(1, per_head)


def _averages(size: int, granule: int, ratios: Sequence[float], blocks: int) -> list[float]:
    n = len(ratios)
    cuts = [cut(size, granule, ratios, rotation) for rotation in range(n)]
    found = [0] * n
    for i in range(blocks):
        for card, part in enumerate(cuts[i % n]):
            found[card] += part
    return [part / (size * max(1, blocks)) for part in found]


def attention_share(model: ModelSpec) -> float:
    """Attention's part of the weights that are divided, by elements; experts count as networks."""
    queries = model.num_attention_heads * model.head_dim
    attention = 2 * model.hidden_size * (queries + model.num_key_value_heads * model.head_dim)
    if any(model.experts_mib):
        held = sum(model.layers_mib)
        return (held - sum(model.experts_mib) - sum(model.replicated_mib)) / held
    return attention / (attention + 3 * model.hidden_size * ffn_size(model))
