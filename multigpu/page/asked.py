"""What a plan is made for: the cards, the model, the wish with its defaults, the pins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from multigpu import labels
from multigpu.choice.most_requests import searched
from multigpu.gpus import what_if
from multigpu.page.text import labelled
from multigpu.plan import ModelSpec, Plan, Wish, Workload


def asked(plan: Plan) -> Iterator[str]:
    """Rows under the headline."""
    if plan.simulated:
        yield from labelled("simulated", "the GPUs of this host are simulated")
    if plan.host == what_if.NAME:
        yield from labelled("what-if", "a host to think of: nothing of it was seen")
    yield from labelled("cards", card_names(plan))
    yield from labelled("model", model(plan.model))
    yield from labelled("wish", wish(plan.wish, plan.workload))
    yield from labelled("pinned", pins(plan.wish, plan.pinned))


def card_names(plan: Plan) -> str:
    """`2 x RTX 3090 (GPU 0, 1)`; in the planned order where they differ."""
    names, gpus = plan.gpu_names, plan.chosen.gpus
    if not labels.models(names) or len(names) != len(gpus):
        return ""
    kinds: dict[str, list[int]] = {}
    for name, index in zip(names, gpus, strict=True):
        kinds.setdefault(labels.models([name]), []).append(index)
    return ", ".join(
        f"{len(found)} x {name} ({labels.cards(found)})"
        if len(found) > 1
        else f"{name} ({labels.cards(found)})"
        for name, found in kinds.items()
    )


def model(spec: ModelSpec) -> str:
    """`Qwen3-8B: qwen3, 8.2 B parameters, bfloat16, 36 blocks, 15.3 GiB of weights`."""
    count = spec.num_parameters
    parts = [
        spec.model_type,
        *([f"{labels.rounded(count / 1e9)} B parameters"] if count else []),
        spec.quantization or spec.dtype,
        labels.counted(spec.num_hidden_layers, "block"),
        f"{labels.size(spec.weights_mib)} of weights"
        + ("" if spec.weights_exact else " by its shapes"),
    ]
    missing = f"; a lower bound: {'; '.join(spec.lower_bound)}" if spec.lower_bound else ""
    return f"{spec.name}: {', '.join(parts)}{missing}"


def wish(wished: Wish, load: Workload) -> str:
    """The workload in a line; what the wish leaves open is marked as a default."""
    typical = wished.input_tokens, wished.output_tokens
    parts = [
        str(load.objective),
        f"context {load.context:,}{_default(wished.context)}",
        f"{labels.counted(load.concurrency, 'request')} at a time{_how_many(wished, load)}",
        f"each of {load.input_tokens:,} + {load.output_tokens:,} tokens"
        + (_default(None) if typical == (None, None) else "")
        + (f", {load.shared_prefix_tokens:,} shared" if load.shared_prefix_tokens else ""),
    ]
    bounds = {"TTFT": load.ttft_ms, "TPOT": load.tpot_ms}
    parts += [f"{name} at most {value:g} ms" for name, value in bounds.items() if value is not None]
    return ", ".join(parts)


def _how_many(wished: Wish, load: Workload) -> str:
    """Where the number of requests comes from."""
    return " (the bounds allow)" if searched(wished, load) else _default(wished.concurrency)


def _default(value: object) -> str:
    return " (default)" if value is None else ""


def pins(wished: Wish, keys: Iterable[str]) -> str:
    """`strategy single, gpus 0,1`; empty where nothing is pinned."""
    return ", ".join(pin(wished, key) for key in keys)


def pin(wished: Wish, key: str) -> str:
    """`gpus 0,1`; of flags and environment the names, which say enough and give away nothing."""
    value = getattr(wished, key)
    if isinstance(value, Mapping):
        return f"{key} {' '.join(value)}"
    if isinstance(value, tuple):
        return f"{key} {','.join(str(item) for item in value)}"
    return f"{key} {value}"
