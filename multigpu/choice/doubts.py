"""What to know of a plan's numbers: bounds nobody meets, models and cards not fully known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from multigpu.choice.ranking import missed
from multigpu.gpus.gpu_data import gpu_data
from multigpu.hardware import Host
from multigpu.labels import cards, counted, label, rounded
from multigpu.page.speed_text import span
from multigpu.plan import Candidate, Estimate, ModelSpec, Prediction, Reason, Workload

WEAK = 3.0
"""A range whose high end is that many times its low end says little."""

Predict = Callable[[Candidate, Workload], Prediction]
"""The speed of a candidate under another workload."""


def doubts(
    ways: Sequence[Candidate], host: Host, model: ModelSpec, load: Workload, predict: Predict
) -> Iterator[Reason]:
    """Warnings about the numbers of a plan; `ways` are all that hold, the chosen one first."""
    yield from bounds(ways, load, predict)
    if model.lower_bound:
        found = f"sizes of {model.name} are lower bounds: {'; '.join(model.lower_bound)}"
        hint = "leave memory free, and compare with what the engine reports at its start"
        yield Reason("model-lower-bound", found, None, hint)
    yield from _speeds(ways[0], host)


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


def bounds(ways: Sequence[Candidate], load: Workload, predict: Predict) -> Iterator[Reason]:
    """Bounds that even the nearest way misses, each with what would meet it."""
    predicted = ways[0].predicted or Prediction()
    rows = (
        ("tpot", predicted.tpot_ms, load.tpot_ms, _fewer_bits),
        ("ttft", predicted.ttft_ms, load.ttft_ms, _shorter_prompts),
    )
    for name, found, bound, otherwise in rows:
        if found is None or bound is None or found.value <= bound:
            continue
        needed = f"at most {rounded(bound)} ms"
        text = f"{name} is {span(found)} ms and the bound {rounded(bound)} ms: no way meets it"
        met = _fewer_requests(name, ways, load, predict)
        yield Reason("bound-missed", text, needed, met or otherwise(ways, load, predict))


def _fewer_requests(
    name: str, ways: Sequence[Candidate], load: Workload, predict: Predict
) -> str | None:
    """The largest halving of the concurrency at which a way meets both bounds."""
    concurrency = load.concurrency
    while concurrency > 1:
        concurrency //= 2
        fewer = replace(load, concurrency=concurrency)
        for way in ways:
            timed = replace(way, predicted=predict(way, fewer))
            found = _value(name, timed.predicted)
            if found is not None and not missed(timed, fewer):
                at = counted(concurrency, "request")
                time = f"{name} is {rounded(found.value)} ms with {label(way)}"
                return f"at {at} at a time {time}; or take faster cards"
    return None


def _value(name: str, predicted: Prediction | None) -> Estimate | None:
    if predicted is None:
        return None
    return predicted.tpot_ms if name == "tpot" else predicted.ttft_ms


def _fewer_bits(ways: Sequence[Candidate], load: Workload, predict: Predict) -> str:
    return "even one request at a time misses it: take fewer bits, a smaller model or faster cards"


def _shorter_prompts(ways: Sequence[Candidate], load: Workload, predict: Predict) -> str:
    """The largest halving of the prompt that meets the bound at one request."""
    tokens = load.input_tokens
    while tokens > 1:
        tokens //= 2
        found = predict(ways[0], replace(load, concurrency=1, input_tokens=tokens)).ttft_ms
        if found is not None and load.ttft_ms is not None and found.value <= load.ttft_ms:
            return f"one request of {tokens:,} prompt tokens takes {rounded(found.value)} ms"
    return "no prompt is short enough: take a smaller model or faster cards"
