"""Ranking by predicted speed: bounds, waiting requests, ties, unknown speeds, and their reasons."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.choice_answers import in_sample
from benchmarks.choice_questions import Question, asked
from benchmarks.groundtruth import TABLE
from multigpu.choice import ranking
from multigpu.choice.assumptions import assumptions
from multigpu.choice.doubts import bounds, doubts
from multigpu.choice.losers import RANKED, Contest
from multigpu.choice.ranking import CLOSE, order
from multigpu.choice.strengths import strengths
from multigpu.errors import NoPlan
from multigpu.hardware import Gpu, Host, P2p, Path
from multigpu.plan import Candidate, Estimate, Objective, Prediction, Strategy, Wish, Workload
from multigpu.planner import considered, plan
from multigpu.rules import requests_wait
from tests.machines import H100, RTX_3090, dense, gguf, hf, host
from tests.timed import about, copies, load, one, speed, team

TWO, MODEL = host(RTX_3090, RTX_3090), hf()
LATENCY, THROUGHPUT, CONTEXT = Objective.LATENCY, Objective.THROUGHPUT, Objective.CONTEXT


def ranked(
    *candidates: Candidate, work: Workload | None = None, machine: Host = TWO, **keys: Any
) -> list[Candidate]:
    work = work or load()
    return order(list(candidates), machine, MODEL, Wish("chat", "m", **keys), work)


def lost(rival: Candidate, chosen: Candidate, work: Workload, **keys: Any) -> tuple[str, str]:
    reason = Contest(chosen, TWO, MODEL, Wish("chat", "m", **keys), work).lost(rival)
    return reason.rule, reason.found


def test_latency_takes_the_shortest_request() -> None:
    slow, fast = one(speed(20)), team(speed(12))
    assert ranked(slow, fast) == [fast, slow]


def test_the_first_token_counts_as_part_of_the_request() -> None:
    quick_start, quick_decode = one(speed(20, ttft=100)), team(speed(19, ttft=5000))
    assert ranked(quick_decode, quick_start)[0] is quick_start
    long = load(output_tokens=20_000)
    assert ranked(quick_decode, quick_start, work=long)[0] is quick_start  # 5 %: the simpler
    assert ranked(quick_start, team(speed(15, ttft=5000)), work=long)[0].gpus == (0, 1)


def test_throughput_takes_the_most_tokens_of_the_service() -> None:
    split, apart = team(speed(12, rate=600)), copies(speed(20, rate=900))
    assert ranked(split, apart, work=load(THROUGHPUT, concurrency=16)) == [apart, split]
    assert ranked(split, apart) == [split, apart]


def test_a_split_must_beat_copies_by_more_than_such_comparisons_miss() -> None:
    work, bridged = load(THROUGHPUT, concurrency=16), host(RTX_3090, RTX_3090, nvlinks=4)
    apart = copies(replace(speed(20, rate=700), running=16))
    hardly, clearly = team(speed(18, rate=770)), team(speed(16, rate=900))
    assert ranked(hardly, apart, work=work, machine=bridged)[0] is apart
    assert ranked(clearly, apart, work=work, machine=bridged)[0] is clearly
    assert ranked(clearly, apart, work=work)[0] is apart  # PCIe: less is known
    (reason, *_) = strengths(apart, hardly, bridged, work)
    assert reason.rule == "copies-before-split" and "10 % faster" in reason.found
    rule, found = lost(hardly, apart, work)
    assert rule == "close-second" and "too little to trust a split" in found


def test_copies_that_let_requests_wait_do_not_stand_against_a_split() -> None:
    work = load(THROUGHPUT, concurrency=16)
    starved = copies(replace(speed(20, rate=700), running=4))
    split = team(replace(speed(18, rate=770), running=16))
    assert ranked(starved, split, work=work)[0] is split


def test_one_card_does_not_stand_against_a_split_over_two_for_throughput() -> None:
    work = load(THROUGHPUT, concurrency=16)
    split = team(speed(18, rate=700))
    assert ranked(one(speed(20, rate=600)), split, work=work)[0] is split


def test_a_rival_inside_the_uncertainty_loses_to_the_simpler_way() -> None:
    simple, fast = one(speed(10.4)), team(speed(10.0))
    assert ranked(fast, simple)[0] is simple
    assert ranked(fast, one(speed(10.0 * (1 + 3 * CLOSE))))[0] is fast


def test_of_equals_one_engine_over_slow_links_comes_last() -> None:
    crossing, apart = team(speed(10, rate=500)), copies(speed(10, rate=500))
    slow = host(RTX_3090, RTX_3090, path=Path.SYS)
    found = ranked(crossing, apart, work=load(THROUGHPUT), machine=slow)
    assert found == [apart, crossing]


def test_of_equals_vllm_comes_before_others() -> None:
    other = one(speed(10), runtime="sglang")
    assert ranked(other, one(speed(10)))[0].runtime == "vllm"


def test_bounds_come_before_the_objective() -> None:
    bulk, swift = copies(speed(60, rate=900)), team(speed(30, rate=600))
    work = load(THROUGHPUT, concurrency=16, tpot_ms=40.0)
    assert ranked(bulk, swift, work=work) == [swift, bulk]
    rule, found = lost(bulk, swift, work)
    assert rule == "ranked-lower" and "tpot 60 (45 to 78) ms exceeds the bound of 40" in found


def test_a_bound_on_the_first_token_counts_as_well() -> None:
    late, early = one(speed(10, ttft=900)), team(speed(14, ttft=300))
    assert ranked(late, early, work=load(ttft_ms=500.0)) == [early, late]


def test_where_nobody_meets_the_bound_the_nearest_is_taken_and_called_so() -> None:
    bulk, swift = copies(speed(60, rate=900)), team(speed(45, rate=600))
    work = load(THROUGHPUT, concurrency=16, tpot_ms=20.0)
    assert ranked(bulk, swift, work=work) == [swift, bulk]
    assert next(strengths(swift, bulk, TWO, work)).rule == "nearest-to-bounds"


def test_a_missed_bound_names_the_concurrency_that_meets_it() -> None:
    work = load(THROUGHPUT, concurrency=16, tpot_ms=20.0)
    said = list(bounds([team(speed(45))], work, lambda _, w: speed(10 + 2 * w.concurrency)))
    assert [reason.rule for reason in said] == ["bound-missed"]
    assert (said[0].hint or "").startswith("at 4 requests at a time tpot is 18 ms with vLLM tensor")


def test_a_missed_bound_names_a_rival_that_meets_it_with_more_requests() -> None:
    work = load(THROUGHPUT, concurrency=16, tpot_ms=20.0)
    ways = [copies(speed(30)), team(speed(31))]
    (said,) = bounds(ways, work, lambda c, w: speed((1 + c.replicas) * w.concurrency))
    assert "at 8 requests at a time tpot is 16 ms with vLLM tensor parallel 2" in (said.hint or "")


def test_a_missed_bound_that_no_concurrency_meets_says_so() -> None:
    work = load(concurrency=8, tpot_ms=5.0, ttft_ms=50.0)
    said = {r.found.split()[0]: r.hint or "" for r in bounds([one(speed(45))], work, _like_prompt)}
    assert "fewer bits" in said["tpot"]
    assert said["ttft"] == "one request of 32 prompt tokens takes 32 ms"


def _like_prompt(_: Candidate, work: Workload) -> Prediction:
    return speed(45, ttft=work.input_tokens)


def test_a_bound_that_holds_warns_of_nothing() -> None:
    work = load(tpot_ms=50.0, ttft_ms=200.0)
    assert not list(doubts([one(speed(45))], TWO, MODEL, work, _like_prompt))


def test_a_model_that_is_a_lower_bound_is_called_one() -> None:
    model = replace(MODEL, lower_bound=("the audio tower",))
    (said,) = doubts([one(speed(45))], TWO, model, load(), _like_prompt)
    assert said.rule == "model-lower-bound" and "the audio tower" in said.found


def test_a_wide_range_is_a_warning() -> None:
    wide = Prediction(Estimate(20, 5, 40), None, None, about(50), basis="no rig like it")
    (said,) = doubts([one(wide)], TWO, MODEL, load(), _like_prompt)
    assert said.rule == "prediction-weak" and "20 (5.0 to 40) tok/s: no rig like it" in said.found


def test_holding_the_stated_requests_comes_before_speed() -> None:
    fast = one(speed(10), kv_tokens=20_000, kv_sequences=2)
    roomy = team(speed(14), kv_tokens=80_000, kv_sequences=9)
    keys: dict[str, Any] = {"concurrency": 8, "context": 8192}
    work = load(concurrency=8)
    assert ranked(fast, roomy, work=work, **keys) == [roomy, fast]
    assert "of 8 requests some wait" in lost(fast, roomy, work, **keys)[1]
    assert ranked(fast, roomy, work=work) == [fast, roomy]


def test_without_a_stated_context_a_request_counts_with_its_typical_length() -> None:
    fast = one(speed(10), kv_tokens=8 * 1280, kv_sequences=1)
    roomy = team(speed(14), kv_tokens=80_000, kv_sequences=9)
    assert ranked(roomy, fast, work=load(concurrency=8), concurrency=8) == [fast, roomy]
    assert ranked(roomy, fast, work=load(concurrency=9), concurrency=9) == [roomy, fast]


def test_replicas_share_the_stated_requests() -> None:
    apart = copies(speed(10), kv_tokens=4 * 8192, kv_sequences=4)
    work = load(concurrency=8)
    keys: dict[str, Any] = {"concurrency": 8, "context": 8192}
    assert not ranking.requests_wait(apart, Wish("chat", "m", **keys), work)
    assert ranking.requests_wait(replace(apart, replicas=1), Wish("chat", "m", **keys), work)


def test_context_takes_the_longest_request_then_the_largest_cache_then_speed() -> None:
    short = one(speed(10), context_limit=40_000)
    long = team(speed(14), context_limit=90_000, kv_tokens=90_000)
    roomy = team(speed(20), context_limit=90_000, kv_tokens=200_000)
    assert ranked(short, long, roomy, work=load(CONTEXT)) == [roomy, long, short]
    assert "request has 40,000 tokens against 90,000" in lost(short, long, load(CONTEXT))[1]
    assert "one engine caches" in lost(long, roomy, load(CONTEXT))[1]


def test_what_the_model_cannot_use_is_no_longer_context() -> None:
    model = hf(dense(max_position_embeddings=32768))
    candidates = [
        team(speed(10), context_limit=90_000, kv_tokens=90_000),
        team(speed(10), context_limit=40_000, kv_tokens=90_000),
    ]
    work = load(CONTEXT)
    longest = {
        s.room
        for c in candidates
        if (s := ranking.standing(c, model, Wish("chat", "m"), work)) is not None
    }
    assert len(longest) == 1


def test_reasons_name_the_numbers_with_their_ranges() -> None:
    rule, found = lost(one(speed(24)), team(speed(14)), load())
    assert rule == "ranked-lower"
    assert found == "decode 42 (32 to 56) tok/s against 71 (55 to 95)"
    rule, found = lost(team(speed(9, rate=413)), copies(speed(9, rate=737)), load(THROUGHPUT))
    assert found == "413 (310 to 537) tok/s against 737 (553 to 958)"


def test_a_first_token_that_differs_is_named() -> None:
    _, found = lost(one(speed(24, ttft=700)), team(speed(14, ttft=400)), load())
    assert found.endswith("first token after 700 ms against 400")


def test_a_close_second_is_called_one_with_what_to_do() -> None:
    chosen = team(speed(10))
    reason = Contest(chosen, TWO, MODEL, Wish("chat", "m"), load()).lost(one(speed(11)))
    assert reason.rule == "close-second" and "measure both" in (reason.hint or "")
    assert lost(one(speed(14)), chosen, load())[0] == "ranked-lower"


def test_the_simplest_of_equals_is_not_called_the_fastest() -> None:
    simple, fast = one(speed(10.4)), team(speed(10.0))
    reason = next(strengths(simple, fast, TWO, load()))
    assert reason.rule == "simplest-of-equals" and "5 % faster" in reason.found
    assert next(strengths(fast, one(speed(20)), TWO, load())).rule == "predicted-fastest"


def test_unknown_speeds_follow_the_known_ones() -> None:
    blind = copies(Prediction(unknown=("no bandwidth",)))
    known = one(speed(50))
    assert ranked(blind, known) == [known, blind]
    assert "cannot be predicted (no bandwidth)" in lost(blind, known, load())[1]


def test_without_any_speed_rules_of_thumb_decide_and_say_so() -> None:
    dark = Prediction(unknown=("no bandwidth",))
    found = ranked(one(dark), team(dark))
    assert found[0].strategy is Strategy.TENSOR_PARALLEL
    reason = next(strengths(found[0], found[1], TWO, load()))
    assert reason.rule == "speed-unknown" and "no bandwidth" in reason.found


def test_candidates_that_hold_are_considered_in_rank_order_with_their_speeds() -> None:
    made = plan(TWO, MODEL, Wish("chat", "m"))
    found = considered(made)
    assert found[0] is made.chosen and len(found) > 2
    assert all(candidate.predicted is not None for candidate in found)
    others = [item for item in made.rejected if item.candidate not in found]
    assert all(any(r.rule not in RANKED for r in item.reasons) for item in others)


def test_assumptions_say_what_the_wish_leaves_open() -> None:
    said = " ".join(plan(TWO, MODEL, Wish("chat", "m")).assumptions)
    assert "1 request at a time of 1,024 tokens in and 256 out, which the wish does not" in said
    assert "No context was wished: planned for 8,192 tokens." in said
    wish = Wish("chat", "m", concurrency=4, input_tokens=500, output_tokens=100, context=4096)
    said = " ".join(plan(TWO, MODEL, wish).assumptions)
    assert "4 requests at a time of 500 tokens in and 100 out." in said
    assert "does not" not in said and "No context" not in said


def test_a_host_without_a_second_card_has_no_comparison() -> None:
    assert plan(host(H100), MODEL, Wish("chat", "m")).justification is None


rates = st.floats(1, 1e4)
some = st.lists(
    st.builds(
        lambda make, tpot, ttft, kv: make(speed(tpot, ttft), kv_tokens=int(kv)),
        st.sampled_from([one, team, copies]),
        rates,
        rates,
        rates,
    ),
    min_size=1,
    max_size=6,
)


@given(some, st.sampled_from([LATENCY, THROUGHPUT]), st.none() | rates)
def test_the_first_is_never_worse_than_the_best_by_more_than_the_band(
    candidates: list[Candidate], objective: Objective, tpot_ms: float | None
) -> None:
    work = load(objective, tpot_ms=tpot_ms)
    found = ranked(*candidates, work=work)
    assert sorted(map(id, found)) == sorted(map(id, candidates))
    best = min(ranking.missed(c, work) for c in candidates)
    assert ranking.missed(found[0], work) <= best * (1 + CLOSE)
    if best == 0:
        costs = [
            ranking.service_cost(c, work) or 0 for c in candidates if not ranking.missed(c, work)
        ]
        band = 1 + CLOSE
        if objective is THROUGHPUT and ranking.engine_size(found[0]) == 1:
            band *= 1 + max(ranking.SURPLUS.values())
        assert (ranking.service_cost(found[0], work) or 0) <= min(costs) * band


@pytest.mark.parametrize("objective", list(Objective))
def test_the_order_does_not_depend_on_the_order_of_proposal(objective: Objective) -> None:
    candidates = [one(speed(24)), team(speed(14)), copies(speed(25, rate=80))]
    assert ranked(*candidates, work=load(objective)) == ranked(
        *reversed(candidates), work=load(objective)
    )


# What was measured and published, as a person would put it; figures: benchmarks/choice.py.
measured_here = pytest.mark.skipif(not TABLE.exists(), reason="no published measurements here")


def question(name: str, *words: str) -> Question:
    """The question of that name about a group that all words name."""
    (found,) = [
        q for q in asked() if q.name == name and all(word in q.group.name for word in words)
    ]
    return found


@measured_here
def test_many_users_get_two_teams_of_two_and_not_one_of_four() -> None:
    """AutoRound 27B on 4x 3090: 473 tok/s by two cards, 295 by four, at 64 users."""
    many = question("throughput", "Qwen3.6-27B-int4-AutoRound", "· 64 ·")
    assert in_sample(many).label == "2 x TP2"


@measured_here
def test_one_user_gets_four_cards_and_not_two() -> None:
    """The same rig for one user: 69 tok/s by four cards, 54 by two."""
    assert in_sample(question("latency", "Qwen3.6-27B-int4-AutoRound", "· 1 ·")).label == "TP4"


@measured_here
def test_a_large_mixture_on_eight_cards_is_divided_and_not_piped() -> None:
    """GLM-4.6-FP8 on 8x RTX PRO 6000: 1349 tok/s by tensor parallel, 832 by pipeline."""
    for name in ("latency", "throughput"):
        assert in_sample(question(name, "GLM-4.6-FP8", "RTX PRO 6000")).label == "TP8"


@measured_here
def test_copies_win_throughput_where_a_card_holds_the_model() -> None:
    """Qwen3 Coder 30B on 4x RTX 4090: four engines 4458 tok/s, one 1131."""
    assert in_sample(question("latency", "Qwen3-Coder", "RTX 4090")).label == "4 x TP1"


def test_tensor_split_is_for_dense_models_on_cards_with_a_fast_link() -> None:
    """llama.cpp #19378: dense 31B decode 1.36 times as fast by tensor, a mixture 0.70 times."""
    bridged = host(RTX_3090, RTX_3090, nvlinks=4, p2p=P2p.OK)
    large = gguf(60, 320.0)
    made = plan(bridged, large, Wish("chat", "m", runtime="llama.cpp"))
    assert made.chosen.strategy is Strategy.TENSOR_SPLIT
    mixture = gguf(60, 320.0, **{"llama.expert_count": 128, "llama.expert_used_count": 8})
    made = plan(bridged, mixture, Wish("chat", "m", runtime="llama.cpp"))
    assert made.chosen.strategy is not Strategy.TENSOR_SPLIT


def test_of_equals_only_ways_that_hold_all_requests_count_where_one_does() -> None:
    work = load(THROUGHPUT, concurrency=64)
    starved = one(replace(speed(98, rate=195), running=20))
    holding = team(replace(speed(300, rate=199), running=64))
    assert ranked(starved, holding, work=work, concurrency=64)[0] is holding
    roomy = one(replace(speed(98, rate=195), running=64))
    assert ranked(roomy, holding, work=work, concurrency=64)[0] is roomy


def test_the_warning_and_the_prediction_name_the_same_requests() -> None:
    work, wish = load(THROUGHPUT, concurrency=64), Wish("chat", "m", concurrency=64)
    apart = copies(replace(speed(98, rate=195), running=20), kv_tokens=12_224)
    (reason,) = requests_wait(apart, wish, work)
    assert "holds 10 of 32 requests of 1,024 + 256 tokens" in reason.found
    assert "lower concurrency to 20" in (reason.hint or "")
    assert not list(requests_wait(replace(apart, predicted=None), wish, load(concurrency=18)))


def test_a_rate_of_one_request_is_called_so_where_there_are_several() -> None:
    work = load(concurrency=8)
    (reason, *_) = strengths(team(speed(14)), one(speed(24)), TWO, work)
    assert "tok/s per request" in reason.found
    assert "tok/s per request against" in lost(one(speed(24)), team(speed(14)), work)[1]
    assert "per request" not in lost(one(speed(24)), team(speed(14)), load())[1]


def test_without_speeds_the_experimental_split_comes_last() -> None:
    card = Gpu(0, name="Unheard-of", memory_mib=24576, compute_capability=(8, 6))
    spec = gguf(block_mib=900)
    for objective in Objective:
        made = plan(host(card, card), spec, Wish("chat", "m", objective=objective))
        assert made.chosen.strategy is Strategy.LAYER_SPLIT


def test_more_requests_than_memory_has_room_for_wait() -> None:
    """vLLM runs at most its own largest default at a time; the rest stands in its queue."""
    wish = Wish("chat", "m", objective=THROUGHPUT, concurrency=100_000)
    assert plan(TWO, MODEL, wish).chosen.max_num_seqs == 1024


def test_too_many_requests_for_small_cards_are_told_to_be_fewer() -> None:
    """The sampler and the graphs of 1024 requests do not fit beside the weights."""
    cards = tuple(replace(gpu, memory_mib=12000, memory_free_mib=11700) for gpu in TWO.gpus)
    small = replace(TWO, gpus=cards)
    wish = Wish("chat", "m", objective=THROUGHPUT, concurrency=100_000)
    with pytest.raises(NoPlan) as caught:
        plan(small, MODEL, wish)
    hint = next(c.hint for c in caught.value.changes if "max_num_seqs" in c.found)
    fewer = int((hint or "").removeprefix("concurrency = "))
    assert plan(small, MODEL, replace(wish, concurrency=fewer)).chosen


def test_an_experimental_split_must_be_clearly_faster_than_what_is_proven() -> None:
    work = load(THROUGHPUT, concurrency=16)
    layers = {"runtime": "llama.cpp", "tensor_parallel_size": 1, "strategy": Strategy.LAYER_SPLIT}
    tensors = {**layers, "strategy": Strategy.TENSOR_SPLIT}
    proven = team(speed(20, rate=100), **layers)
    hardly, clearly = (team(speed(20, rate=r), **tensors) for r in (118, 125))
    assert ranked(proven, hardly, work=work)[0] is proven
    assert ranked(proven, clearly, work=work)[0] is clearly
    (reason, *_) = strengths(proven, hardly, TWO, work)
    assert reason.rule == "proven-before-experimental" and "18 % faster" in reason.found
    assert "too little to trust an experimental mode" in lost(hardly, proven, work)[1]
    roomy = team(speed(20), **tensors, context_limit=50_000, kv_tokens=50_000)
    nearly = team(speed(20), **layers, context_limit=44_000, kv_tokens=44_000)
    assert ranked(roomy, nearly, work=load(CONTEXT))[0] is nearly
    small = team(speed(20), **layers, context_limit=30_000, kv_tokens=30_000)
    assert ranked(roomy, small, work=load(CONTEXT))[0] is roomy


def test_a_cache_smaller_than_the_longest_request_is_explained() -> None:
    """A sliding window keeps the end of a request; vLLM counts tokens of full layers."""
    for cached, told in ((29_088, True), (120_000, False)):
        way = one(speed(20), kv_tokens=cached, max_model_len=100_000)
        said = " ".join(assumptions(way, TWO, MODEL, Wish("chat", "m"), load()))
        assert ("29,088 cached tokens hold a request of 100,000" in said) is told
        assert ("sliding window" in said) is told
