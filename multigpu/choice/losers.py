"""Why a candidate that holds was not chosen: the numbers.

Where speeds were predicted the reasons name them with their ranges; else they name the rule of
thumb of `multigpu.choice.tiers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from multigpu.choice import tiers
from multigpu.choice.most_requests import searched
from multigpu.choice.ranking import (
    CLOSE,
    engine_size,
    experimental,
    longest,
    missed,
    requests_wait,
    service_cost,
)
from multigpu.hardware import Host
from multigpu.labels import cards, counted, label, rounded
from multigpu.memory import headroom_tokens
from multigpu.page.speed_text import each, rate, span, unknown
from multigpu.plan import (
    Candidate,
    ModelSpec,
    Objective,
    Plan,
    Prediction,
    Reason,
    Wish,
    Workload,
)

UNSURE = 0.15
"""Predictions of one rig that differ by less may change places when both are measured: of 7 pairs
of measured ways within it 2 stand the other way round, of 130 pairs beyond it 8 (`swaps` of
benchmarks/choice.py, constants fitted without the rig)."""
RANKED = ("ranked-lower", "close-second")
"""Rules of candidates that hold and lost to a better one."""


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
        pin = f"strategy = '{rival.strategy}'"
        if rival.runtime != self.chosen.runtime and rival.strategy is self.chosen.strategy:
            pin = f"runtime = '{rival.runtime}'"
        if close:
            hint = f"measure both; pin {pin} to have it"
            return Reason("close-second", found, self.needed, hint)
        return Reason("ranked-lower", found, self.needed, f"pin {pin} to have it")

    def _weakness(self, rival: Candidate) -> tuple[str, bool]:
        """What speaks against it, and whether predictions can hardly tell the two apart."""
        ours = service_cost(rival, self.load)
        if self.cost is None:
            return _by_thumb(rival, self.chosen, self.host, self.model, self.load.objective), False
        if ours is None:
            return f"its speed cannot be predicted ({unknown(rival)})", False
        over = missed(rival, self.load)
        if over > self.missed and over:
            return _bound(rival, self.load), over < self.missed * (1 + UNSURE)
        if self.load.objective is not Objective.THROUGHPUT:
            short = self._short(rival)
            if short is not None:
                return short, False
        return self._slower(rival, ours), ours < self.cost * (1 + UNSURE)

    def _slower(self, rival: Candidate, cost: float) -> str:
        """`decode 41 tok/s (30 to 50) against 69 (55 to 84)`; the first token where it differs."""
        ours, theirs = rival.predicted or Prediction(), self.chosen.predicted or Prediction()
        if self.load.objective is Objective.THROUGHPUT:
            found = ours.decode_tokens_per_s
            if found is None:
                return "slower"
            surer = self._surer(rival, cost)
            return f"{span(found)} tok/s{self._own(ours)} against {self._rate}{surer}"
        parts = []
        if ours.tpot_ms:
            parts.append(f"decode {rate(ours.tpot_ms)} tok/s{self._each} against {self._rate}")
        if ours.ttft_ms and theirs.ttft_ms and _differ(ours.ttft_ms.value, theirs.ttft_ms.value):
            a, b = rounded(ours.ttft_ms.value), rounded(theirs.ttft_ms.value)
            parts.append(f"first token after {a} ms against {b}")
        if self.cost is not None and cost < self.cost:
            parts.append("too little for what is more to go wrong")
        return ", ".join(parts)

    def _own(self, ours: Prediction) -> str:
        """Its own number of requests, where bounds decide how many each way may run."""
        if not searched(self.wish, self.load) or ours.running in (None, self.load.concurrency):
            return ""
        return f" for {counted(ours.running or 0, 'request')} within the bounds"

    def _surer(self, rival: Candidate, cost: float) -> str:
        """What speaks against a rival that is faster by the numbers."""
        if self.cost is None or cost >= self.cost:
            return ""
        if experimental(rival):
            return ", too little to trust an experimental mode"
        smaller = engine_size(self.chosen) < engine_size(rival)
        return ", too little to trust a split" * smaller

    @cached_property
    def _rate(self) -> str:
        """The chosen one's tokens per second: of the service, or of one request."""
        predicted = self.chosen.predicted or Prediction()
        found = predicted.decode_tokens_per_s
        if self.load.objective is not Objective.THROUGHPUT:
            return rate(predicted.tpot_ms) if predicted.tpot_ms else "unknown"
        return span(found) if found else "unknown"

    @cached_property
    def _each(self) -> str:
        return each(self.load)

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
