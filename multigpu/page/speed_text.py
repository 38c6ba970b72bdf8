"""Predicted speeds in words, with their ranges."""

from __future__ import annotations

from functools import lru_cache

from multigpu.labels import counted, rounded
from multigpu.plan import Candidate, Estimate, Objective, Prediction, Workload


def speeds(candidate: Candidate, load: Workload) -> str:
    """`737 tok/s (560 to 940) for 64 requests`; for one request decode speed and first token."""
    predicted = candidate.predicted or Prediction()
    if load.objective is Objective.THROUGHPUT and predicted.decode_tokens_per_s is not None:
        requests = counted(load.concurrency, "request")
        return f"{span(predicted.decode_tokens_per_s)} tok/s for {requests}"
    parts = []
    if predicted.tpot_ms is not None:
        parts.append(f"decode {rate(predicted.tpot_ms)} tok/s{each(load)}")
    if predicted.ttft_ms is not None:
        parts.append(f"first token after {rounded(predicted.ttft_ms.value)} ms")
    return ", ".join(parts)


def each(load: Workload) -> str:
    """Told of one request's rate where the service answers several."""
    return " per request" if load.concurrency > 1 else ""


def rate(tpot_ms: Estimate) -> str:
    """The span of the tokens per second of one request."""
    return _span(1000 / tpot_ms.value, 1000 / tpot_ms.high, 1000 / tpot_ms.low)


def span(estimate: Estimate) -> str:
    """`41 (30 to 50)`, and the value alone where the range is empty."""
    return _span(estimate.value, estimate.low, estimate.high)


@lru_cache(maxsize=2048)
def _span(value: float, low: float, high: float) -> str:
    text = rounded(value)
    return text if low == high else f"{text} ({rounded(low)} to {rounded(high)})"


def unknown(candidate: Candidate) -> str:
    """Why its speed is not known."""
    return "; ".join((candidate.predicted or Prediction()).unknown) or "no basis"
