"""The KV cache that is predicted for vLLM against what boots printed.

    python -m benchmarks.kv_cache

The first columns are what the planner says of a host that pins the release that ran
(`runtime_version`) and the row's own flags: the card, the model's config.json, TP, utilization and
context. `as run` adds the requests at a time that the publisher's script or the log tells, `own W`
replaces the predicted weights by the measured ones.
The constants for memory outside of torch were fitted on these rows, so the score is repeated with
each rig and each model left out of that fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import mean, median
from types import MappingProxyType

from benchmarks.figure import Figure
from benchmarks.memory_rows import MemoryRow, rows
from multigpu.errors import NoPlan
from multigpu.hardware import Vendor
from multigpu.plan import Candidate, Strategy, Wish
from multigpu.planner import plan
from multigpu.runtimes.vllm_memory import sized
from multigpu.runtimes.vllm_release import RENDERED, batched_tokens, release
from multigpu.runtimes.vllm_step import BATCH_FLAG

MEAN_GIB, P95_GIB, TOKENS_PERCENT = 0.4, 0.8, 5.0


@dataclass(frozen=True)
class Result:
    """A row and what was predicted for it, in GiB of one card; `fits` is the planner's verdict."""

    row: MemoryRow
    candidate: Candidate
    fits: bool
    as_run: Candidate

    @property
    def kv_gib(self) -> float:
        """The predicted cache of one card; what is left where not even one request fits."""
        return _kv_gib(self.candidate)

    @property
    def error(self) -> float:
        """GiB predicted too much."""
        return self.kv_gib - (self.row.kv_gib or 0.0)

    @property
    def own_weights(self) -> float:
        """The error had the weights been known."""
        return self.error + self.candidate.memory[0].weights_mib / 1024 - self._measured_weights

    @property
    def as_run_error(self) -> float:
        """The error had the release and the requests at a time been known."""
        return _kv_gib(self.as_run) - (self.row.kv_gib or 0.0)

    @property
    def tokens_percent(self) -> float | None:
        """Tokens predicted too much, of those printed, as the row's release counts them."""
        if self.row.kv_tokens is None:
            return None
        return 100 * (_tokens(self) / self.row.kv_tokens - 1)

    @property
    def _measured_weights(self) -> float:
        return self.row.weights_gib or self.candidate.memory[0].weights_mib / 1024


def _kv_gib(candidate: Candidate) -> float:
    held = min(candidate.memory, key=lambda m: m.capacity_mib - m.total_mib)
    return (held.kv_cache_mib + min(0.0, held.capacity_mib - held.total_mib)) / 1024


def _tokens(result: Result) -> float:
    """Releases before 0.21 counted a sliding layer at full length: tokens go with the memory."""
    row = result.row
    hybrid = any(layer.kind in ("sliding", "state") for layer in row.model.layers)
    if hybrid and row.kv_gib:
        return (row.kv_tokens or 0) * result.kv_gib / row.kv_gib
    return float(result.candidate.kv_tokens or 0)


def results() -> Iterator[Result]:
    """Every row through the planner's public path."""
    for row in rows():
        try:
            chosen, fits = plan(row.host, row.model, _wish(row)).chosen, True
        except NoPlan:
            chosen, fits = _way(row), False
        wish = replace(row.wish, flags=MappingProxyType(dict(row.as_run)))
        run = sized(_way(row), row.host, row.model, wish, release(row.version))
        yield Result(row, chosen, fits, run)


def _wish(row: MemoryRow) -> Wish:
    """The row's, of the release that ran; vLLM of an AMD card is the operator's own build."""
    amd = row.host.gpus[0].vendor is Vendor.AMD
    executable = "/opt/vllm/bin/vllm" if amd else None
    # No row states a batch: it ran with vLLM's own, and nothing smaller may be tried for it.
    flags = {BATCH_FLAG: str(batched_tokens(row.host.gpus[0], {}))}
    flagged = replace(row.wish, flags=MappingProxyType({**row.wish.flags, **flags}))
    return replace(flagged, runtime_version=row.version, executable=executable)


def _way(row: MemoryRow) -> Candidate:
    tp = row.wish.tensor_parallel_size or 1
    strategy = Strategy.TENSOR_PARALLEL if tp > 1 else Strategy.SINGLE
    way = Candidate("vllm", strategy, tuple(range(tp)), tensor_parallel_size=tp)
    return sized(way, row.host, row.model, _wish(row))


def _rendered(row: MemoryRow) -> Candidate:
    """What is said of the row when no release is pinned: that of 0.33, which holds more."""
    return sized(_way(row), row.host, row.model, row.wish, RENDERED)


def left_out(found: Sequence[Result], group: Callable[[Result], str]) -> list[float]:
    """Errors with the memory outside of torch fitted (median) on the other groups' cards.

    Cards of a vendor that only the group itself has keep the other vendors' correction.
    """
    errors = []
    for one in found:
        others = [r for r in found if group(r) != group(one)]
        alike = [r for r in others if _vendor(r) == _vendor(one)] or others
        errors.append(one.error - median(r.error for r in alike))
    return errors


def _vendor(result: Result) -> str:
    return str(result.row.host.gpus[0].vendor)


def p95(errors: Sequence[float]) -> float:
    """The 95th percentile of the magnitudes, interpolated."""
    ordered = sorted(abs(e) for e in errors)
    place = 0.95 * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def floor_gib(found: Sequence[Result]) -> float:
    """The mean error of the best prediction that knows what the rows state, release aside.

    Boots with equal cards, model and flags differ by release alone; one number is said for all.
    """
    groups: dict[tuple[object, ...], list[float]] = {}
    for r in found:
        wish = r.row.wish
        key = (r.row.rig, r.row.model.name, wish.tensor_parallel_size, wish.gpu_memory_utilization)
        groups.setdefault(key, []).append(r.row.kv_gib or 0.0)
    apart = [abs(kv - median(alike)) for alike in groups.values() for kv in alike]
    return mean(apart)


def score() -> list[Figure]:
    """The figures of `make score`."""
    found = list(results())
    measured = [r for r in found if r.row.starts]
    errors = [r.error for r in measured]
    tokens = [abs(t) for r in measured if (t := r.tokens_percent) is not None]
    later = [_kv_gib(_rendered(r.row)) - (r.row.kv_gib or 0.0) for r in measured]
    wrong = sum(1 for r in found if r.fits and not r.row.starts)
    refused = sum(1 for r in measured if not r.fits)
    return [
        _figure("mean absolute error", mean(map(abs, errors)), "GiB", MEAN_GIB),
        _figure("95th percentile", p95(errors), "GiB", P95_GIB),
        _figure("rows predicted to fit that did not", float(wrong), "", 0.0),
        _informs("rows", float(len(measured)), ""),
        _informs("rows refused that started", float(refused), ""),
        _informs("median error of tokens", median(tokens), "%"),
        _informs("median absolute error", median(map(abs, errors)), "GiB"),
        _informs("mean of the best guess without the release", floor_gib(measured), "GiB"),
        _informs("mean, as if the rendered release had run", mean(abs(e) for e in later), "GiB"),
        _informs("mean, weights known", mean(abs(r.own_weights) for r in measured), "GiB"),
        _informs(
            "mean, release and requests known", mean(abs(r.as_run_error) for r in measured), "GiB"
        ),
        _informs("mean, rig left out", mean(map(abs, left_out(measured, _rig))), "GiB"),
        _informs("mean, model left out", mean(map(abs, left_out(measured, _model))), "GiB"),
    ]


def _rig(result: Result) -> str:
    return result.row.rig


def _model(result: Result) -> str:
    return result.row.model.name


def _figure(name: str, value: float, unit: str, most: float) -> Figure:
    return Figure(f"kv_cache: {name}", value, unit, f"<= {most:g}", value <= most)


def _informs(name: str, value: float, unit: str) -> Figure:
    return Figure(f"kv_cache: {name}", value, unit, "", True)


def line(r: Result) -> str:
    """One row of the table."""
    card = re.sub(r"^(GeForce|Radeon AI PRO) ", "", r.row.host.gpus[0].name or "?")
    tp = r.row.wish.tensor_parallel_size
    start = f"{r.row.name[:10]:10} {tp}x {card:14.14} {r.row.model.name.split('/')[-1]:28.28}"
    if not r.row.starts:
        return f"{start} did not start; predicted {'to fit' if r.fits else 'not to fit'}"
    tokens = r.tokens_percent
    said = f"{tokens:+6.1f} %" if tokens is not None else "       -"
    verdict = "" if r.fits else "  refused"
    return (
        f"{start} {r.kv_gib:7.2f} {r.row.kv_gib or 0:7.2f} {r.error:+6.2f} {said}"
        f" {r.own_weights:+6.2f} {r.as_run_error:+6.2f}{verdict}"
    )


def main(arguments: Sequence[str] = ()) -> int:
    """The table and the score; 1 where a goal is missed."""
    print(f"{'row':10} {'cards':17} {'model':28} {'KV GiB':>7} {'found':>7} {'error':>6}", end="")
    print(f" {'tokens':>8} {'own W':>6} {'as run':>6}")
    for result in results():
        print(line(result))
    figures = score()
    for figure in figures:
        goal = f"   goal {figure.goal}" if figure.goal else ""
        print(f"{figure.name:52} {figure.value:8.3f} {figure.unit}{goal}")
    return 0 if all(figure.ok for figure in figures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
