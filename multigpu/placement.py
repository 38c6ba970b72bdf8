"""Which card holds which layer: llama.cpp's own rule, and the choice of contiguous counts.

llama.cpp counts N blocks and the output layer as N + 1 units and gives a unit to a device with
float32 arithmetic (`load_tensors` in src/llama-model.cpp, 0c1e57098). Whole unit counts given as
`--tensor-split` come back exactly.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
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
    budget is used up before the first unit. Of several best ones the first cards get the least.
    """
    if len(units) < len(budgets) or min(budgets, default=0.0) <= 0:
        return None
    return split_at([0.0, *accumulate(units)], budgets, first, last)


def split_at(
    sums: Sequence[float],
    budgets: Sequence[float],
    first: float,
    last: float,
    extremes: tuple[float, float] | None = None,
) -> tuple[int, ...]:
    """`partition` of units given by their running sums, which begin with 0.

    `extremes` are the sizes of the smallest and the largest unit where the caller keeps them.

    Filling card after card up to a limit finds a partition below the limit wherever there is one;
    a few halvings come near the smallest limit, and then every partition found sets the next limit
    until there is none below.
    """
    fixed = [0.0] * len(budgets)
    fixed[0] += first
    fixed[-1] += last
    least, widest = extremes or extremes_of(sums)
    narrowest = least * (1 - 1e-9)
    low = (sums[-1] + first + last) / sum(budgets)
    high = max(
        low + widest / min(budgets),
        (sums[1] + fixed[0]) / budgets[0],
        (sums[-1] - sums[-2] + fixed[-1]) / budgets[-1],
    )
    best = _filled(sums, budgets, fixed, high * (1 + 1e-9), narrowest)
    worst = high if best is None else _worst(sums, budgets, fixed, best)
    for _ in range(HALVINGS):
        middle = (low + worst) / 2
        found = _filled(sums, budgets, fixed, middle, narrowest)
        if found is None:
            low = middle
        else:
            best, worst = found, _worst(sums, budgets, fixed, found)
    while (found := _filled(sums, budgets, fixed, worst * (1 - 1e-12), narrowest)) is not None:
        best, worst = found, _worst(sums, budgets, fixed, found)
    return _from_the_back(sums, budgets, fixed, worst) or best or even(len(sums) - 1, len(budgets))


def extremes_of(sums: Sequence[float]) -> tuple[float, float]:
    """The sizes of the smallest and the largest unit."""
    sizes = [b - a for a, b in pairwise(sums)]
    return min(sizes), max(sizes)


HALVINGS = 4


def _worst(
    sums: Sequence[float], budgets: Sequence[float], fixed: Sequence[float], ends: Sequence[int]
) -> float:
    """The largest share of a budget; `ends` are counts per card."""
    worst, start = 0.0, 0
    for card, count in enumerate(ends):
        end = start + count
        share = (sums[end] - sums[start] + fixed[card]) / budgets[card]
        worst, start = max(worst, share), end
    return worst


def _filled(
    sums: Sequence[float],
    budgets: Sequence[float],
    fixed: Sequence[float],
    limit: float,
    narrowest: float,
) -> tuple[int, ...] | None:
    """Card after card takes what it can up to the limit; None when some unit is left over."""
    n, cards, start, found = len(sums) - 1, len(budgets), 0, []
    for card in range(cards):
        room = sums[start] + limit * budgets[card] - fixed[card]
        end = min(bisect_right(sums, room) - 1, n - (cards - 1 - card))
        if end <= start:
            too_small = any(limit * budgets[i] - fixed[i] < narrowest for i in range(card, cards))
            return None if too_small else _reached(sums, budgets, fixed, limit)
        found.append(end - start)
        start = end
    return tuple(found) if start == n else None


def _reached(
    sums: Sequence[float], budgets: Sequence[float], fixed: Sequence[float], limit: float
) -> tuple[int, ...] | None:
    """As `_filled` where a card has no room for the next unit: earlier cards may take less."""
    n, cards = len(sums) - 1, len(budgets)
    ways: dict[int, tuple[int, ...]] = {0: ()}
    for card in range(cards):
        longer: dict[int, tuple[int, ...]] = {}
        for start, counted in ways.items():
            room = sums[start] + limit * budgets[card] - fixed[card]
            for end in range(start + 1, min(bisect_right(sums, room), n - (cards - 1 - card) + 1)):
                longer.setdefault(end, (*counted, end - start))
        ways = longer
    return ways.get(n)


def _from_the_back(
    sums: Sequence[float], budgets: Sequence[float], fixed: Sequence[float], limit: float
) -> tuple[int, ...] | None:
    """As `_filled`, from the last card on; None when rounding makes it worse than the limit."""
    end, found = len(sums) - 1, []
    for card in range(len(budgets) - 1, -1, -1):
        room = sums[end] - (limit * (1 + 1e-12) * budgets[card] - fixed[card])
        start = max(bisect_left(sums, room), card) if card else 0
        if start >= end:
            return None
        found.append(end - start)
        end = start
    counted = tuple(reversed(found))
    return counted if _worst(sums, budgets, fixed, counted) <= limit * (1 + 1e-9) else None


def even(num_hidden_layers: int, pipeline_parallel_size: int) -> tuple[int, ...]:
    """vLLM's own partition: the remainder goes to the stages before the last.

    `get_pp_indices` in vllm/distributed/utils.py, 0.33.0.
    """
    base, rest = divmod(num_hidden_layers, pipeline_parallel_size)
    stages = [base] * pipeline_parallel_size
    for i in range(2, rest + 2):
        stages[-i] += 1
    return tuple(stages)
