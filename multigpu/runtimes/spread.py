"""Ways to spread one model over the cards of a host, for runtimes with vLLM's kinds of parallelism.

Every way that may win is proposed and sized: single cards, copies, tensor parallel teams inside
well-connected groups, pipelines, teams in a pipeline, experts dealt to ranks. What arithmetic
refuses already is proposed unsized, so that its reason is told. Where nothing fits, less likely
ways follow (`thorough`), so that a wish is refused only when no way is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from multigpu.hardware import Host
from multigpu.plan import Candidate, ModelSpec, Strategy, Wish
from multigpu.runtimes.proposals import Proposals, Ways, fits, weights_mib
from multigpu.runtimes.seats import Seats, seats


def spread(ways: Ways, host: Host, model: ModelSpec, wish: Wish) -> tuple[Candidate, ...]:
    """Every way worth asking the rules about, sized where it may hold, each once."""
    parts = seats(host, wish)
    if not parts:
        return ()
    first = Candidate(ways.name, Strategy.SINGLE, (parts[0].gpus[0].index,))
    if model.format != ways.speaks:
        return (first,)
    if wish.gpus is None:
        parts, refused = _willing(ways, host, model, wish, parts)
    else:
        refused = []
    found: dict[object, Candidate] = {}
    for thorough in (False, True):
        for part in parts:
            proposals = Proposals(ways, host, model, wish, part, thorough)
            proposals.into(found)
        if any(fits(c) for c in found.values()) or not _hopeful(parts, model, wish):
            break
    return (*found.values(), *refused, *_across(ways, seats(host, wish)))


def _hopeful(parts: Iterable[Seats], model: ModelSpec, wish: Wish) -> bool:
    """True where the cards of one vendor could hold the weights at all."""
    needed = weights_mib(model)
    for part in parts:
        offloaded = (wish.cpu_offload_gib or 0.0) * 1024 * len(part.gpus)
        if sum(part.free.values()) + offloaded > needed:
            return True
    return False


def _willing(
    ways: Ways, host: Host, model: ModelSpec, wish: Wish, parts: tuple[Seats, ...]
) -> tuple[tuple[Seats, ...], list[Candidate]]:
    """Classes of cards that the runtime serves the model on; one candidate for each other."""
    kept: list[Seats] = []
    refused: list[Candidate] = []
    for part in parts:
        out = []
        for cards in part.classes:
            single = Candidate(ways.name, Strategy.SINGLE, (cards[0].index,))
            if ways.refuses(single, host, model, wish):
                refused.append(single)
                out.append(cards)
        if len(out) < len(part.classes):
            kept.append(part.without(out) if out else part)
    return tuple(kept), refused


def _across(ways: Ways, parts: tuple[Seats, ...]) -> Iterator[Candidate]:
    """Copies on the cards of two vendors, for the reason against it."""
    if len(parts) > 1:
        gpus = tuple(sorted(gpu.index for part in parts for gpu in part.gpus))
        yield Candidate(ways.name, Strategy.REPLICAS, gpus, replicas=len(gpus))
