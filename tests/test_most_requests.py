"""Throughput under a bound without a stated concurrency, and what pins cost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.choice.most_requests import STEPS, at_most, searched
from multigpu.gpus import what_if
from multigpu.plan import Candidate, Objective, Plan, Prediction, Strategy, Wish, Workload
from multigpu.planner import plan
from tests.machines import RTX_3090, hf, host
from tests.timed import copies, load, one, speed

HOST, MODEL = what_if.host("4x RTX 4090"), hf()
THROUGHPUT = Objective.THROUGHPUT


def made(**keys: Any) -> Plan:
    return plan(HOST, MODEL, Wish("chat", "m", objective=THROUGHPUT, **keys))


@given(st.floats(1, 200), st.floats(0.1, 20), st.sampled_from([one, copies]))
def test_the_most_requests_that_meet_the_bound_are_found_in_few_predictions(
    bound: float, each: float, make: Any
) -> None:
    asked = []

    def predict(way: Candidate, work: Workload) -> Prediction:
        asked.append(work.concurrency)
        return speed(each * work.concurrency / way.replicas, rate=100)

    way = make(None)
    found, timed = at_most(way, load(THROUGHPUT, tpot_ms=bound), predict)
    per_engine = found.concurrency // way.replicas
    assert timed.predicted == predict(way, found) and len(asked) <= 7
    assert per_engine == 1 or each * per_engine <= bound
    more = next((step for step in STEPS if step > per_engine), None)
    assert more is None or each * more > bound or each > bound


def test_the_plan_is_made_for_the_requests_that_meet_the_bound_and_says_so() -> None:
    tight, loose = made(tpot_ms=15.0), made(tpot_ms=60.0)
    for found, bound in ((tight, 15.0), (loose, 60.0)):
        assert found.chosen.predicted and found.chosen.predicted.tpot_ms
        assert found.chosen.predicted.tpot_ms.value <= bound
        assert found.chosen.predicted.running == found.workload.concurrency
        assert "the most that keep tpot within" in found.assumptions[0]
    assert tight.workload.concurrency < loose.workload.concurrency


def test_no_way_that_was_tried_gives_more_output_within_the_bound() -> None:
    found = made(tpot_ms=30.0)
    rates = [
        item.candidate.predicted.decode_tokens_per_s.value
        for item in found.rejected
        if item.candidate.predicted and item.candidate.predicted.decode_tokens_per_s
    ]
    mine = found.chosen.predicted and found.chosen.predicted.decode_tokens_per_s
    assert mine and rates and mine.value >= max(rates) / 1.5


@pytest.mark.parametrize(
    "keys", [{}, {"concurrency": 8, "tpot_ms": 30.0}, {"objective": Objective.LATENCY}]
)
def test_a_stated_concurrency_stands(keys: dict[str, Any]) -> None:
    wish = Wish("chat", "m", **{"objective": THROUGHPUT, **keys})
    assert not searched(wish, load(wish.objective, tpot_ms=wish.tpot_ms))


def test_a_pin_that_costs_much_is_told_what_it_costs() -> None:
    cards = host(RTX_3090, RTX_3090)
    free = plan(cards, MODEL, Wish("chat", "m"))
    assert free.chosen.strategy is Strategy.TENSOR_PARALLEL
    pinned = plan(cards, MODEL, Wish("chat", "m", strategy=Strategy.SINGLE))
    (cost,) = [reason for reason in pinned.warnings if reason.rule == "pin-costs"]
    assert "tensor parallel 2" in cost.found and "strategy" in (cost.hint or "")


def test_a_pin_of_what_would_be_chosen_anyway_costs_nothing() -> None:
    pinned = plan(
        host(RTX_3090, RTX_3090), MODEL, Wish("chat", "m", strategy=Strategy.TENSOR_PARALLEL)
    )
    assert not [reason for reason in pinned.warnings if reason.rule == "pin-costs"]


def test_one_card_is_not_called_too_small_where_one_holds_the_model() -> None:
    mixed = what_if.host("2x RTX 3090 + RTX 3060")
    found = plan(mixed, hf(), Wish("chat", "m"))
    assert "one-card-too-small" not in {reason.rule for reason in found.reasons}
