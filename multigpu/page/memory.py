"""Memory of each card, term by term, and what the KV cache holds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from multigpu import labels
from multigpu.page.text import WIDTH, hanging, heading, labelled, table
from multigpu.plan import Candidate, Memory, Plan

TERMS: dict[str, Callable[[Memory], float]] = {
    "weights": lambda m: m.weights_mib,
    "KV": lambda m: m.kv_cache_mib,
    "compute": lambda m: m.activations_mib,
    "graphs": lambda m: m.graphs_mib,
    "overhead": lambda m: m.overhead_mib,
    "sum": lambda m: m.total_mib,
    "usable": lambda m: m.capacity_mib,
    "spare": lambda m: m.capacity_mib - m.total_mib,
    "others": lambda m: m.other_mib,
}
LEFT_OUT_IF_NONE = ("graphs", "others")
SMALL_MIB = 1024
SHOWN_MIB = 52
LEGEND = (
    "compute: peak of a step; overhead: context and communicator; usable: what the runtime may "
    "take of the card"
)


def section(plan: Plan) -> Iterator[str]:
    """Title, one row for cards that are filled alike, and the KV cache."""
    chosen = plan.chosen
    if chosen.memory:
        yield from heading(f"Memory per card in {unit(chosen.memory)}, predicted")
        yield from per_card(chosen)
        yield from hanging("  ", LEGEND + _others(chosen))
    yield from labelled("KV cache", kv_cache(plan))
    if chosen.cpu_offload_mib:
        held = labels.size(chosen.cpu_offload_mib)
        yield from labelled("offload", f"{held} of the weights stay in the host's memory")


def _others(chosen: Candidate) -> str:
    if not _any("others", chosen.memory):
        return ""
    return "; others: what other programs hold besides"


def per_card(candidate: Candidate) -> list[str]:
    """The table, one row for cards that are filled alike; in MiB where no card holds a GiB."""
    alike: dict[Memory, list[int]] = {}
    for index, memory in zip(candidate.gpus, candidate.memory, strict=True):
        alike.setdefault(memory, []).append(index)
    word = unit(candidate.memory)
    names = [name for name in TERMS if name not in LEFT_OUT_IF_NONE or _any(name, alike)]
    cells = [[_cell(TERMS[name](memory), word) for name in names] for memory in alike]
    cards = [labels.cards(indices) for indices in alike.values()]
    for gap in (2, 1):
        lines = table(_rows(names, cards, cells), gap=gap)
        if max(map(len, lines)) <= WIDTH:
            return lines
    numbers = [f"({n})" for n in range(1, len(cards) + 1)]
    legend = zip(numbers, cards, strict=True)
    below = [line for number, card in legend for line in hanging(f"  {number} ", card)]
    return [*table(_rows(names, numbers, cells), gap=1), *below]


def _any(name: str, memories: Collection[Memory]) -> bool:
    """True when some card holds so much of a term that a decimal of a GiB shows it."""
    small = all(memory.total_mib < SMALL_MIB for memory in memories)
    return any(TERMS[name](memory) >= (1 if small else SHOWN_MIB) for memory in memories)


def _rows(names: list[str], cards: list[str], cells: list[list[str]]) -> list[list[str]]:
    return [["", *names], *([card, *row] for card, row in zip(cards, cells, strict=True))]


def unit(memories: tuple[Memory, ...]) -> str:
    """The unit of a table: MiB where no card holds a GiB."""
    return "MiB" if all(memory.total_mib < SMALL_MIB for memory in memories) else "GiB"


def _cell(mib: float, unit: str) -> str:
    if unit == "MiB":
        return f"{mib:.0f}"
    if 0 < mib < SHOWN_MIB:
        return "<0.1"
    return labels.gib(mib)


def kv_cache(plan: Plan) -> str:
    """`60,000 tokens in each of 2 engines: 7 requests of 8,192; largest context 40,960`."""
    chosen = plan.chosen
    parts = []
    if chosen.kv_tokens is not None:
        each = f" in each of {chosen.replicas} engines" if chosen.replicas > 1 else ""
        parts.append(f"{labels.counted(chosen.kv_tokens, 'token')}{each}")
    if chosen.kv_sequences is not None and chosen.max_model_len is not None:
        length = f"of the full length ({chosen.max_model_len:,})"
        parts.append(f"{labels.counted(chosen.kv_sequences, 'request')} {length}")
    if chosen.context_limit is not None:
        parts.append(f"a single request could be {chosen.context_limit:,} long")
    return "; ".join(parts)
