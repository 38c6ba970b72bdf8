"""Where nothing fits: the smallest changes that would make a way fit, by the candidates' own sums.

Only candidates that fall to memory alone are asked; for the others memory is not what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, floor

from multigpu.hardware import Host
from multigpu.labels import counted, label, rounded, size
from multigpu.memory import MIB
from multigpu.plan import Candidate, ModelSpec, Reason, Rejected, Workload


def changes(
    rejected: Sequence[Rejected], host: Host, model: ModelSpec, load: Workload
) -> Iterator[Reason]:
    """A shorter context, fewer bits per weight, more cards: the least of each that would do."""
    full = [
        item.candidate
        for item in rejected
        if all(reason.rule == "memory-fit" for reason in item.reasons)
    ]
    if not full:
        return
    yield from _context(full, load)
    yield from _bits(full, model)
    yield from _cards(full, host)


def _context(full: Sequence[Candidate], load: Workload) -> Iterator[Reason]:
    longest = max(full, key=lambda c: c.context_limit or 0)
    tokens = longest.context_limit or 0
    if 0 < tokens < load.context:
        gives = f"{label(longest)} holds one request of it"
        yield Reason("change-context", f"a context of {tokens:,}", gives, f"context = {tokens}")


def _missing(candidate: Candidate) -> list[float]:
    """MiB that each card lacks."""
    return [max(0.0, card.total_mib - card.capacity_mib) for card in candidate.memory]


def _bits(full: Sequence[Candidate], model: ModelSpec) -> Iterator[Reason]:
    """Weights shrink alike on all cards; the card that lacks the largest share decides."""

    def kept(candidate: Candidate) -> float:
        shares = zip(_missing(candidate), candidate.memory, strict=True)
        return min(
            (1 - lacks / card.weights_mib for lacks, card in shares if card.weights_mib),
            default=0.0,
        )

    roomy = max(full, key=kept)
    share, count = kept(roomy), model.num_parameters
    if not 0 < share < 1:
        return
    found = f"weights of {size(model.weights_mib * share)} instead of {size(model.weights_mib)}"
    if count:
        now = model.weights_mib * MIB * 8 / count
        found += f" ({rounded(floor(10 * now * share) / 10)} bits each, now {rounded(now)})"
    hint = "take a smaller quantization of the model"
    yield Reason("change-weights", found, f"{label(roomy)} holds it", hint)


def _cards(full: Sequence[Candidate], host: Host) -> Iterator[Reason]:
    """Cards like the largest, as many as the missing memory fills; a lower bound."""
    nearest = min(full, key=lambda c: sum(_missing(c)) / max(1, c.replicas))
    lacks = sum(_missing(nearest)) / max(1, nearest.replicas)
    roomy = max(nearest.memory, key=lambda card: card.capacity_mib)
    room = roomy.capacity_mib - roomy.activations_mib - roomy.overhead_mib - roomy.graphs_mib
    if lacks <= 0 or room <= 0:
        return
    index = nearest.gpus[nearest.memory.index(roomy)]
    name = host.gpu(index).name or f"GPU {index}"
    found = f"at least {counted(ceil(lacks / room), 'more card')} like {name}"
    hint = "add cards, or serve on a larger host"
    yield Reason("change-cards", found, f"{size(lacks)} are missing", hint)
