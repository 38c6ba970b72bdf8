"""Which way of serving would have been chosen, and what that costs against the best measured one.

    python -m benchmarks.choice [--all]

The planner's own ranking (`multigpu.choice.ranking.order`) chooses by predictions; cross-validated
ones use constants that were fitted without the rig in question. Beside it stand the fixed rules of
other tools (choice_rules.py); the questions are in choice_questions.py.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean

from benchmarks.choice_answers import cross_validated, in_sample, left_out, timed
from benchmarks.choice_questions import Arm, Question, asked
from benchmarks.choice_rules import RULES, Rule
from benchmarks.figure import Figure
from multigpu.choice import ranking
from multigpu.choice.losers import UNSURE
from multigpu.groups import bonded
from multigpu.plan import (
    Candidate,
)

GOAL_REGRET, GOAL_BEST = 5.0, 80.0


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
        ways = timed(question, left_out(question.group.rows[0].rig))
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
        ways = timed(question, left_out(question.group.rows[0].rig))
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
