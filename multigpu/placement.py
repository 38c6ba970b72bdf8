"""Which card holds which layer: llama.cpp's own rule, and the choice of contiguous counts.

llama.cpp counts N blocks and the output layer as N + 1 units and gives a unit to a device with
float32 arithmetic (`load_tensors` in src/llama-model.cpp, 0c1e57098). Whole unit counts given as
`--tensor-split` come back exactly.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from struct import pack, unpack


def float32(value: float) -> float:
    """The value as a C float keeps it."""
    return float(unpack("f", pack("f", value))[0])


def device_of_unit(tensor_split: Sequence[float], n_units: int) -> tuple[int, ...]:
    """The device of each of `n_units` (blocks, then the output layer) when all are offloaded.

    `tensor_split` must have a positive sum, as llama.cpp falls back to free memory otherwise.
    """
    sums: list[float] = []
    total = 0.0
    for share in tensor_split:
        total = float32(total + float32(share))
        sums.append(total)
    splits = [float32(value / total) for value in sums]
    return tuple(bisect_right(splits, float32(unit / n_units)) for unit in range(n_units))


def counts(devices: Sequence[int], n_devices: int) -> tuple[int, ...]:
    """Units per device."""
    return tuple(sum(1 for device in devices if device == i) for i in range(n_devices))


def partition(
    units: Sequence[float],
    budgets: Sequence[float],
    *,
    first: float = 0.0,
    last: float = 0.0,
) -> tuple[int, ...] | None:
    """Contiguous counts, at least one unit per card, with the smallest worst share of a budget.

    `units` are sizes in order, `budgets` what each card may hold, `first` and `last` fixed sizes on
    the outer cards (embedding, output layer). None when there are fewer units than cards or a
    budget is used up before the first unit. Exact, by dynamic programming over (card, unit).
    """
    n, cards = len(units), len(budgets)
    if n < cards or min(budgets, default=0.0) <= 0:
        return None
    sums = [0.0, *accumulate(units)]

    def share(card: int, start: int, end: int) -> float:
        fixed = (first if card == 0 else 0.0) + (last if card == cards - 1 else 0.0)
        return (sums[end] - sums[start] + fixed) / budgets[card]

    # best[end] = (worst share, counts) for the units before `end` on the cards so far
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
    for card in range(cards):
        left = cards - 1 - card
        ends = [n] if left == 0 else range(card + 1, n - left + 1)
        best = {
            end: min(
                (max(worst, share(card, start, end)), (*chosen, end - start))
                for start, (worst, chosen) in best.items()
                if start < end
            )
            for end in ends
        }
    return best[n][1]


def even(num_hidden_layers: int, pipeline_parallel_size: int) -> tuple[int, ...]:
    """vLLM's own partition: the remainder goes to the stages before the last.

    `get_pp_indices` in vllm/distributed/utils.py, 0.33.0.
    """
    base, rest = divmod(num_hidden_layers, pipeline_parallel_size)
    stages = [base] * pipeline_parallel_size
    for i in range(2, rest + 2):
        stages[-i] += 1
    return tuple(stages)
