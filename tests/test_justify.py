"""Does this model justify the second card? The verdict, its numbers, and what else would fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from multigpu.choice.could_carry import EFFECTIVE_BITS
from multigpu.choice.justify import WORTH, justify
from multigpu.hardware import Host
from multigpu.plan import (
    Candidate,
    Justification,
    Objective,
    Plan,
    Reason,
    Rejected,
    Wish,
)
from multigpu.planner import plan
from tests.machines import H100, R9700, RTX_3060, RTX_3090, dense, hf, host
from tests.timed import copies, load, one, speed, team

TWO, MODEL = host(RTX_3090, RTX_3090), hf()
LOWER = (Reason("ranked-lower", "slower"),)
NO_ROOM = (Reason("memory-fit", "GPU 0 needs 31.0 of 22.0 GiB"),)
PINNED = (Reason("pinned", "strategy single", "strategy tensor_parallel"),)


def made(
    chosen: Candidate,
    *rejected: tuple[Candidate, tuple[Reason, ...]],
    objective: Objective = Objective.THROUGHPUT,
    machine: Host = TWO,
    concurrency: int = 16,
) -> Plan:
    work = load(objective, concurrency=concurrency)
    base = plan(machine, MODEL, Wish("chat", "m", objective=objective))
    lower = tuple(Rejected(candidate, reasons) for candidate, reasons in rejected)
    return replace(base, chosen=chosen, rejected=lower, workload=work)


def judged(
    chosen: Candidate,
    *rejected: tuple[Candidate, tuple[Reason, ...]],
    objective: Objective = Objective.THROUGHPUT,
) -> Justification:
    found = justify(made(chosen, *rejected, objective=objective), TWO)
    assert found is not None
    return found


ONE, SPLIT, APART = one(speed(30, rate=500)), team(speed(18, rate=700)), copies(speed(30, rate=980))


def test_a_model_that_fits_no_card_needs_the_others() -> None:
    found = judged(SPLIT, (one(None), NO_ROOM))
    assert found.verdict == "needed" and found.one_card is None
    assert found.sentences[0] == "Yes: one card is not enough: GPU 0 needs 31.0 of 22.0 GiB."


def test_copies_that_nearly_double_the_throughput_are_worth_their_cards() -> None:
    found = judged(APART, (ONE, LOWER), (SPLIT, LOWER))
    assert (found.verdict, found.throughput_ratio, found.gpus) == ("worth-it", 1.96, 2)
    assert "2.0 times the output tokens at 16 requests" in found.sentences[1]


def test_a_second_card_that_gives_little_is_not_justified_and_what_it_could_carry_is_said() -> None:
    barely = team(speed(29, rate=500 * (WORTH - 0.02)))
    found = judged(ONE, (barely, LOWER))
    assert (found.verdict, found.gpus, found.usable) == ("not-worth-it", 1, 2)
    assert found.sentences[0].startswith("No: one card holds")
    assert "1.1 times the output tokens at 16 requests at a time (within" in found.sentences[1]
    assert "could carry" in found.sentences[-1] and "B at 4 bit" in found.sentences[-1]


def test_a_split_of_a_model_that_fits_one_card_says_what_it_costs() -> None:
    found = judged(SPLIT, (ONE, LOWER), (APART, LOWER))
    assert found.verdict == "worth-it"
    (cost,) = [text for text in found.sentences if text.startswith("It is split")]
    assert "980 tok/s at 16 requests against 700 split, the split costs 29 % of that" in cost


def test_a_plan_that_is_not_split_is_not_said_to_be() -> None:
    for rivals in ([(SPLIT, LOWER), (APART, LOWER)], [(SPLIT, LOWER)]):
        said = " ".join(judged(ONE, *rivals).sentences)
        assert "It is split" not in said
        assert ("A split would cost 29 % of the output" in said) is (len(rivals) == 2)


def test_a_split_that_beats_copies_costs_nothing() -> None:
    found = judged(SPLIT, (ONE, LOWER), (copies(speed(30, rate=550)), LOWER))
    assert any(text.startswith("Splitting costs nothing here") for text in found.sentences)


def test_a_split_and_copies_that_predictions_cannot_tell_apart_are_called_the_same() -> None:
    found = judged(SPLIT, (ONE, LOWER), (copies(speed(30, rate=650)), LOWER))
    assert any("the same within the uncertainty" in text for text in found.sentences)


def test_cards_that_serve_another_objective_are_said_to_serve_only_that() -> None:
    found = judged(ONE, (team(speed(29, rate=900)), LOWER), objective=Objective.LATENCY)
    assert found.verdict == "not-worth-it"
    assert found.sentences[0] == "Only for throughput, not for latency."


def test_a_gain_that_predictions_may_miss_is_said_to_be_one() -> None:
    found = judged(team(speed(29, rate=500 * 1.12)), (ONE, LOWER))
    assert found.verdict == "worth-it" and "by less than predictions miss" in found.sentences[0]


def test_the_same_context_is_called_the_same() -> None:
    alike = [make(speed(30, rate=500), context_limit=20_000) for make in (one, copies)]
    found = judged(alike[1], (alike[0], LOWER))
    assert "the same context" in found.sentences[1]


def test_a_split_without_copies_to_compare_says_that_their_speed_is_not_known() -> None:
    found = judged(SPLIT, (ONE, LOWER))
    assert any("what copies would give is not known" in text for text in found.sentences)


def test_latency_is_judged_by_the_time_of_a_request() -> None:
    found = judged(SPLIT, (ONE, LOWER), objective=Objective.LATENCY)
    assert found.latency_ratio == pytest.approx((100 + 255 * 30) / (100 + 255 * 18), abs=0.001)
    assert found.verdict == "worth-it"


def test_context_is_judged_by_the_longest_request() -> None:
    small, large = one(speed(30), context_limit=20_000), team(speed(30), context_limit=90_000)
    found = judged(large, (small, LOWER), objective=Objective.CONTEXT)
    assert found.verdict == "worth-it" and (found.context_ratio or 0) > 1.1


def test_what_only_a_pin_rules_out_is_compared_all_the_same() -> None:
    found = judged(SPLIT, (ONE, PINNED))
    assert found.one_card is not None and found.throughput_ratio == 1.4


def test_a_pinned_way_that_would_not_fit_is_not_compared() -> None:
    full = replace(ONE.memory[0], weights_mib=60_000)
    found = judged(SPLIT, (replace(ONE, memory=(full,)), PINNED))
    assert found.verdict == "needed"


def test_without_speeds_there_is_no_verdict() -> None:
    found = judged(replace(SPLIT, predicted=None), (replace(ONE, predicted=None), LOWER))
    if found.throughput_ratio is None:  # the cost model may know an RTX 3090
        assert found.verdict == "unknown" and "measure" in found.sentences[0]


def test_one_card_that_misses_a_bound_justifies_those_that_meet_it() -> None:
    plan_ = made(SPLIT, (ONE, LOWER))
    bound = replace(plan_, workload=replace(plan_.workload, tpot_ms=20.0))
    found = justify(bound, TWO)
    assert found is not None and found.verdict == "worth-it"


def test_sizes_follow_memory_and_bits() -> None:
    sizes = {size.bits: size for size in judged(ONE, (SPLIT, LOWER)).sizes}
    assert set(sizes) == set(EFFECTIVE_BITS)
    assert 15 < sizes[16].billions < 24 and 7 < sizes[16].per_card_billions < 12
    assert sizes[4].billions > 3 * sizes[16].billions
    for size in sizes.values():
        assert size.billions == pytest.approx(2 * size.per_card_billions, abs=0.2)


def test_a_copy_on_every_card_is_bound_by_the_smallest() -> None:
    machine = host(RTX_3090, RTX_3060)
    found = justify(plan(machine, hf(dense(num_hidden_layers=8)), Wish("chat", "m")), machine)
    assert found is not None
    size = found.sizes[0]
    assert size.billions > 2.5 * size.per_card_billions


def test_cards_of_another_vendor_carry_nothing_here() -> None:
    alone, mixed = host(RTX_3090, RTX_3090), host(RTX_3090, RTX_3090, R9700)
    found = [justify(plan(m, MODEL, Wish("chat", "m", strategy=None)), m) for m in (alone, mixed)]
    assert found[0] is not None and found[1] is not None
    vendors = {len(f.sizes) for f in found if f}
    assert vendors == {3}


def test_a_plan_on_two_cards_carries_its_justification() -> None:
    made_ = plan(TWO, MODEL, Wish("chat", "m"))
    assert made_.justification == justify(made_, TWO)
    assert plan(host(H100), MODEL, Wish("chat", "m")).justification is None
    pinned = plan(TWO, hf(dense(num_hidden_layers=8)), Wish("chat", "m", gpus=(0,)))
    assert pinned.justification is None
