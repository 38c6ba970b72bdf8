"""Fitting the constants of multigpu/speed to rows: few parameters, robust, drawn to a prior.

Least squares of logarithms by Gauss-Newton with reweighting: a residual far out counts less. Every
constant has a prior (`PRIOR`), so that what the rows do not tell stays where it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from math import exp, log, sqrt

from benchmarks.groundtruth import Row
from multigpu.speed.constants import ROCM_LLAMA_CPP, Engine, Links, LlamaCpp, Slower
from multigpu.speed.service import Rates, rates

# Residuals below this are noise of one kind of machine; twice as far they begin to count less.
SIGMA = 0.15
# How far (in logarithms) a constant may lie from its prior at the cost of one SIGMA of one row.
LOOSE = 0.25
ROUNDS = 12


@dataclass(frozen=True)
class Constants:
    """Everything that is fitted."""

    vllm: Engine
    llama_cpp: LlamaCpp
    rocm: Slower
    links: Links

    @property
    def engines(self) -> dict[str, Engine]:
        """As `multigpu.speed.constants.ENGINES`."""
        return {
            "vllm": self.vllm,
            "llama.cpp": self.llama_cpp,
            "vllm-amd": self.rocm.engine(self.vllm),
            "llama.cpp-amd": ROCM_LLAMA_CPP.llama_cpp(self.llama_cpp),
        }


PRIOR = Constants(
    Engine(0.8, 0.6, 0.6, 0.6, 0.8, 0.6, 10.0, 40.0, 1000.0, 20.0),
    # llama.cpp pull requests 7860 and 7921: prompts of 8B models at 0.2 of int8 on 3090 and 4090.
    LlamaCpp(
        *(0.8, 0.7, 0.8, 0.45, 0.6, 0.5, 20.0, 20.0, 300.0, 50.0),
        *(75.0, 85.0, 1300.0, 150.0, 48.0),
    ),
    Slower(0.7, 0.5, 2.0),
    Links(10.0, 15.0, 30.0, 0.7, 0.4, 0.3, 30.0, 0.07),
)
# Shares of a data sheet cannot be reached in full.
MOST = 0.97
SHARES = {"bandwidth", "experts", "cache", "arithmetic", "routed", "nvlink", "peer", "staged"}


def predicted(row: Row, constants: Constants) -> Rates | None:
    """What the model says of a row under these constants."""
    assert row.candidate and row.host and row.model and row.load
    return rates(row.candidate, row.host, row.model, row.load, constants.engines, constants.links)


def vector(constants: Constants) -> list[float]:
    """All constants as logarithms, in the order of the fields."""
    return [log(value) for part in _parts(constants) for value in astuple(part)]


def constants(values: Sequence[float]) -> Constants:
    """The constants of a vector; shares are held below one."""
    rest = list(values)
    built = []
    for part in _parts(PRIOR):
        taken: dict[str, float] = {}
        for field in fields(part):
            value = exp(rest.pop(0))
            taken[field.name] = min(value, MOST) if field.name in SHARES else value
        built.append(type(part)(**taken))
    return Constants(*built)  # type: ignore[arg-type]


def names() -> list[str]:
    """Names of the vector's elements, `vllm.bandwidth`."""
    kinds = ("vllm", "llama_cpp", "rocm", "links")
    found = []
    for kind, part in zip(kinds, _parts(PRIOR), strict=True):
        found += [f"{kind}.{field.name}" for field in fields(part)]
    return found


def _parts(of: Constants) -> tuple[Engine | Slower | Links, ...]:
    return of.vllm, of.llama_cpp, of.rocm, of.links


def residuals(row: Row, found: Rates | None) -> list[float]:
    """Logarithms of predicted over measured: decode, and less heavy what prompts take.

    That is the prefill rate, or the time to the first token where no request waits for memory:
    beyond `ttft_low_ms` and `ttft_high_ms`, between which arrivals decide.
    """
    if found is None or row.measured.decode_tokens_per_s is None or row.load is None:
        return [0.0, 0.0]
    prefill, ttft = row.measured.prefill_tokens_per_s, row.measured.ttft_ms
    second = 0.0
    if prefill:
        second = 0.5 * log(found.prefill_tokens_per_s / prefill)
    elif ttft and found.running == row.load.concurrency:
        over = max(0.0, log(found.ttft_low_ms / ttft)) + min(0.0, log(found.ttft_high_ms / ttft))
        second = 0.25 * over
    return [log(found.decode_tokens_per_s / row.measured.decode_tokens_per_s), second]


def fit(rows: Sequence[Row]) -> Constants:
    """The constants that explain the rows; a rig's rows together weigh like the root of them."""
    counts = Counter(row.rig for row in rows)
    weights = [1.0 / sqrt(counts[row.rig]) for row in rows for _ in range(2)]
    prior = vector(PRIOR)

    def misses(values: list[float]) -> list[float]:
        now = constants(values)
        return [r for row in rows for r in residuals(row, predicted(row, now))]

    return constants(_gauss_newton(misses, weights, prior))


def _gauss_newton(
    misses: Callable[[list[float]], list[float]], weights: list[float], prior: list[float]
) -> list[float]:
    values, size = list(prior), len(prior)
    cost, damping = _cost(misses(values), weights, values, prior), 1e-2
    for _ in range(ROUNDS):
        here = misses(values)
        slopes = []
        for i in range(size):
            moved = list(values)
            moved[i] += 0.02
            slopes.append([(b - a) / 0.02 for a, b in zip(here, misses(moved), strict=True)])
        for _ in range(6):
            step = _step(here, slopes, weights, values, prior, damping)
            tried = [v + s for v, s in zip(values, step, strict=True)]
            new = _cost(misses(tried), weights, tried, prior)
            if new < cost:
                values, damping = tried, damping / 3
                break
            damping *= 4
        else:
            break
        if cost - new < 1e-4 * cost:
            break
        cost = new
    return values


def _cost(
    here: list[float], weights: list[float], values: list[float], prior: list[float]
) -> float:
    """Cauchy's loss of the residuals and the squares of the distances from the prior."""
    loss = sum(w * 4 * log(1 + (r / (2 * SIGMA)) ** 2) for r, w in zip(here, weights, strict=True))
    return loss + sum(((v - p) / LOOSE) ** 2 for v, p in zip(values, prior, strict=True))


def _step(
    here: list[float],
    slopes: list[list[float]],
    weights: list[float],
    values: list[float],
    prior: list[float],
    damping: float,
) -> list[float]:
    """The solution of the damped normal equations."""
    heavy = [
        w / (1 + (r / (2 * SIGMA)) ** 2) / SIGMA**2 for r, w in zip(here, weights, strict=True)
    ]
    size = len(values)
    matrix = [[0.0] * size for _ in range(size)]
    right = [0.0] * size
    for i in range(size):
        scaled = [h * s for h, s in zip(heavy, slopes[i], strict=True)]
        for j in range(i, size):
            product = sum(a * b for a, b in zip(scaled, slopes[j], strict=True))
            matrix[i][j] = matrix[j][i] = product
        right[i] = -sum(a * r for a, r in zip(scaled, here, strict=True))
        matrix[i][i] += 1 / LOOSE**2
        right[i] -= (values[i] - prior[i]) / LOOSE**2
    for i in range(size):
        matrix[i][i] *= 1 + damping
    return [max(-0.5, min(0.5, s)) for s in solve(matrix, right)]


def solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Gauss elimination with pivots."""
    size = len(right)
    rows = [[*line, value] for line, value in zip(matrix, right, strict=True)]
    for i in range(size):
        pivot = max(range(i, size), key=lambda k: abs(rows[k][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        for k in range(i + 1, size):
            factor = rows[k][i] / rows[i][i]
            if factor:
                rows[k] = [a - factor * b for a, b in zip(rows[k], rows[i], strict=True)]
    answer = [0.0] * size
    for i in reversed(range(size)):
        known = sum(rows[i][j] * answer[j] for j in range(i + 1, size))
        answer[i] = (rows[i][size] - known) / rows[i][i]
    return answer
