"""The order of candidates whose speed is not known: rules of thumb, tier by tier.

Latency wants the fewest milliseconds per token of one request, throughput the most engines, context
the largest KV cache of one engine. The cost figures only order candidates of the same host and
model; they are no predictions of speed and are never printed. `multigpu.choice.ranking` asks this
room where the cost model has no numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from math import floor, log

from multigpu.groups import bonded, capability_gap, slow
from multigpu.hardware import Host
from multigpu.memory import headroom_tokens
from multigpu.mix import Mix, mix
from multigpu.plan import Candidate, ModelSpec, Objective, Strategy

# Milliseconds to read one GiB of weights at 1 TB/s (RTX 3090, 4090): the order is the same on
# faster cards, where the all-reduces weigh a little more.
READ_MS_PER_GIB = 1.07
# One all-reduce of a decode step. NVLink and XGMI, two PCIe cards, more PCIe cards (vLLM's own
# kernel is off by design there), and paths across sockets or through four lanes.
NVLINK_MS, PCIE_PAIR_MS, PCIE_MANY_MS, SLOW_MS = 0.010, 0.020, 0.030, 0.050
ALL_REDUCES_PER_BLOCK = 2
IN_TURN = (Strategy.PIPELINE_PARALLEL, Strategy.LAYER_SPLIT)
"""Strategies whose cards work one after the other on one request."""
LLAMA_CPP = (Strategy.LAYER_SPLIT, Strategy.TENSOR_SPLIT)
"""Its default, and what it calls experimental: without a number nobody is sent there."""

Key = tuple[float, ...]


def order(
    candidates: list[Candidate], host: Host, model: ModelSpec, objective: Objective
) -> list[Candidate]:
    """Best first. Equal candidates keep the order in which they were proposed."""
    key = KEYS[objective]
    return sorted(candidates, key=lambda candidate: key(candidate, host, model))


def active_gib(model: ModelSpec) -> float:
    """Weights that one token reads: of the experts only those that it is routed to."""
    share = 1.0
    if model.num_experts and model.num_experts_per_tok:
        share = max(0.1, model.num_experts_per_tok / model.num_experts)
    return (sum(model.layers_mib) * share + model.output_mib) / 1024


def all_reduce_ms(candidate: Candidate, host: Host) -> float:
    """One all-reduce inside a tensor parallel team."""
    team = candidate.gpus[: candidate.tensor_parallel_size]
    if bonded(host, team):
        return NVLINK_MS
    if slow(host, team):
        return SLOW_MS
    return PCIE_PAIR_MS if len(team) == 2 else PCIE_MANY_MS


def step_cost(candidate: Candidate, host: Host, model: ModelSpec) -> float:
    """Reading the weights once and paying the all-reduces, for one token of one request."""
    tp = candidate.tensor_parallel_size
    cost = active_gib(model) * READ_MS_PER_GIB / tp
    if tp > 1:
        blocks = ALL_REDUCES_PER_BLOCK * model.num_hidden_layers
        cost += blocks * all_reduce_ms(candidate, host)
    return cost


def across(candidate: Candidate, host: Host) -> bool:
    """True for tensor parallel over cards of different architectures."""
    team = tuple(host.gpu(i) for i in candidate.gpus[: candidate.tensor_parallel_size])
    return len(team) > 1 and mix(team) is Mix.ARCHITECTURE


def newest(candidate: Candidate, host: Host) -> Key:
    """Newer and larger cards first, where all else is equal."""
    gpus = [host.gpu(index) for index in candidate.gpus]
    major, minor = min((g.compute_capability or (0, 0)) for g in gpus)
    return (-major, -minor, -min(g.memory_mib or 0 for g in gpus))


def latency(candidate: Candidate, host: Host, model: ModelSpec) -> Key:
    """Teams and single cards by the cost of a step; pipelines, wide gaps, experiments last."""
    tier = 0.0
    if candidate.strategy is Strategy.TENSOR_SPLIT:
        tier = 4.0
    elif candidate.strategy in IN_TURN:
        tier = 2.0
    elif across(candidate, host):
        tier = 3.0 if capability_gap(host, candidate.gpus) else 1.0
    cost = round(step_cost(candidate, host, model), 2)
    return (tier, cost, len(candidate.gpus), *newest(candidate, host))


def throughput(candidate: Candidate, host: Host, model: ModelSpec) -> Key:
    """As many engines as cards allow; of one engine over cards, TP on good links, else PP."""
    engines, tp = -float(candidate.replicas), candidate.tensor_parallel_size
    tier = {Strategy.REPLICAS: 0.0, Strategy.TENSOR_PARALLEL: 1.0, Strategy.PIPELINE_PARALLEL: 2.0}
    rank = tier.get(candidate.strategy, 3.0)
    if candidate.strategy is Strategy.TENSOR_PARALLEL and (
        across(candidate, host) or slow(host, candidate.gpus)
    ):
        rank = 2.5
    if candidate.strategy in LLAMA_CPP:
        rank = 4.0 + LLAMA_CPP.index(candidate.strategy)
    return (rank, engines, -len(candidate.gpus), tp, *newest(candidate, host))


def context(candidate: Candidate, host: Host, model: ModelSpec) -> Key:
    """The most KV tokens of one engine, in steps of 5 %; then as for latency."""
    experimental = candidate.strategy is Strategy.TENSOR_SPLIT
    room = steps(headroom_tokens(candidate))
    return (experimental, -room, *latency(candidate, host, model))


def steps(tokens: int) -> int:
    """Tokens in steps of 5 %, so that a page more or less is no difference."""
    return floor(log(max(tokens, 1)) / log(1.05))


KEYS: dict[Objective, Callable[[Candidate, Host, ModelSpec], Key]] = {
    Objective.LATENCY: latency,
    Objective.THROUGHPUT: throughput,
    Objective.CONTEXT: context,
}
