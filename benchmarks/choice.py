"""Which way of serving would have been chosen, and what that costs against the best measured one.

    python -m benchmarks.choice [--all]

The planner's own ranking (`multigpu.choice.ranking.order`) chooses by predictions; cross-validated
ones use constants that were fitted without the rig in question. Beside it stand the fixed rules of
other tools (choice_rules.py); the questions are in choice_questions.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import mean

from benchmarks.choice_questions import Arm, Question, asked
from benchmarks.choice_rules import RULES, Rule
from benchmarks.decode_speed import OTHERS, shipped
from benchmarks.figure import Figure
from benchmarks.fitting import Constants, fit
from benchmarks.groundtruth import Group, usable_rows
from multigpu.choice import ranking
from multigpu.hardware import Host
from multigpu.plan import (
    Candidate,
    Estimate,
    ModelSpec,
    Prediction,
    Wish,
    Workload,
)
from multigpu.speed.service import rates

GOAL_REGRET, GOAL_BEST = 5.0, 80.0
Predict = Callable[[Candidate, Host, ModelSpec, Workload], Prediction]


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
    for outcome in outcomes(cross_validated):
        if outcome.arm is not None and ("--all" in arguments or outcome.regret):
            print(_line(outcome.question, outcome.arm))
    return int(not all(figure.ok for figure in score()))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
