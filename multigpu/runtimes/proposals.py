"""Candidates over the cards of one vendor: single, copies, teams, stages, and teams in stages.

Those that arithmetic refuses already are proposed unsized, so that their reason is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from multigpu.groups import by_capability
from multigpu.hardware import Host
from multigpu.memo import changed, memo
from multigpu.memory import all_fit
from multigpu.placement import even
from multigpu.plan import Candidate, ModelSpec, Strategy, Wish
from multigpu.runtimes.seats import Group, Seats
from multigpu.runtimes.sharding import experts_dealt

Sizing = Callable[[Candidate, Host, ModelSpec, Wish], Candidate]
Partition = Callable[[Candidate, Host, ModelSpec, Wish], tuple[int, ...] | None]

# What a rank holds beside weights and cache at least: context, activations, graphs.
LEAST_OVERHEAD_MIB = 1024
PLAIN = Candidate("", Strategy.SINGLE, ())
"""What every candidate is copied from: that takes half of the time of its constructor."""


@dataclass(frozen=True)
class Ways:
    """What a runtime brings along: its name, how it sizes, and how it counts layers by memory.

    `partitioned` is None where stages are always even. `refuses` tells whether a card of its own
    cannot serve the model at all, whatever the memory; `speaks` the format of the model it reads.
    """

    name: str
    sized: Sizing
    partitioned: Partition | None
    refuses: Callable[[Candidate, Host, ModelSpec, Wish], bool]
    speaks: str = "safetensors"


def fits(candidate: Candidate) -> bool:
    """True for a sized candidate whose cards all hold their share."""
    return bool(candidate.memory) and all_fit(candidate.memory)


def weights_mib(model: ModelSpec) -> float:
    """`model.weights_mib`, summed once."""
    known = memo(model)
    if "weights_mib" not in known:
        known["weights_mib"] = model.weights_mib
    found: float = known["weights_mib"]
    return found


@dataclass(frozen=True)
class Proposals:
    """Candidates over the cards of one vendor."""

    ways: Ways
    host: Host
    model: ModelSpec
    wish: Wish
    part: Seats
    thorough: bool

    def into(self, found: dict[object, Candidate]) -> None:
        """Add what is not there yet."""
        for candidate, check in self.all():
            c = candidate
            key = (
                c.strategy,
                c.gpus,
                c.tensor_parallel_size,
                c.pipeline_parallel_size,
                c.replicas,
                c.layers,
                c.expert_parallel,
            )
            if key not in found:
                found[key] = self.sized(c) if check else c

    def sized(self, candidate: Candidate) -> Candidate:
        """The candidate with memory per card."""
        return self.ways.sized(candidate, self.host, self.model, self.wish)

    def all(self) -> Iterator[tuple[Candidate, bool]]:
        """(candidate, is it worth sizing)."""
        yield from self.whole()
        n = len(self.part.gpus)
        if n < 2:
            return
        sizes = [t for t in range(2, n + 1) if self.experts(t) is not None]
        for t in range(2, n + 1):
            if t not in sizes or (self.experts(t) and self.wish.expert_parallel is None):
                yield self.refused(t), False
        for t in sizes:
            for group in self.part.groups(self.host, t, self.thorough):
                yield self.candidate(Strategy.TENSOR_PARALLEL, group, tp=t), True
        yield from self.pipelines()
        for t in sizes:
            yield from self.team_pipelines(t)
            yield from self.team_replicas(t)

    def experts(self, tp: int) -> bool | None:
        """Whether experts are dealt whole at this size; None where no way is valid."""
        return experts_dealt(self.model, tp, self.wish.expert_parallel)

    def candidate(
        self, strategy: Strategy, gpus: Group, tp: int = 1, pp: int = 1, replicas: int = 1
    ) -> Candidate:
        """Lowest compute capability first in a team that is mixed, unless cards are pinned."""
        if strategy is Strategy.TENSOR_PARALLEL and not self.part.pinned:
            gpus = by_capability(self.host, gpus)
        return changed(
            PLAIN,
            runtime=self.ways.name,
            strategy=strategy,
            gpus=gpus,
            tensor_parallel_size=tp,
            pipeline_parallel_size=pp,
            replicas=replicas,
            expert_parallel=tp > 1 and bool(self.experts(tp)),
        )

    def refused(self, tp: int) -> Candidate:
        """One candidate for all groups of a size that does not divide."""
        gpus = self.part.first(tp)
        expert_parallel = bool(self.wish.expert_parallel and self.model.num_experts)
        made = Candidate(self.ways.name, Strategy.TENSOR_PARALLEL, gpus, tp)
        return changed(made, expert_parallel=True) if expert_parallel else made

    def whole(self) -> Iterator[tuple[Candidate, bool]]:
        """The best card of each class, and a copy on every card that holds one by itself."""
        able: list[Group] = []
        for cards in self.part.ranked(self.host):
            single = self.sized(self.candidate(Strategy.SINGLE, cards[:1]))
            yield single, False
            able.append(self.able(cards) if fits(single) else ())
        held = tuple(sorted(index for cards in able for index in cards))
        sets = [held, *able] if len(held) > 1 else [tuple(sorted(self.part.indices))]
        for gpus in dict.fromkeys(tuple(sorted(s)) for s in sets):
            if len(gpus) > 1:
                yield self.candidate(Strategy.REPLICAS, gpus, replicas=len(gpus)), True

    def able(self, cards: Group) -> Group:
        """Of like cards, the one with the most free memory first, those that hold a copy."""
        free, n = self.part.free, len(cards)
        while n > 1 and free[cards[n - 1]] < free[cards[0]]:
            if fits(self.sized(self.candidate(Strategy.SINGLE, cards[n - 1 : n]))):
                break
            n -= 1
        return cards[:n]

    def pipelines(self) -> Iterator[tuple[Candidate, bool]]:
        """Stages of one card each over as few cards as hold the weights, and over all."""
        n = len(self.part.gpus)
        wished = self.wish.pipeline_parallel_size or 0
        sizes = {n, self.needed(), wished, len(self.wish.layers or ())}
        if self.thorough:
            sizes.update(range(2, n + 1))
        for pp in sorted(sizes):
            if 1 < pp <= n:
                for group in self.part.groups(self.host, pp, self.thorough):
                    gpus = group if self.part.pinned else by_capability(self.host, group)
                    made = self.candidate(Strategy.PIPELINE_PARALLEL, gpus, pp=pp)
                    yield from self.staged(made)

    def needed(self) -> int:
        """The smallest number of cards whose free memory holds the weights."""
        held, n = 0.0, 0
        for mib in sorted(self.part.free.values(), reverse=True):
            held, n = held + mib - LEAST_OVERHEAD_MIB, n + 1
            if held > weights_mib(self.model):
                break
        return max(2, n)

    def staged(self, made: Candidate) -> Iterator[tuple[Candidate, bool]]:
        """With even stages, or where cards are not alike with stages by their memory."""
        pp, layers = made.pipeline_parallel_size, self.wish.layers
        if layers is not None and len(layers) == pp:
            yield changed(made, layers=layers), True
            return
        usual = even(self.model.num_hidden_layers, pp)
        even_stages = changed(made, layers=usual)
        counted = self.partitioned(even_stages) if self.part.unequal(made.gpus) else None
        if counted is not None and counted != usual:
            yield changed(made, layers=counted), True
        if counted in (None, usual) or self.thorough:
            yield even_stages, True

    def partitioned(self, made: Candidate) -> tuple[int, ...] | None:
        """Blocks per stage by memory; the card with the least decides for its team."""
        if self.ways.partitioned is None:
            return None
        tp, free = made.tensor_parallel_size, self.part.free
        teams = [made.gpus[i : i + tp] for i in range(0, len(made.gpus), tp)]
        least = changed(made, gpus=tuple(min(team, key=lambda i: free[i]) for team in teams))
        return self.ways.partitioned(least, self.host, self.model, self.wish)

    def team_pipelines(self, tp: int) -> Iterator[tuple[Candidate, bool]]:
        """Tensor parallel inside groups that are near each other, stages across them."""
        wished = self.wish.pipeline_parallel_size
        for gpus in self.part.teams(self.host, tp):
            stages = len(gpus) // tp
            counts = {stages, wished or stages}
            if self.thorough:
                counts.update(range(2, stages))
            for pp in sorted(counts, reverse=True):
                if 1 < pp <= stages:
                    used = gpus[: pp * tp]
                    made = self.candidate(Strategy.TENSOR_PIPELINE_PARALLEL, used, tp, pp)
                    yield from self.staged(made)

    def team_replicas(self, tp: int) -> Iterator[tuple[Candidate, bool]]:
        """One engine per team."""
        for gpus in self.part.teams(self.host, tp):
            count = len(gpus) // tp
            if count > 1:
                yield self.candidate(Strategy.REPLICAS, gpus, tp, replicas=count), True
