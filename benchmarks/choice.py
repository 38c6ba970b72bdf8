"""Which way of serving would have been chosen, and what that costs against the best measured one.

    python -m benchmarks.choice [--all]

Arms are ways of serving that were measured on one rig with one model and one workload. Questions
are: the shortest request (latency), the most output tokens per second of the rig (throughput), and
the same under a bound on the time per output token, where some arms meet it and others do not. For
throughput an arm on a part of the cards is repeated over the others, and replicas are taken to be
linear, each with the row's own concurrency (planning.md, section 3). Regret is the share lost
against the best arm; an arm that misses the bound loses all.

The planner's own ranking (`multigpu.choice.ranking.order`) chooses by predictions; cross-validated
ones use constants that were fitted without the rig in question. The fixed rules are those of other
tools: all cards in one tensor parallel group, the smallest group repeated, the fewest cards, and
llama.cpp's default (layers over all cards).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from statistics import mean

from benchmarks.decode_speed import OTHERS, shipped
from benchmarks.figure import Figure
from benchmarks.fitting import Constants, fit
from benchmarks.groundtruth import Group, Row, groups, usable_rows
from multigpu.choice import ranking
from multigpu.choice.losers import UNSURE
from multigpu.groups import bonded
from multigpu.hardware import Host
from multigpu.plan import (
    Candidate,
    Estimate,
    ModelSpec,
    Objective,
    Prediction,
    Strategy,
    Wish,
    Workload,
)
from multigpu.speed.service import rates

BOUNDS_MS = (10.0, 20.0, 40.0, 80.0)
GOAL_REGRET, GOAL_BEST = 5.0, 80.0
Predict = Callable[[Candidate, Host, ModelSpec, Workload], Prediction]


@dataclass(frozen=True)
class Arm:
    """One measured way, `copies` times on the rig; `rate` is tokens/s of all copies."""

    candidate: Candidate
    host: Host
    load: Workload
    copies: int
    rate: float
    request_ms: float
    tpot_ms: float | None

    @property
    def gpus(self) -> int:
        """Cards in use."""
        return len(self.candidate.gpus) * self.copies

    @property
    def way(self) -> tuple[int, int, int, Strategy]:
        """What makes two rows the same way of serving."""
        one = self.candidate
        sizes = (one.tensor_parallel_size, one.pipeline_parallel_size)
        split = one.strategy if one.replicas == 1 and self.copies == 1 else Strategy.REPLICAS
        return (*sizes, one.replicas * self.copies, split)

    @property
    def label(self) -> str:
        """`4 x TP2`, `PP8`, `layer_split`."""
        one, count = self.candidate, self.candidate.replicas * self.copies
        name = f"TP{one.tensor_parallel_size}"
        if one.pipeline_parallel_size > 1:
            name = f"PP{one.pipeline_parallel_size}"
        if one.strategy in (Strategy.LAYER_SPLIT, Strategy.TENSOR_SPLIT):
            name = str(one.strategy)
        return f"{count} x {name}" if count > 1 else name


@dataclass(frozen=True)
class Question:
    """One choice to make. `load` carries the objective and the bound."""

    group: Group
    name: str
    load: Workload
    arms: tuple[Arm, ...]

    def value(self, arm: Arm) -> float:
        """What the arm is worth by measurement: requests or tokens per second, 0 beyond a bound."""
        bound = self.load.tpot_ms
        if bound is not None and (arm.tpot_ms is None or arm.tpot_ms > bound):
            return 0.0
        return 1 / arm.request_ms if self.load.objective is Objective.LATENCY else arm.rate

    def regret(self, arm: Arm) -> float:
        """The share that is lost with this arm."""
        return 1 - self.value(arm) / max(self.value(other) for other in self.arms)


def questions() -> Iterator[Question]:
    """Every question that the table answers and whose answer is not the same for all arms."""
    for group in groups():
        arms = [arm for row in group.rows if (arm := _arm(row)) is not None]
        latency = replace(group.load, objective=Objective.LATENCY)
        throughput = replace(group.load, objective=Objective.THROUGHPUT)
        repeated = _distinct([_repeated(arm, len(group.host.gpus)) for arm in arms])
        yield from _asked(group, "latency", latency, _distinct(arms))
        yield from _asked(group, "throughput", throughput, repeated)
        for bound in BOUNDS_MS:
            if any(a.tpot_ms is None for a in repeated) or not _parts(repeated, bound):
                continue
            load = replace(throughput, tpot_ms=bound)
            yield from _asked(group, f"tpot <= {bound:.0f} ms", load, repeated)


def _asked(group: Group, name: str, load: Workload, arms: Sequence[Arm]) -> Iterator[Question]:
    if len(arms) > 1:
        yield Question(group, name, load, tuple(arms))


def _parts(arms: Sequence[Arm], bound: float) -> bool:
    """True where some arms meet the bound and others miss it."""
    return 0 < sum((arm.tpot_ms or 0) <= bound for arm in arms) < len(arms)


def _arm(row: Row) -> Arm | None:
    rate, load = row.measured.decode_tokens_per_s, row.load
    if row.candidate is None or row.host is None or load is None or not rate:
        return None
    request = 1000 * load.concurrency * load.output_tokens / rate
    return Arm(row.candidate, row.host, load, 1, rate, request, row.measured.tpot_ms)


def _repeated(arm: Arm, cards: int) -> Arm:
    copies = max(1, cards // len(arm.candidate.gpus))
    return replace(arm, copies=copies, rate=arm.rate * copies)


def _distinct(arms: Sequence[Arm]) -> list[Arm]:
    """One arm a way: measured as a whole before repeated ones, and the best sitting of equals."""
    found: dict[object, Arm] = {}
    for arm in sorted(arms, key=lambda a: (a.copies, -a.rate)):
        found.setdefault(arm.way, arm)
    return list(found.values())


def ours(question: Question, speed: Predict) -> Arm:
    """The arm that the planner's ranking puts first."""
    wish = Wish("choice", question.group.model.name, objective=question.load.objective)
    ways = timed(question, speed)
    first = ranking.order(ways, question.group.host, question.group.model, wish, question.load)[0]
    return next(a for a, c in zip(question.arms, ways, strict=True) if c is first)


def timed(question: Question, speed: Predict | None = None) -> list[Candidate]:
    """The arms as candidates with their predicted speeds; by the package's constants, if none."""
    return [_timed(arm, question.group, speed or _with(shipped())) for arm in question.arms]


def _timed(arm: Arm, group: Group, speed: Predict) -> Candidate:
    """The arm's engine predicted at its own load; its tokens and requests times the copies."""
    found = speed(arm.candidate, arm.host, group.model, arm.load)
    rate = found.decode_tokens_per_s
    if rate is not None:
        whole = (rate.value * arm.copies, rate.low * arm.copies, rate.high * arm.copies)
        running = None if found.running is None else found.running * arm.copies
        found = replace(found, decode_tokens_per_s=Estimate(*whole), running=running)
    cards = tuple(range(arm.gpus))
    return replace(
        arm.candidate, gpus=cards, replicas=arm.candidate.replicas * arm.copies, predicted=found
    )


Rule = Callable[[Question], Arm | None]


def max_tp(question: Question) -> Arm:
    """One tensor parallel group over as many cards as there are."""
    return max(question.arms, key=lambda a: (a.candidate.tensor_parallel_size, a.gpus))


def min_tp(question: Question) -> Arm:
    """The smallest group, as often as the cards allow."""
    one = [
        (a.candidate.tensor_parallel_size * a.candidate.pipeline_parallel_size, -a.gpus)
        for a in question.arms
    ]
    return question.arms[one.index(min(one))]


def fewest(question: Question) -> Arm:
    """As few cards as hold the model, the others idle."""
    return min(question.arms, key=lambda a: (len(a.candidate.gpus), a.gpus))


def layers(question: Question) -> Arm | None:
    """llama.cpp's default where it was measured: layers over all cards, or stages of a pipeline."""
    kinds = (Strategy.LAYER_SPLIT, Strategy.PIPELINE_PARALLEL)
    return next((a for a in question.arms if a.candidate.strategy in kinds), None)


RULES: dict[str, Rule] = {
    "max TP": max_tp,
    "min TP": min_tp,
    "fewest GPUs": fewest,
    "layer split": layers,
}


@dataclass(frozen=True)
class Outcome:
    """What somebody chose for a question, None where the rule has nothing to choose."""

    question: Question
    arm: Arm | None

    @property
    def regret(self) -> float | None:
        """The share lost, None where nothing was chosen."""
        return None if self.arm is None else self.question.regret(self.arm)


def outcomes(choose: Rule) -> list[Outcome]:
    """The choice for every question."""
    return [Outcome(question, choose(question)) for question in asked()]


@cache
def asked() -> tuple[Question, ...]:
    """The questions, made once."""
    return tuple(questions())


def in_sample(question: Question) -> Arm:
    """With the constants of the package, which have seen the rig."""
    return ours(question, _with(shipped()))


def cross_validated(question: Question) -> Arm:
    """With constants that were fitted to all rigs but the question's."""
    return ours(question, _left_out(question.group.rows[0].rig))


@cache
def _left_out(rig: str) -> Predict:
    kept = [row for row in usable_rows() if row.rig != rig and row.runtime not in OTHERS]
    return _with(fit(kept))


def _with(constants: Constants) -> Predict:
    """The cost model with these constants; runtimes that are not served are taken for vLLM."""

    def speed(way: Candidate, host: Host, model: ModelSpec, load: Workload) -> Prediction:
        found = rates(way, host, model, load, constants.engines, constants.links)
        if found is None:
            return Prediction(unknown=("no GPU data",))
        rate, prefill = _exactly(found.decode_tokens_per_s), _exactly(found.prefill_tokens_per_s)
        first, each = _exactly(found.ttft_ms), _exactly(found.tpot_ms)
        return Prediction(rate, prefill, first, each, found.running)

    return speed


def _exactly(value: float) -> Estimate:
    return Estimate(value, value, value)


@dataclass(frozen=True)
class Miss:
    """A split and smaller engines on as many cards: how much the prediction favours the split.

    `favour` is the predicted ratio of their output over the measured one. `holds` where the smaller
    engines are predicted to hold all requests: `ranking.SURPLUS` is for those.
    """

    bonded: bool
    holds: bool
    favour: float


def split_misses() -> list[Miss]:
    """Every such pair of the questions for throughput, predicted without the rig."""
    found = []
    for question in asked():
        if question.name != "throughput":
            continue
        ways = timed(question, _left_out(question.group.rows[0].rig))
        arms = list(zip(question.arms, ways, strict=True))
        found += [_miss(question, split, apart) for split in arms for apart in arms]
    return [miss for miss in found if miss is not None]


def _miss(
    question: Question, split: tuple[Arm, Candidate], apart: tuple[Arm, Candidate]
) -> Miss | None:
    (arm, way), (smaller, copies) = split, apart
    size, load = ranking.engine_size(way), question.load
    if ranking.engine_size(copies) >= size or len(copies.gpus) < len(way.gpus):
        return None
    ours, theirs = (ranking.service_cost(one, load) for one in (way, copies))
    if ours is None or theirs is None:
        return None
    favour = theirs / ours * question.value(smaller) / question.value(arm)
    joined = bonded(question.group.host, way.gpus[:size])
    return Miss(joined, ranking.holds_all(copies, load), favour)


def swaps(unsure: float) -> tuple[int, int, int, int]:
    """Pairs of ways that predictions hold within `unsure`, and beyond it, and how many of each
    stand the other way round when measured; each question without a bound, without its rig.
    """
    counts = [0, 0, 0, 0]
    for question in asked():
        if question.load.tpot_ms is not None:
            continue
        ways = timed(question, _left_out(question.group.rows[0].rig))
        costs = [ranking.service_cost(way, question.load) for way in ways]
        for (a, x), (b, y) in combinations(zip(question.arms, costs, strict=True), 2):
            if x is None or y is None:
                continue
            beyond = 2 * (max(x, y) >= min(x, y) * (1 + unsure))
            counts[beyond] += 1
            counts[beyond + 1] += (x < y) != (question.value(a) > question.value(b))
    return counts[0], counts[1], counts[2], counts[3]


def _swaps_line(unsure: float) -> str:
    near, swapped, far, wrong = swaps(unsure)
    return (
        f"of {near} pairs within {unsure:.0%} {swapped} stand the other way round when measured, "
        f"of {far} beyond it {wrong}"
    )


def _surplus_line(misses: Sequence[Miss], linked: bool) -> str:
    """`PCIe: of 13 pairs ... the split is favoured by more than 50 % in 1, at most 72 %`."""
    some = [m.favour - 1 for m in misses if m.bonded is linked and m.holds]
    least = ranking.SURPLUS[linked]
    more = sum(over > least for over in some)
    name = "NVLink or XGMI" if linked else "PCIe"
    return (
        f"{name}: of {len(some)} pairs whose smaller engines hold all requests the split is "
        f"favoured by more than {least:.0%} in {more}, by {max(some, default=0):.0%} at most"
    )


def summary(found: Sequence[Outcome]) -> tuple[float, float, int]:
    """(mean regret in per cent, share of best choices in per cent, questions answered)."""
    regrets = [outcome.regret for outcome in found if outcome.regret is not None]
    if not regrets:
        return 0.0, 0.0, 0
    best = mean(regret < 1e-9 for regret in regrets)
    return 100 * mean(regrets), 100 * best, len(regrets)


def _line(question: Question, arm: Arm) -> str:
    """`throughput    4 x TP2 (best TP8)   12.3 %  rig · model · workload`."""
    best = max(question.arms, key=question.value)
    load = question.load
    work = f"{load.input_tokens}/{load.output_tokens} x{load.concurrency}"
    regret = f"{100 * question.regret(arm):5.1f} %"
    rig = question.group.rows[0].rig
    name = question.group.model.name.split("/")[-1]
    return (
        f"{question.name:13} {arm.label:12} best {best.label:12} {regret}  {rig} · {name} · {work}"
    )


CONSUMER = ("RTX", "R9700")
"""Cards that are no data-centre parts, in the names of rigs."""


def _consumer(outcome: Outcome) -> bool:
    return any(name in outcome.question.group.rows[0].rig for name in CONSUMER)


def _row(name: str, found: Sequence[Outcome]) -> str:
    """A line of the table: all questions, consumer cards, data-centre cards."""
    parts = [found, [o for o in found if _consumer(o)], [o for o in found if not _consumer(o)]]
    cells = []
    for part in parts:
        regret, best, count = summary(part)
        cells.append(f"{regret:6.1f} % {best:6.1f} % {count:4}")
    return f"{name:26} {' |'.join(cells)}"


def score() -> list[Figure]:
    """Mean regret and share of best choices, cross-validated by rig."""
    regret, best, count = summary(outcomes(cross_validated))
    if not count:
        return []
    return [
        Figure(
            "choice: mean regret, cross-validated by rig",
            regret,
            "%",
            f"<= {GOAL_REGRET:.0f}",
            regret <= GOAL_REGRET,
        ),
        Figure(
            f"choice: best way chosen, of {count} questions",
            best,
            "%",
            f">= {GOAL_BEST:.0f}",
            best >= GOAL_BEST,
        ),
    ]


def main(arguments: Sequence[str] = ()) -> int:
    """Print the table, and each question that was lost (`--all`: every one)."""
    if not asked():
        print("measurements.tsv is not there: nothing to choose")
        return 0
    ways: dict[str, Rule] = {"ours, rig left out": cross_validated, "ours, in sample": in_sample}
    head = f"{'regret':>8} {'best':>8} {'n':>4}"
    print(f"{'':26} {head} |{head} |{head}")
    print(f"{'':26} {'all':>22} |{'consumer':>22} |{'data centre':>22}")
    for name, choose in {**ways, **RULES}.items():
        print(_row(name, outcomes(choose)))
    print()
    misses = split_misses()
    for linked in ranking.SURPLUS:
        print(_surplus_line(misses, linked))
    print(_swaps_line(UNSURE))
    print()
    for outcome in outcomes(cross_validated):
        if outcome.arm is not None and ("--all" in arguments or outcome.regret):
            print(_line(outcome.question, outcome.arm))
    return int(not all(figure.ok for figure in score()))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
