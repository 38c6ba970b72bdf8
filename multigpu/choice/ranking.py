"""Which of the candidates that hold is best for an objective, by their predicted speeds.

Latency is the time of one request of the workload, throughput the output tokens per second of the
whole service, context the longest request and the largest KV cache of one engine. Bounds come
first, then (where the operator stated a concurrency) holding all requests at once, then the
objective. Of candidates within `CLOSE` of the best the simplest is taken, of those that hold all
requests at once where one does: a prediction cannot tell them apart, and fewer cards and fewer
links are fewer things to fail. For throughput a split over
cards must beat smaller engines on as many cards by `SURPLUS`. Candidates without a predicted speed
follow in the order of `multigpu.choice.tiers`.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from multigpu.choice import shared_prefix, tiers
from multigpu.groups import bonded, slow
from multigpu.hardware import Host, Vendor
from multigpu.memory import headroom_tokens
from multigpu.plan import Candidate, ModelSpec, Objective, Strategy, Wish, Workload

CLOSE = 0.05
"""Predictions of one rig that differ by less are no difference: the simpler way wins."""

SURPLUS = {True: 0.15, False: 0.5}
"""How much faster a split must be predicted than smaller engines that hold all requests, over
NVLink or XGMI (True) and over PCIe. Copies of an engine scale with certainty; predictions favour
the split. By more than that they favour 0 of 45 pairs over NVLink or XGMI and 2 of 13 pairs over
PCIe (`split_misses` of benchmarks/choice.py, constants fitted without the rig)."""

EXPERIMENTAL = 0.2
"""How much faster llama.cpp's tensor split must be predicted than what is not experimental there.
Its decode of dense models is published as x1.30 to x1.58 of a layer split over two or four cards,
that of mixtures as x0.70 to x1.00, prompts as x0.35 to x1.42 (llama.cpp pull request 19378)."""

SIMPLICITY = {
    strategy: rank
    for rank, strategy in enumerate(
        (
            Strategy.SINGLE,
            Strategy.REPLICAS,
            Strategy.TENSOR_PARALLEL,
            Strategy.LAYER_SPLIT,
            Strategy.PIPELINE_PARALLEL,
            Strategy.TENSOR_PIPELINE_PARALLEL,
            Strategy.TENSOR_SPLIT,
        )
    )
}
"""Simplest first: nothing crosses a link; one team; stages; both; llama.cpp's experimental mode."""


class Standing(NamedTuple):
    """Where one candidate stands; smaller is better in every field.

    `missed` is 0 where the bounds hold, else how many times the worst bound is exceeded. `waits` is
    True when requests of the stated concurrency do not run at once. `room` orders contexts (0 for
    the other objectives), `cost` is milliseconds per request, or seconds per output token of the
    service.
    """

    missed: float
    waits: bool
    room: tuple[int, int]
    cost: float
    candidate: Candidate

    @property
    def key(self) -> tuple[float, bool, tuple[int, int], float]:
        """For sorting."""
        return self.missed, self.waits, self.room, self.cost


def order(
    candidates: list[Candidate], host: Host, model: ModelSpec, wish: Wish, load: Workload
) -> list[Candidate]:
    """Best first; of those that are close to the best the simplest leads."""
    known = sorted(
        (s for s in (standing(c, model, wish, load) for c in candidates) if s is not None),
        key=lambda s: s.key,
    )
    if not known:
        return tiers.order(candidates, host, model, load.objective)
    lead = min(
        (s for s in known if _close(s, known[0])),
        key=lambda s: (not holds_all(s.candidate, load), simplicity(s.candidate, host)),
    )
    lead = _proven(lead, known, load)
    if load.objective is Objective.THROUGHPUT:
        lead = _apart(lead, known, host, load)
    lead = shared_prefix.preferred(lead, known, load)
    return _led(lead.candidate, known, candidates, host, model, load)


def _led(
    lead: Candidate,
    known: list[Standing],
    candidates: list[Candidate],
    host: Host,
    model: ModelSpec,
    load: Workload,
) -> list[Candidate]:
    """The lead, the others by their standing, then those without a speed."""
    timed = [lead, *(s.candidate for s in known if s.candidate is not lead)]
    if len(timed) == len(candidates):
        return timed
    seen = {id(candidate) for candidate in timed}
    rest = [candidate for candidate in candidates if id(candidate) not in seen]
    return [*timed, *tiers.order(rest, host, model, load.objective)]


def experimental(candidate: Candidate) -> bool:
    """True for the mode that llama.cpp itself calls so."""
    return candidate.strategy is Strategy.TENSOR_SPLIT


def _proven(lead: Standing, known: list[Standing], load: Workload) -> Standing:
    """The best way that is not experimental, where that is not predicted to be clearly slower."""
    if not experimental(lead.candidate):
        return lead
    room = tiers.steps(round(100 * (1 + EXPERIMENTAL))) - tiers.steps(100)
    others = (
        s
        for s in known
        if not experimental(s.candidate)
        and s.cost <= lead.cost * (1 + EXPERIMENTAL)
        and s.missed <= lead.missed
        and s.waits <= lead.waits
        and all(a <= b + room for a, b in zip(s.room, lead.room, strict=True))
        and (holds_all(s.candidate, load) or not holds_all(lead.candidate, load))
    )
    return next(others, lead)


def _apart(lead: Standing, known: list[Standing], host: Host, load: Workload) -> Standing:
    """Smaller engines on as many cards, where a split is not predicted to be clearly faster."""
    size = engine_size(lead.candidate)
    if size == 1 or lead.missed:
        return lead
    most = lead.cost * (1 + surplus(lead.candidate, host))
    smaller = [
        s
        for s in known
        if s.cost <= most
        and not s.missed
        and engine_size(s.candidate) < size
        and len(s.candidate.gpus) >= len(lead.candidate.gpus)
        and holds_all(s.candidate, load)
    ]
    return min(smaller, key=lambda s: s.cost, default=lead)


def engine_size(candidate: Candidate) -> int:
    """Cards of one engine."""
    return len(candidate.gpus) // max(1, candidate.replicas)


def surplus(split: Candidate, host: Host) -> float:
    """How much faster a split must be predicted than smaller engines."""
    return SURPLUS[bonded(host, split.gpus[: engine_size(split)])]


def holds_all(candidate: Candidate, load: Workload) -> bool:
    """No request of the workload waits for memory."""
    running = candidate.predicted.running if candidate.predicted else None
    return running is None or running >= load.concurrency


def standing(candidate: Candidate, model: ModelSpec, wish: Wish, load: Workload) -> Standing | None:
    """Where a candidate stands, None when its speed is not known."""
    cost = service_cost(candidate, load)
    if cost is None:
        return None
    throughput = load.objective is Objective.THROUGHPUT
    waits = not throughput and requests_wait(candidate, wish, load)
    return Standing(missed(candidate, load), waits, _room(candidate, model, load), cost, candidate)


def service_cost(candidate: Candidate, load: Workload) -> float | None:
    """What the objective wants small, from the prediction; None when unknown."""
    if load.objective is Objective.THROUGHPUT:
        found = candidate.predicted and candidate.predicted.decode_tokens_per_s
        return 1 / found.value if found and found.value > 0 else None
    return request_ms(candidate, load)


def request_ms(candidate: Candidate, load: Workload) -> float | None:
    """Time of one request of the workload: the first token, then the others one by one.

    Where the time to the first token is not known, the decode time alone.
    """
    predicted = candidate.predicted
    if predicted is None or predicted.tpot_ms is None:
        return None
    first = predicted.ttft_ms.value if predicted.ttft_ms is not None else predicted.tpot_ms.value
    return first + (load.output_tokens - 1) * predicted.tpot_ms.value


def missed(candidate: Candidate, load: Workload) -> float:
    """How many times the worst bound is exceeded, 0.0 where all hold or their value is unknown."""
    predicted = candidate.predicted
    if predicted is None or (load.ttft_ms is None and load.tpot_ms is None):
        return 0.0
    pairs = ((predicted.ttft_ms, load.ttft_ms), (predicted.tpot_ms, load.tpot_ms))
    over = [found.value / bound for found, bound in pairs if found is not None and bound]
    worst = max(over, default=0.0)
    return worst if worst > 1.0 else 0.0


def requests_wait(candidate: Candidate, wish: Wish, load: Workload) -> bool:
    """True when one engine's share of a stated concurrency does not fit its cache at once.

    A request counts with the context where the operator stated it, else with its typical length,
    as the predicted number of running requests does.
    """
    if wish.concurrency is None or candidate.kv_tokens is None:
        return False
    if wish.context is None and candidate.predicted and candidate.predicted.running is not None:
        return not holds_all(candidate, load)
    share = ceil(load.concurrency / candidate.replicas)
    if wish.context is None:
        return candidate.kv_tokens < share * min(load.request_tokens, load.context)
    if candidate.kv_sequences is not None:
        return candidate.kv_sequences < share
    return candidate.kv_tokens < share * load.context


def _room(candidate: Candidate, model: ModelSpec, load: Workload) -> tuple[int, int]:
    """The longest request, at most the model's own limit, then the cache of one engine."""
    if load.objective is not Objective.CONTEXT:
        return 0, 0
    return -tiers.steps(longest(candidate, model, load)), -tiers.steps(headroom_tokens(candidate))


def longest(candidate: Candidate, model: ModelSpec, load: Workload) -> int:
    """Tokens of the longest request that fits, no more than the model or the wish can use."""
    tokens = candidate.context_limit or headroom_tokens(candidate)
    if model.max_position_embeddings is None:
        return tokens
    return min(tokens, max(model.max_position_embeddings, load.context))


def _close(other: Standing, best: Standing) -> bool:
    """Equal in all but the cost, or the excess over a bound nobody meets, which differ little."""
    if (other.waits, other.room) != (best.waits, best.room):
        return False
    if best.missed:
        return other.missed <= best.missed * (1 + CLOSE)
    return not other.missed and other.cost <= best.cost * (1 + CLOSE)


def simplicity(candidate: Candidate, host: Host) -> tuple[float, ...]:
    """Fewer cards, no team over slow links or unlike cards, the simpler strategy, vLLM, newer."""
    tp = candidate.tensor_parallel_size
    crossing = tp > 1 and (slow(host, candidate.gpus[:tp]) or tiers.across(candidate, host))
    return (
        len(candidate.gpus),
        crossing,
        SIMPLICITY[candidate.strategy],
        candidate.runtime != "vllm",
        *tiers.newest(candidate, host),
    )


def links_name(host: Host, team: tuple[int, ...]) -> str:
    """What carries the traffic of a team: NVLink, XGMI or PCIe."""
    if not bonded(host, team):
        return "PCIe"
    return "XGMI" if host.gpu(team[0]).vendor is Vendor.AMD else "NVLink"
