"""What to know of a plan's numbers: bounds nobody meets, models and cards not fully known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from multigpu.gpu_data import gpu_data
from multigpu.hardware import Host
from multigpu.labels import cards, counted, rounded
from multigpu.plan import Candidate, Estimate, ModelSpec, Prediction, Reason, Workload
from multigpu.speed_text import span

WEAK = 3.0
"""A range whose high end is that many times its low end says little."""

Predict = Callable[[Workload], Prediction]
"""The speed of the chosen candidate under another workload."""


def doubts(
    chosen: Candidate, host: Host, model: ModelSpec, load: Workload, predict: Predict
) -> Iterator[Reason]:
    """Warnings about the numbers of a plan."""
    yield from bounds(chosen, load, predict)
    if model.lower_bound:
        found = f"sizes of {model.name} are lower bounds: {'; '.join(model.lower_bound)}"
        hint = "leave memory free, and compare with what the engine reports at its start"
        yield Reason("model-lower-bound", found, None, hint)
    yield from _speeds(chosen, host)


def _speeds(chosen: Candidate, host: Host) -> Iterator[Reason]:
    predicted = chosen.predicted or Prediction()
    if predicted.tpot_ms is None:
        strange = [index for index in chosen.gpus if gpu_data(host.gpu(index)) is None]
        if strange:
            names = sorted({host.gpu(index).name or "a card without a name" for index in strange})
            found = f"{cards(strange)} ({', '.join(names)}): bandwidth and arithmetic are not known"
            hint = "measure: results of this rig replace predictions"
            yield Reason("gpu-unknown", found, None, hint)
        return
    rate = predicted.decode_tokens_per_s
    if rate is not None and rate.low > 0 and rate.high / rate.low > WEAK:
        found = f"decode is predicted as {span(rate)} tok/s: {predicted.basis or 'a wide range'}"
        hint = "measure before relying on it"
        yield Reason("prediction-weak", found, None, hint)


def bounds(chosen: Candidate, load: Workload, predict: Predict) -> Iterator[Reason]:
    """Bounds that even the nearest way misses, each with what would meet it."""
    predicted = chosen.predicted or Prediction()
    rows = (
        ("tpot", predicted.tpot_ms, load.tpot_ms, _fewer_bits),
        ("ttft", predicted.ttft_ms, load.ttft_ms, _shorter_prompts),
    )
    for name, found, bound, otherwise in rows:
        if found is None or bound is None or found.value <= bound:
            continue
        needed = f"at most {rounded(bound)} ms"
        text = f"{name} is {span(found)} ms and the bound {rounded(bound)} ms: no way meets it"
        hint = _fewer_requests(name, bound, load, predict) or otherwise(bound, load, predict)
        yield Reason("bound-missed", text, needed, hint)


def _value(name: str, predicted: Prediction) -> Estimate | None:
    return predicted.tpot_ms if name == "tpot" else predicted.ttft_ms


def _fewer_requests(name: str, bound: float, load: Workload, predict: Predict) -> str | None:
    """The largest halving of the concurrency that meets the bound."""
    concurrency = load.concurrency
    while concurrency > 1:
        concurrency //= 2
        found = _value(name, predict(replace(load, concurrency=concurrency)))
        if found is not None and found.value <= bound:
            at = counted(concurrency, "request")
            return f"with {at} at a time it is {rounded(found.value)} ms; or take faster cards"
    return None


def _fewer_bits(bound: float, load: Workload, predict: Predict) -> str:
    return "even one request at a time misses it: take fewer bits, a smaller model or faster cards"


def _shorter_prompts(bound: float, load: Workload, predict: Predict) -> str:
    """The largest halving of the prompt that meets the bound at one request."""
    tokens = load.input_tokens
    while tokens > 1:
        tokens //= 2
        found = predict(replace(load, concurrency=1, input_tokens=tokens)).ttft_ms
        if found is not None and found.value <= bound:
            return f"one request of {tokens:,} prompt tokens takes {rounded(found.value)} ms"
    return "no prompt is short enough: take a smaller model or faster cards"
