"""Where nothing fits: the smallest changes that would make the nearest way fit.

Only candidates that fall to memory alone are asked; for the others memory is not what is missing.
vLLM's settings are tried with its own sums (`multigpu.choice.shrink`); the rest is read off the
candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, floor

from multigpu.choice import shrink
from multigpu.hardware import Host
from multigpu.labels import counted, label, rounded, size
from multigpu.memory import MIB
from multigpu.plan import Candidate, ModelSpec, Reason, Rejected, Wish

FLAGS = {
    "max_num_seqs": "--max-num-seqs",
    "max_num_batched_tokens": "--max-num-batched-tokens",
    "enforce_eager": "--enforce-eager",
}
"""Settings that are written as a flag of the runtime; the others are keys of a wish."""
READ_OFF = ("max_model_len", "bits_per_weight", "tensor_parallel_size")
"""Changes that hold for every runtime and are read off the candidate here."""


def changes(
    rejected: Sequence[Rejected], host: Host, model: ModelSpec, wish: Wish
) -> Iterator[Reason]:
    """Settings of the runtime, a shorter context, fewer bits per weight, more cards."""
    full = [
        item.candidate
        for item in rejected
        if item.candidate.memory and all(reason.rule == "memory-fit" for reason in item.reasons)
    ]
    if not full:
        return
    nearest = min(full, key=lambda candidate: sum(_missing(candidate)) / candidate.replicas)
    yield from _settings(nearest, host, model, wish)
    yield from _context(full)
    yield from _bits(full, model)
    yield from _cards(nearest, host)


def _missing(candidate: Candidate) -> list[float]:
    """MiB that each card lacks."""
    return [max(0.0, card.total_mib - card.capacity_mib) for card in candidate.memory]


def _settings(nearest: Candidate, host: Host, model: ModelSpec, wish: Wish) -> Iterator[Reason]:
    for change in shrink.changes(nearest, host, model, wish):
        if change.key in READ_OFF:
            continue
        found = f"{change.key} {change.value} for {label(nearest)}"
        yield Reason("change-setting", found, change.why, _written(change, nearest, wish))


def _written(change: shrink.Change, nearest: Candidate, wish: Wish) -> str:
    """How the wish says it; a stated concurrency is what sets --max-num-seqs."""
    if change.key == "max_num_seqs" and wish.concurrency is not None:
        return f"concurrency = {int(change.value) * nearest.replicas}"
    flag = FLAGS.get(change.key)
    if flag is None:
        return f"{change.key} = {change.value!r}"
    value = None if change.value == "on" else str(change.value)
    return f"flags = {{{flag!r}: {value!r}}}"


def _context(full: Sequence[Candidate]) -> Iterator[Reason]:
    longest = max(full, key=lambda c: c.context_limit or 0)
    tokens = longest.context_limit or 0
    if shrink.SMALLEST_CONTEXT <= tokens < (longest.max_model_len or 0):
        gives = f"{label(longest)} holds one request of it"
        yield Reason("change-context", f"a context of {tokens:,}", gives, f"context = {tokens}")


def _bits(full: Sequence[Candidate], model: ModelSpec) -> Iterator[Reason]:
    """Weights shrink alike on all cards; the card that lacks the largest share decides."""

    def kept(candidate: Candidate) -> float:
        rows = zip(_missing(candidate), candidate.memory, strict=True)
        shares = (1 - lacks / card.weights_mib for lacks, card in rows if card.weights_mib)
        return min(shares, default=0.0)

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


def _cards(nearest: Candidate, host: Host) -> Iterator[Reason]:
    """Cards like the largest, as many as the missing memory fills; a lower bound."""
    lacks = sum(_missing(nearest)) / nearest.replicas
    roomy = max(nearest.memory, key=lambda card: card.capacity_mib)
    room = roomy.capacity_mib - roomy.activations_mib - roomy.overhead_mib - roomy.graphs_mib
    if lacks <= 0 or room <= 0:
        return
    index = nearest.gpus[nearest.memory.index(roomy)]
    name = host.gpu(index).name or f"GPU {index}"
    found = f"at least {counted(ceil(lacks / room), 'more card')} like {name}"
    hint = "add cards, or serve on a larger host"
    yield Reason("change-cards", found, f"{size(lacks)} are missing", hint)
