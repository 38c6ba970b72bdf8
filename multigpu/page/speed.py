"""Speeds of the chosen way, predicted or measured, with their ranges and what they rest on."""

from __future__ import annotations

from collections.abc import Iterator

from multigpu import labels
from multigpu.page.text import hanging, heading, labelled, table
from multigpu.plan import Estimate, Plan, Prediction, Workload

UNASKED = Prediction(unknown=("no speed was asked for",))


def section(plan: Plan) -> Iterator[str]:
    """A row per number, `unknown` with the reason where there is none."""
    found, load = plan.chosen.predicted or UNASKED, plan.workload
    word = "Measured" if found.measured else "Predicted"
    yield from heading(f"{word} at {_load(load)}")
    if not _known(found):
        yield from hanging("  ", f"speed unknown: {'; '.join(found.unknown) or 'no basis'}")
        return
    rows = [
        ("decode", "tokens/s", found.decode_tokens_per_s, None),
        ("prefill", "tokens/s", found.prefill_tokens_per_s, None),
        ("first token (TTFT)", "ms", found.ttft_ms, load.ttft_ms),
        ("each further (TPOT)", "ms", found.tpot_ms, load.tpot_ms),
    ]
    yield from table([("", "", "", ""), *(_row(*row) for row in rows)])[1:]
    yield from labelled("running", _running(found, load))
    yield from labelled("unknown", "; ".join(found.unknown))
    yield from labelled("basis", ("measured on this rig: " * found.measured) + found.basis)


def _known(found: Prediction) -> bool:
    numbers = (found.decode_tokens_per_s, found.prefill_tokens_per_s, found.ttft_ms, found.tpot_ms)
    return any(number is not None for number in numbers)


def _load(load: Workload) -> str:
    requests = labels.counted(load.concurrency, "request")
    return f"{requests} of {load.input_tokens:,} + {load.output_tokens:,} tokens"


def _row(
    name: str, unit: str, estimate: Estimate | None, bound: float | None
) -> tuple[str, str, str, str]:
    if estimate is None:
        return name, "unknown", "", ""
    value = f"{labels.rounded(estimate.value)} {unit}"
    if bound is None:
        return name, value, f"({labels.spread(estimate)})", ""
    verdict = "held" if estimate.value <= bound else "missed"
    return name, value, f"({labels.spread(estimate)})", f"<= {bound:g}: {verdict}"


def _running(found: Prediction, load: Workload) -> str:
    if found.running is None or found.running >= load.concurrency:
        return ""
    return f"{found.running:,} of {load.concurrency:,} requests at a time, the others wait"
