"""Why a candidate that holds was not chosen, and what speaks for the one that was: the numbers.

Where speeds were predicted the reasons name them with their ranges; else they name the rule of
thumb of `multigpu.tiers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from multigpu import tiers
from multigpu.hardware import Host
from multigpu.labels import cards, counted, label, rounded, spread
from multigpu.memory import headroom_tokens
from multigpu.plan import (
    Candidate,
    Estimate,
    ModelSpec,
    Objective,
    Plan,
    Prediction,
    Reason,
    Strategy,
    Wish,
    Workload,
)
from multigpu.ranking import (
    CLOSE,
    links_name,
    longest,
    missed,
    request_ms,
    requests_wait,
    service_cost,
)

UNSURE = 0.15
"""Predictions of one rig that differ by less may change places when both are measured."""
RANKED = ("ranked-lower", "close-second")
"""Rules of candidates that hold and lost to a better one."""


SIMPLE = {
    Strategy.SINGLE: Reason("single-card", "one card holds all of it: nothing crosses a link"),
    Strategy.REPLICAS: Reason("replicas", "every card holds a copy: nothing crosses a link"),
    Strategy.PIPELINE_PARALLEL: Reason(
        "pipeline-parallel", "little traffic, only at the borders of stages: links hardly matter"
    ),
    Strategy.LAYER_SPLIT: Reason(
        "layer-split", "little traffic, only at the borders between cards: links hardly matter"
    ),
    Strategy.TENSOR_SPLIT: Reason(
        "tensor-split", "every card works on every token; llama.cpp calls this mode experimental"
    ),
}


def strengths(chosen: Candidate, second: Candidate, host: Host, load: Workload) -> Iterator[Reason]:
    """What speaks for the first of the order: its numbers, and how it works."""
    objective = load.objective
    if objective is Objective.CONTEXT:
        found = f"one engine can cache {headroom_tokens(chosen):,} tokens, the most of all"
        yield Reason("context-largest-cache", found)
    elif service_cost(chosen, load) is not None:
        yield _fastest(chosen, load, second)
    else:
        found = f"no speed can be predicted ({_unknown(chosen)}): ranked by rules of thumb"
        hint = "measure the first two and compare"
        yield Reason("speed-unknown", found, None, hint)
    if objective is Objective.THROUGHPUT and chosen.replicas > 1:
        found = f"{chosen.replicas} engines, no traffic between them, each holds its share"
        yield Reason("throughput-engines", found)
    elif chosen.tensor_parallel_size > 1:
        n = chosen.tensor_parallel_size
        links = f"over {links_name(host, chosen.gpus[:n])}"
        yield Reason("tensor-parallel", f"each of {n} cards reads 1/{n} of the weights, {links}")
    else:
        yield SIMPLE[chosen.strategy]


def _fastest(chosen: Candidate, load: Workload, second: Candidate) -> Reason:
    """The first by its numbers; a tie that simplicity decided is called one."""
    found = speeds(chosen, load)
    mine, other = service_cost(chosen, load), service_cost(second, load)
    if missed(chosen, load):
        return Reason("nearest-to-bounds", f"{found}: the nearest to the bounds of all ways")
    if mine is not None and other is not None and mine > other:
        close = f"{label(second)} is at most {_percent(CLOSE)} faster, and this is simpler"
        return Reason("simplest-of-equals", f"{found}; {close}")
    return Reason("predicted-fastest", f"{found}, the best of all ways")


def speeds(candidate: Candidate, load: Workload) -> str:
    """`737 tok/s (560 to 940) for 64 requests`; for one request decode speed and first token."""
    predicted = candidate.predicted or Prediction()
    if load.objective is Objective.THROUGHPUT and predicted.decode_tokens_per_s is not None:
        requests = counted(load.concurrency, "request")
        return f"{span(predicted.decode_tokens_per_s)} tok/s for {requests}"
    parts = []
    if predicted.tpot_ms is not None:
        parts.append(f"decode {span(per_second(predicted.tpot_ms))} tok/s")
    if predicted.ttft_ms is not None:
        parts.append(f"first token after {rounded(predicted.ttft_ms.value)} ms")
    return ", ".join(parts)


def per_second(tpot_ms: Estimate) -> Estimate:
    """Tokens per second of one request."""
    return Estimate(1000 / tpot_ms.value, 1000 / tpot_ms.high, 1000 / tpot_ms.low)


def span(estimate: Estimate) -> str:
    """`41 (30 to 50)`, and the value alone where the range is empty."""
    text = rounded(estimate.value)
    return text if estimate.low == estimate.high else f"{text} ({spread(estimate)})"


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


@dataclass(frozen=True)
class Contest:
    """The chosen candidate with all that its rivals are compared by, computed once."""

    chosen: Candidate
    host: Host
    model: ModelSpec
    wish: Wish
    load: Workload

    @cached_property
    def needed(self) -> str:
        """What a rival would have had to beat."""
        return f"{self.load.objective}: {label(self.chosen)}"

    @cached_property
    def cost(self) -> float | None:
        """What the objective wants small, of the chosen one."""
        return service_cost(self.chosen, self.load)

    @cached_property
    def missed(self) -> float:
        """How far the chosen one exceeds the bounds."""
        return missed(self.chosen, self.load)

    @cached_property
    def waits(self) -> bool:
        """True when even the chosen one lets requests wait."""
        return requests_wait(self.chosen, self.wish, self.load)

    def lost(self, rival: Candidate) -> Reason:
        """Why a candidate that holds was not chosen."""
        found, close = self._weakness(rival)
        if close:
            hint = f"measure both; pin strategy = '{rival.strategy}' to have it"
            return Reason("close-second", found, self.needed, hint)
        return Reason(
            "ranked-lower", found, self.needed, f"pin strategy = '{rival.strategy}' to have it"
        )

    def _weakness(self, rival: Candidate) -> tuple[str, bool]:
        """What speaks against it, and whether predictions can hardly tell the two apart."""
        ours = service_cost(rival, self.load)
        if self.cost is None:
            return _by_thumb(rival, self.chosen, self.host, self.model, self.load.objective), False
        if ours is None:
            return f"its speed cannot be predicted ({_unknown(rival)})", False
        over = missed(rival, self.load)
        if over > self.missed and over:
            return _bound(rival, self.load), over < self.missed * (1 + UNSURE)
        if self.load.objective is not Objective.THROUGHPUT:
            short = self._short(rival)
            if short is not None:
                return short, False
        return _slower(rival, self.chosen, self.load), ours < self.cost * (1 + UNSURE)

    def _short(self, rival: Candidate) -> str | None:
        """Too small a cache, for the requests at a time or for the longest context."""
        if not self.waits and requests_wait(rival, self.wish, self.load):
            held = f"one engine caches {rival.kv_tokens or 0:,} tokens"
            return f"{held}: of {self.load.concurrency} requests some wait"
        if self.load.objective is Objective.CONTEXT:
            ours, theirs = (longest(c, self.model, self.load) for c in (rival, self.chosen))
            if tiers.steps(ours) < tiers.steps(theirs):
                return f"the longest request has {ours:,} tokens against {theirs:,}"
            ours, theirs = headroom_tokens(rival), headroom_tokens(self.chosen)
            if tiers.steps(ours) < tiers.steps(theirs):
                return f"one engine caches {ours:,} tokens against {theirs:,}"
        return None


def considered(plan: Plan) -> tuple[Candidate, ...]:
    """All candidates that hold, best first: the chosen one, and those that only rank lower."""
    lower = (
        item.candidate
        for item in plan.rejected
        if all(reason.rule in RANKED for reason in item.reasons)
    )
    return (plan.chosen, *lower)


def _unknown(candidate: Candidate) -> str:
    return "; ".join((candidate.predicted or Prediction()).unknown) or "no basis"


def _bound(candidate: Candidate, load: Workload) -> str:
    """The bound that is exceeded most."""
    predicted = candidate.predicted or Prediction()
    rows = [
        (found.value / bound, f"{name} {span(found)} ms exceeds the bound of {rounded(bound)}")
        for name, found, bound in (
            ("tpot", predicted.tpot_ms, load.tpot_ms),
            ("ttft", predicted.ttft_ms, load.ttft_ms),
        )
        if found is not None and bound
    ]
    return max(rows)[1]


def _slower(candidate: Candidate, chosen: Candidate, load: Workload) -> str:
    """`decode 41 tok/s (30 to 50) against 69 (55 to 84)`, and the first token where it differs."""
    ours, theirs = candidate.predicted or Prediction(), chosen.predicted or Prediction()
    if load.objective is Objective.THROUGHPUT:
        a, b = ours.decode_tokens_per_s, theirs.decode_tokens_per_s
        return f"{span(a)} tok/s against {span(b)}" if a and b else "slower"
    parts = []
    if ours.tpot_ms and theirs.tpot_ms:
        a, b = per_second(ours.tpot_ms), per_second(theirs.tpot_ms)
        parts.append(f"decode {span(a)} tok/s against {span(b)}")
    if ours.ttft_ms and theirs.ttft_ms and _differ(ours.ttft_ms.value, theirs.ttft_ms.value):
        a, b = ours.ttft_ms, theirs.ttft_ms
        parts.append(f"first token after {rounded(a.value)} ms against {rounded(b.value)}")
    mine, other = request_ms(candidate, load), request_ms(chosen, load)
    if mine is not None and other is not None and mine < other:
        parts.append("more to go wrong for so little")
    return ", ".join(parts)


def _differ(a: float, b: float) -> bool:
    return abs(a - b) > CLOSE * max(a, b)


def _by_thumb(
    candidate: Candidate, chosen: Candidate, host: Host, model: ModelSpec, objective: Objective
) -> str:
    """Without speeds: the rule of thumb that put it behind."""
    if objective is Objective.CONTEXT:
        ours, theirs = headroom_tokens(candidate), headroom_tokens(chosen)
        if ours < theirs:
            return f"one engine caches {ours:,} tokens against {theirs:,}"
    if objective is Objective.THROUGHPUT and candidate.replicas < chosen.replicas:
        return f"engines: {candidate.replicas} against {chosen.replicas}"
    if candidate.strategy in tiers.IN_TURN:
        return "for one request the cards work in turn: it adds memory, not speed"
    if tiers.across(candidate, host):
        return f"{cards(candidate.gpus)} differ in architecture: the slower one sets the pace"
    ours, theirs = candidate.tensor_parallel_size, chosen.tensor_parallel_size
    if ours > theirs:
        return _all_reduces(candidate, model)
    if ours < theirs:
        share = f"a card reads 1/{ours} of the" if ours > 1 else "one card reads all"
        return f"{share} weights per token"
    if len(candidate.gpus) > len(chosen.gpus):
        return "more cards do not make one request faster"
    return f"{cards(candidate.gpus)}: smaller, older or fewer cards"


def _all_reduces(candidate: Candidate, model: ModelSpec) -> str:
    n = tiers.ALL_REDUCES_PER_BLOCK * model.num_hidden_layers
    saved = tiers.active_gib(model) * (1 - 1 / candidate.tensor_parallel_size)
    return f"{n} all-reduces per token cost more than {saved:.1f} GiB less to read saves"
