"""How well decode speed is predicted, scored on rigs that the constants were not fitted on.

    python -m benchmarks.decode_speed [--rows] [--kept]

One rig after the other is left out, the constants are fitted to the rest, and the rig's rows are
predicted. `--kept` scores the constants in multigpu/speed as they are, `--rows` prints each row.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import mean, median

from benchmarks.figure import Figure
from benchmarks.fitting import Constants, fit, predicted
from benchmarks.groundtruth import Row, usable_rows
from multigpu.speed.constants import DECODE, LINKS, LLAMA_CPP, ROCM, TTFT, VLLM
from multigpu.speed.service import engine_name

# A runtime of the table that the planner does not serve: scored apart, never fitted.
OTHERS = ("trtllm",)
RANKED = 4


@dataclass(frozen=True)
class Scored:
    """One row and what was predicted of it without its rig."""

    row: Row
    decode_tokens_per_s: float
    prefill_tokens_per_s: float
    ttft_ms: float
    ttft_low_ms: float
    ttft_high_ms: float

    @property
    def error(self) -> float:
        """Predicted over measured decode speed, as a logarithm."""
        return log(self.decode_tokens_per_s / (self.row.measured.decode_tokens_per_s or 1.0))


def shipped() -> Constants:
    """The constants of multigpu/speed."""
    return Constants(VLLM, LLAMA_CPP, ROCM, LINKS)


def scored(rows: Sequence[Row], fitted: Constants | None = None) -> list[Scored]:
    """Every row predicted by constants that never saw its rig (or by the given ones)."""
    trained = [row for row in rows if row.runtime not in OTHERS]
    found = []
    for rig in sorted({row.rig for row in rows}):
        constants = fitted or fit([row for row in trained if row.rig != rig])
        for row in rows:
            if row.rig == rig and (rates := predicted(row, constants)) is not None:
                first = (rates.ttft_ms, rates.ttft_low_ms, rates.ttft_high_ms)
                values = (rates.decode_tokens_per_s, rates.prefill_tokens_per_s, *first)
                found.append(Scored(row, *values))
    return found


def median_error(some: Sequence[Scored]) -> float:
    """Median of |predicted / measured - 1|."""
    return median(abs(exp(one.error) - 1) for one in some)


def configurations(some: Sequence[Scored]) -> list[tuple[float, float]]:
    """(predicted, mean measured) per configuration: repeated measurements of one are one."""
    told: dict[tuple[str, ...], list[Scored]] = {}
    for one in some:
        row, way = one.row, one.row.candidate
        assert way and row.model
        sizes = (way.tensor_parallel_size, way.pipeline_parallel_size, way.replicas)
        key = (row.runtime, row.model.name, way.strategy, str(sizes), str(row.load))
        told.setdefault(key, []).append(one)
    return [
        (of[0].decode_tokens_per_s, mean(one.row.measured.decode_tokens_per_s or 0 for one in of))
        for of in told.values()
    ]


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float:
    """Spearman's rho between predicted and measured decode speed."""
    a = _ranks([predicted for predicted, _ in pairs])
    b = _ranks([measured for _, measured in pairs])
    ma, mb = mean(a), mean(b)
    shared = sum((x - ma) * (y - mb) for x, y in zip(a, b, strict=True))
    spread = sum((x - ma) ** 2 for x in a) * sum((y - mb) ** 2 for y in b)
    return float(shared / spread**0.5) if spread else 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks, equal values sharing the mean of theirs; a part in a hundred apart is equal."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] <= values[order[start]] * 1.000001:
            end += 1
        for i in order[start : end + 1]:
            ranks[i] = (start + end) / 2
        start = end + 1
    return ranks


def quantile(values: Sequence[float], share: float) -> float:
    """The value that a share of the values does not exceed (nearest rank)."""
    order = sorted(values)
    return order[min(len(order) - 1, max(0, round(share * (len(order) - 1))))]


def ranks(found: Sequence[Scored]) -> dict[str, float]:
    """Rank correlation of every machine with enough configurations."""
    told = {}
    for rig, some in _by_rig(found).items():
        pairs = configurations([one for one in some if one.row.machine is not None])
        if len(pairs) >= RANKED:
            told[rig] = rank_correlation(pairs)
    return told


def _by_rig(found: Sequence[Scored]) -> dict[str, list[Scored]]:
    told: dict[str, list[Scored]] = {}
    for one in sorted(found, key=lambda one: (one.row.rig, one.row.n)):
        told.setdefault(one.row.rig, []).append(one)
    return told


def covered(found: Sequence[Scored]) -> float:
    """The share of rows whose measured speed lies in the range that a plan would state."""
    inside = 0
    for one in found:
        way, host = one.row.candidate, one.row.host
        assert way and host
        spread = DECODE[engine_name(way, host.gpus[0].vendor == "amd")]
        inside += spread.low <= exp(-one.error) <= spread.high
    return inside / len(found)


def first_covered(found: Sequence[Scored]) -> float:
    """The same of times to the first token."""
    timed = [(one, one.row.measured.ttft_ms) for one in found if one.row.measured.ttft_ms]
    inside = sum(
        one.ttft_low_ms * TTFT.low <= was <= one.ttft_high_ms * TTFT.high for one, was in timed
    )
    return inside / max(1, len(timed))


def report(found: Sequence[Scored], show: bool) -> None:
    """Per rig and per runtime, every row where asked for."""
    ranked = ranks(found)
    print(f"{'rig (left out of the fit)':44} {'rows':>4} {'median':>7} {'rank':>6}")
    for rig, some in _by_rig(found).items():
        text = f"{ranked[rig]:6.2f}" if rig in ranked else "     -"
        print(f"{rig:44.44} {len(some):4} {median_error(some):7.1%} {text}")
        if show:
            for one in some:
                _print_row(one)
    for name in sorted({one.row.runtime for one in found}):
        some = [one for one in found if one.row.runtime == name]
        low, high = (exp(quantile([one.error for one in some], q)) for q in (0.1, 0.9))
        error = median_error(some)
        print(f"{name:10} {len(some):4} rows, median {error:.1%}, 80 % in {low:.2f}-{high:.2f}")


def figures(found: Sequence[Scored]) -> list[Figure]:
    """The goals, and what has none; runtimes that the planner does not serve are left out."""
    ours = [one for one in found if one.row.runtime not in OTHERS]
    ranked = list(ranks(ours).values())
    error, rank = 100 * median_error(ours), mean(ranked)
    return [
        Figure(f"decode: median error, {len(ours)} rows", error, "%", "<= 20", error <= 20),
        Figure(f"decode: mean rank, {len(ranked)} rigs", rank, "", ">= 0.9", rank >= 0.9),
        Figure("decode: rigs with rank >= 0.9", sum(r >= 0.9 for r in ranked), "", "", True),
        Figure("decode: measured within the range", 100 * covered(ours), "%", "", True),
        *_others(ours),
        Figure("time to first token: within the range", 100 * first_covered(ours), "%", "", True),
    ]


def _others(found: Sequence[Scored]) -> list[Figure]:
    prompts = [
        (one.prefill_tokens_per_s, one.row.measured.prefill_tokens_per_s)
        for one in found
        if one.row.measured.prefill_tokens_per_s
    ]
    firsts = [(one.ttft_ms, one.row.measured.ttft_ms) for one in found if one.row.measured.ttft_ms]
    told = []
    for what, pairs in (("prefill", prompts), ("time to first token", firsts)):
        if pairs:
            error = 100 * median(abs(said / was - 1) for said, was in pairs)
            told.append(Figure(f"{what}: median error, {len(pairs)} rows", error, "%", "", True))
    return told


def score() -> list[Figure]:
    """For `make score`."""
    return figures(scored(usable_rows()))


def _print_row(one: Scored) -> None:
    row = one.row
    way, load = row.candidate, row.load
    assert way and load and row.model
    sizes = f"tp{way.tensor_parallel_size} pp{way.pipeline_parallel_size} x{way.replicas}"
    shape = f"{load.input_tokens}/{load.output_tokens} c{load.concurrency}"
    says = row.measured.decode_tokens_per_s or 0.0
    print(
        f"  {row.n:4} {row.runtime:9} {row.model.name[-34:]:34} {sizes:12} {shape:15}"
        f" {says:9.1f} {one.decode_tokens_per_s:9.1f} {exp(one.error):5.2f}"
    )


def main(arguments: Iterable[str]) -> int:
    """Print the score; 1 where a goal is missed."""
    given = set(arguments)
    found = scored(usable_rows(), shipped() if "--kept" in given else None)
    if not found:
        print("measurements.tsv is not there: nothing to score")
        return 0
    report(found, "--rows" in given)
    told = figures(found)
    for figure in told:
        print(f"{figure.name:44} {figure.value:8.3g} {figure.unit:2} {figure.goal}".rstrip())
    return int(any(not figure.ok for figure in told))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
