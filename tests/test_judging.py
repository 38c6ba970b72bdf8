"""When an engine is dead, and above all when it is not: the judge alone, by its own clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.host.judging import (
    ANSWERED,
    ASKED,
    BUSY,
    FAILED,
    IDLE,
    STOPPED,
    Finding,
    Judge,
    Page,
    Seen,
    Times,
)

TIMES = Times()
IDLING = Seen(page=Page(0, (7.0,)), answered=True, listeners=IDLE)
SILENT = Seen(answered=False, listeners=BUSY)
XID = ("Xid 79",)


def working(tokens: float) -> Seen:
    return Seen(page=Page(2, (tokens,)), answered=True, listeners=BUSY)


STUCK = working(5.0)


def judge(times: Times = TIMES, metrics: bool = True) -> Judge:
    return Judge(times, 0.0, metrics)


def first(
    of: Judge, seen: Callable[[float], Seen], until_s: float, step_s: float = 1.0
) -> tuple[float, Finding] | None:
    """When the first verdict falls, and which."""
    for n in range(1, int(until_s / step_s) + 1):
        found = of.tick(n * step_s, seen(n * step_s))
        if found is not None:
            return n * step_s, found
    return None


def after_a_while(of: Judge) -> Judge:
    """The same judge, ten minutes of idleness later."""
    assert first(of, lambda _: IDLING, 700) is None
    of.clock.last = 0.0
    return of


pages = st.one_of(st.none(), st.builds(Page, st.sampled_from([0, 1, 3]), st.just((4.0,))))
anything = st.builds(
    Seen,
    page=pages,
    answered=st.booleans(),
    refused=st.booleans(),
    listeners=st.sampled_from([None, BUSY, IDLE, STOPPED]),
    working=st.booleans(),
    hard=st.sampled_from([(), XID]),
    soft=st.sampled_from([(), ("ranks wait",)]),
    canary=st.sampled_from([None, None, None, ASKED, ANSWERED, FAILED]),
)


@given(st.lists(st.tuples(anything, st.integers(1, 40)), max_size=60))
def test_nothing_stalls_while_a_counter_moves_within_the_shortest_stall_time(
    looks: list[tuple[Seen, int]],
) -> None:
    of, now, tokens = judge(), 0.0, 1e9  # above what a random page says
    for seen, repeated in looks:
        tokens += 1
        moved = replace(seen, page=Page(1, (tokens,)), answered=True)
        for n in range(repeated):
            now += 1
            found = of.tick(now, moved if n == 0 else replace(seen, answered=True))
            assert found is None, found


@given(st.lists(anything, max_size=200), st.integers(2, 50))
def test_facts_about_cards_alone_are_never_a_verdict(looks: list[Seen], busy: int) -> None:
    of = judge()
    for n, seen in enumerate(looks):
        page = Page(busy, (float(n),))
        assert of.tick(n + 1.0, replace(seen, page=page, answered=True, hard=XID)) is None


@given(st.lists(st.floats(3.5, 1e6), min_size=1, max_size=300), anything)
def test_time_that_nobody_watched_does_not_count(gaps: list[float], seen: Seen) -> None:
    of, now = judge(), 0.0
    of.tick(1.0, STUCK)
    for gap in gaps:
        now += gap + 3
        assert of.tick(now, seen) is None


@given(st.lists(anything, max_size=150), st.lists(st.floats(-1e5, -0.1), max_size=5))
def test_a_clock_that_goes_back_is_no_verdict_at_that_moment(
    looks: list[Seen], back: list[float]
) -> None:
    of, now = judge(), 0.0
    for seen, step in zip(looks, [*back, *[1.0] * len(looks)], strict=False):
        now += step
        found = of.tick(now, seen)
        assert found is None or step > 0


@given(st.lists(anything.filter(lambda seen: seen.canary is None), max_size=300))
def test_no_verdict_comes_before_the_shortest_of_the_clocks(looks: list[Seen]) -> None:
    found = first(judge(), lambda now: looks[int(now) - 1], len(looks))
    assert found is None or found[0] >= min(TIMES.frozen_s, TIMES.corroborated_s) - 1


def test_a_stall_is_called_within_the_configured_time() -> None:
    at, found = first(after_a_while(judge()), lambda _: STUCK, 400) or (0.0, None)
    assert found is not None and found.reason == "stalled"
    assert 170 <= at <= TIMES.stall_s
    assert "no progress" in found.text and "2 requests" in found.text


@pytest.mark.parametrize("facts", [{"hard": XID}, {"soft": ("ranks wait",)}])
def test_what_agrees_with_a_stall_shortens_it(facts: dict[str, tuple[str, ...]]) -> None:
    seen = replace(STUCK, **facts)  # type: ignore[arg-type]
    at, found = first(after_a_while(judge()), lambda _: seen, 400) or (0.0, None)
    assert found is not None and at <= 60


def test_lines_that_a_compilation_prints_shorten_nothing_in_the_first_minutes() -> None:
    seen = replace(STUCK, soft=("ranks wait",))
    assert first(judge(), lambda _: seen, 2 * TIMES.stall_s - 10) is None
    assert first(judge(), lambda _: seen, 2 * TIMES.stall_s + 5) is not None


def test_a_prompt_that_takes_three_stall_times_is_let_be_while_the_cards_work() -> None:
    seen = replace(STUCK, working=True)
    of = after_a_while(judge())
    at, found = first(of, lambda _: seen, 2000) or (0.0, None)
    assert found is not None and at > 3 * TIMES.stall_s
    assert at <= 4 * TIMES.stall_s + 2


def test_a_token_every_hundred_seconds_is_progress() -> None:
    assert first(after_a_while(judge()), lambda now: working(now // 100), 7200) is None


def test_an_hour_without_requests_is_no_stall() -> None:
    assert first(judge(), lambda _: IDLING, 3600) is None


def test_an_idle_engine_is_asked_and_one_that_does_not_answer_has_stalled() -> None:
    of = judge()
    assert first(of, lambda _: IDLING, TIMES.canary_s + 1) is None
    assert of.wants_canary()
    of = after_a_while(judge())
    at, found = first(of, lambda now: replace(IDLING, canary=ASKED if now == 1 else None), 400) or (
        0.0,
        None,
    )
    assert found is not None and found.reason == "stalled" and at <= TIMES.stall_s


def test_an_answered_request_of_ours_takes_a_stuck_gauge_for_what_it_is() -> None:
    of = after_a_while(judge())
    asked = 0

    def look(now: float) -> Seen:
        nonlocal asked
        if of.wants_canary():
            asked += 1
            return replace(STUCK, canary=ANSWERED)
        return STUCK

    assert first(of, look, 3600) is None
    assert asked > 10


def test_503_for_25_seconds_is_no_verdict() -> None:
    def look(now: float) -> Seen:
        failed = FAILED if now < 25 and now % 10 == 0 else None
        busy = Seen(answered=True, listeners=BUSY, canary=failed)
        return busy if now < 25 else replace(IDLING, canary=ANSWERED if now == 30 else None)

    assert first(judge(), look, 1000) is None


@pytest.mark.parametrize(
    "seen",
    [
        replace(SILENT, listeners=STOPPED),
        replace(SILENT, listeners=IDLE),
        replace(SILENT, refused=True, listeners=None),
    ],
)
def test_a_frozen_engine_is_dead_within_fifteen_seconds(seen: Seen) -> None:
    of = after_a_while(judge())
    first(of, lambda now: working(now), 20)
    of.clock.last = 0.0
    at, found = first(of, lambda _: seen, 100) or (0.0, None)
    assert found is not None and found.reason == "http_dead" and at <= 13


def test_slow_answers_under_full_load_are_no_death_while_tokens_moved() -> None:
    of = after_a_while(judge())
    seen = replace(SILENT, listeners=BUSY)
    assert first(of, lambda now: working(now) if now % 60 < 2 or now < 5 else seen, 1200) is None


def test_an_engine_without_metrics_is_judged_by_long_deadlines() -> None:
    of = judge(metrics=False)
    serving = Seen(answered=False, listeners=IDLE)
    assert first(of, lambda _: serving, TIMES.stall_s - 5) is None
    assert not of.wants_canary(connected=3)
    of = judge(metrics=False)
    at, found = first(of, lambda _: replace(SILENT, listeners=STOPPED), 100) or (0.0, None)
    assert found is not None and at <= 13
