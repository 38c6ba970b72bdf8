"""What the numbers of a plan rest on, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from multigpu.choice.most_requests import searched
from multigpu.hardware import Host
from multigpu.labels import cards, counted, rounded
from multigpu.plan import Candidate, ModelSpec, Objective, Wish, Workload


def assumptions(
    chosen: Candidate, host: Host, model: ModelSpec, wish: Wish, load: Workload
) -> Iterator[str]:
    """The workload, the model's sizes, the cards as they were seen, and the basis of speeds."""
    yield _requests(wish, load)
    if load.shared_prefix_tokens:
        yield (
            f"{load.shared_prefix_tokens:,} tokens of every prompt are in the engine's cache "
            "already, as after the first request."
        )
    if wish.context is None:
        yield f"No context was wished: planned for {load.context:,} tokens."
    longest = chosen.max_model_len
    if chosen.kv_tokens is not None and longest is not None and chosen.kv_tokens < longest:
        yield (
            f"{chosen.kv_tokens:,} cached tokens hold a request of {longest:,}, because layers "
            "with a sliding window keep only the end of it."
        )
    sizes = "tensor headers or file sizes" if model.weights_exact else "the shapes in its config"
    yield f"Weights are sized by {sizes}."
    if any(memory.other_mib >= 1 for memory in chosen.memory):
        yield "Other programs keep on the cards what they held when the host was seen."
    team = chosen.gpus
    if len(team) // chosen.replicas > 1 and host.pair(team[0], team[1]) is None:
        yield f"How {cards(team)} are connected was not seen: taken as PCIe."
    if chosen.replicas > 1:
        yield "A balancer spreads requests evenly over the engines."
    predicted = chosen.predicted
    if predicted is not None and predicted.basis:
        kind = "Measured" if predicted.measured else "Speeds"
        yield f"{kind}: {predicted.basis.rstrip('.')}."


def _requests(wish: Wish, load: Workload) -> str:
    said = [wish.concurrency, wish.input_tokens, wish.output_tokens]
    text = (
        f"Speeds are for {counted(load.concurrency, 'request')} at a time of {load.input_tokens:,} "
        f"tokens in and {load.output_tokens:,} out"
    )
    if searched(wish, load):
        bounds = (("tpot", load.tpot_ms), ("ttft", load.ttft_ms))
        kept = " and ".join(f"{name} within {rounded(ms)} ms" for name, ms in bounds if ms)
        return f"{text}: the most that keep {kept} without waiting, as the wish says no number."
    if all(value is not None for value in said):
        return f"{text}."
    if all(value is None for value in said):
        return f"{text}, which the wish does not say."
    missing = [
        name
        for name, value in zip(("concurrency", "input", "output"), said, strict=True)
        if value is None
    ]
    also = " and ".join(missing)
    one_user = load.objective is not Objective.THROUGHPUT and wish.concurrency is None
    return f"{text}; the wish does not say the {also}{', so one user is meant' * one_user}."
