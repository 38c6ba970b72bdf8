"""What speaks for the candidate that was chosen: its numbers, and how it works."""

from __future__ import annotations

from collections.abc import Iterator

from multigpu.choice import shared_prefix
from multigpu.choice.ranking import (
    CLOSE,
    engine_size,
    experimental,
    links_name,
    missed,
    service_cost,
    surplus,
)
from multigpu.hardware import Host
from multigpu.labels import label
from multigpu.memory import headroom_tokens
from multigpu.page.speed_text import speeds, unknown
from multigpu.plan import Candidate, Objective, Reason, Strategy, Workload

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


def strengths(
    chosen: Candidate, second: Candidate, host: Host, load: Workload, of: str = "all ways"
) -> Iterator[Reason]:
    """What speaks for the first of the order, `of` which ways: its numbers, and how it works."""
    objective = load.objective
    prefix = shared_prefix.reason(chosen, load)
    if prefix is not None:
        yield prefix
    if objective is Objective.CONTEXT:
        found = f"one engine can cache {headroom_tokens(chosen):,} tokens, the most of all"
        yield Reason("context-largest-cache", found)
    elif service_cost(chosen, load) is not None:
        yield _fastest(chosen, load, second, host, of)
    else:
        found = f"no speed can be predicted ({unknown(chosen)}): ranked by rules of thumb"
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


def _fastest(chosen: Candidate, load: Workload, second: Candidate, host: Host, of: str) -> Reason:
    """The first by its numbers; a tie that simplicity decided is called one."""
    found = speeds(chosen, load)
    mine, other = service_cost(chosen, load), service_cost(second, load)
    if missed(chosen, load):
        return Reason("nearest-to-bounds", f"{found}: the nearest to the bounds of {of}")
    tied = mine is not None and other is not None and other < mine <= other * (1 + 1.01 * CLOSE)
    if tied and not missed(second, load):
        close = f"{label(second)} is at most {_percent(CLOSE)} faster, and this is simpler"
        return Reason("simplest-of-equals", f"{found}; {close}")
    if mine is not None and other is not None and other < mine and not missed(second, load):
        if experimental(second):
            return _before_experiment(found, second, mine / other - 1)
        links = links_name(host, second.gpus[: engine_size(second)])
        miss = f"comparisons with a split over {links} miss by {_percent(surplus(second, host))}"
        more = f"{label(second)} is predicted {_percent(mine / other - 1)} faster, but {miss}"
        hint = f"copies fail one by one; measure both, or pin strategy = '{second.strategy}'"
        return Reason("copies-before-split", f"{found}; {more}", None, hint)
    return Reason("predicted-fastest", f"{found}, the best of {of}")


def _before_experiment(found: str, second: Candidate, gain: float) -> Reason:
    """The experimental mode of llama.cpp is predicted faster, but by too little."""
    more = f"{label(second)} is predicted {_percent(gain)} faster, but is experimental in llama.cpp"
    hint = f"measure both, or pin strategy = '{second.strategy}'"
    return Reason("proven-before-experimental", f"{found}; {more}", None, hint)


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")
