"""What the planner answers to a question of choice: its ranking over arms with predicted speeds.

Cross-validated answers use constants that were fitted without the rig in question.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from benchmarks.choice_questions import Arm, Question
from benchmarks.decode_speed import OTHERS, shipped
from benchmarks.fitting import Constants, fit
from benchmarks.groundtruth import Group, usable_rows
from multigpu.choice import ranking
from multigpu.hardware import Host
from multigpu.plan import Candidate, Estimate, ModelSpec, Prediction, Wish, Workload
from multigpu.speed.service import rates

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


def in_sample(question: Question) -> Arm:
    """With the constants of the package, which have seen the rig."""
    return ours(question, _with(shipped()))


def cross_validated(question: Question) -> Arm:
    """With constants that were fitted to all rigs but the question's."""
    return ours(question, left_out(question.group.rows[0].rig))


@cache
def left_out(rig: str) -> Predict:
    """The cost model fitted to all rigs but one."""
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
