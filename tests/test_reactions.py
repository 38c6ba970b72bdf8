"""Reactions beyond a restart, decided: no sequence of requests gets more than its budget."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.host import ledger as ledgers
from multigpu.host import reactions, reactions_need
from multigpu.host.gpu_facts import Card, Reading
from multigpu.host.ledger import BEGUN, BUDGETS, DONE, FAILED, REFUSED, Clock, Entry, Ledger
from multigpu.host.reactions import Decision, Need, ServiceTruth, Truth
from multigpu.host.reactions_need import Events
from multigpu.host.requests import FENCE, GPU_RESET, REBOOT, Refused, Request, parsed
from tests.plans import UUIDS

A, B = UUIDS
DAY_S = 86400.0
CHAT = ServiceTruth("multigpu-chat", {"multigpu-chat.service": UUIDS}, dict.fromkeys(UUIDS))
CODE = ServiceTruth("multigpu-code", {"multigpu-code.service": (B,)}, {B: None})
TRUTH = Truth(frozenset((GPU_RESET, REBOOT)), {"chat": CHAT, "code": CODE})
NOW = Clock(1_800_000_000.0, "boot-1", 5000.0)
RESET = {A: Need(GPU_RESET, f"{A} needs a reset (NVML 16)")}
EMPTY = Ledger()
LOST = {A: Need(REBOOT, f"{A} is lost (NVML 15)")}


def request(what: str = GPU_RESET, *gpus: str, id: str = "1", at: float = NOW.at) -> Request:
    return Request(id, what, gpus, "reset_required", at)


def decided(
    asked: Request, needs: dict[str, Need], ledger: Ledger = EMPTY, truth: Truth = TRUTH
) -> Decision:
    return reactions.decide(asked, "chat", truth, needs, ledger, NOW)


def acted(what: str, age_s: float = 0, outcome: str = DONE, gpu: str = A) -> Entry:
    at, uptime_s = NOW.at - age_s, NOW.uptime_s - age_s
    return Entry("x", "chat", what, outcome, at, NOW.boot, uptime_s, gpus=(gpu,))


def test_a_card_that_needs_a_reset_is_reset_and_no_other() -> None:
    made = decided(request(), RESET)
    assert (made.what, made.gpus, made.host) == (GPU_RESET, (A,), False)


def test_a_lost_card_is_not_reset_but_leads_to_a_reboot() -> None:
    assert decided(request(GPU_RESET), LOST).what == REBOOT


def test_a_reboot_is_not_done_where_a_reset_is_all_that_is_needed() -> None:
    assert decided(request(REBOOT), RESET).what == GPU_RESET


def test_what_is_not_allowed_spent_or_in_vain_leads_to_the_next_step() -> None:
    no_reset, nothing = replace(TRUTH, allow=frozenset((REBOOT,))), Truth(services=TRUTH.services)
    assert decided(request(), RESET, truth=no_reset).what == REBOOT
    assert decided(request(), RESET, truth=nothing).what == FENCE
    spent = Ledger((acted(GPU_RESET, gpu=B), acted(GPU_RESET, gpu=B)))
    assert decided(request(), RESET, spent).what == REBOOT
    assert decided(request(), RESET, Ledger((acted(GPU_RESET, outcome=FAILED),))).what == REBOOT
    fence = decided(request(), RESET, Ledger((*spent.entries, acted(REBOOT, 3600))))
    assert (fence.what, fence.host) == (FENCE, False)
    assert "no gpu_reset is left" in fence.text and "no reboot is left" in fence.text


def test_the_whole_host_is_fenced_only_where_nvml_asks_for_the_host() -> None:
    needs = {A: Need(REBOOT, "recovery action 2", host=True)}
    assert decided(request(), needs, Ledger((acted(REBOOT),))).host


def test_without_a_need_nothing_is_done_whatever_the_request_says() -> None:
    for what in (GPU_RESET, REBOOT):
        with pytest.raises(Refused, match="neither NVML nor the kernel log"):
            decided(request(what), {})
    with pytest.raises(Refused):
        decided(request(GPU_RESET, B), RESET)


def test_an_old_entry_frees_its_budget_and_a_clock_set_back_does_not() -> None:
    assert Ledger((acted(REBOOT, DAY_S + 1),)).left(REBOOT, NOW) == 1
    other = replace(acted(REBOOT), boot="boot-0")
    set_back = replace(NOW, at=NOW.at - 400 * DAY_S)
    assert Ledger((other,)).left(REBOOT, set_back) == 0
    forward = replace(NOW, at=NOW.at + 400 * DAY_S)
    assert Ledger((acted(REBOOT),)).left(REBOOT, forward) == 0, "the same boot: uptime decides"


# --- properties ------------------------------------------------------------------------------

needs = st.dictionaries(
    st.sampled_from(UUIDS),
    st.builds(Need, st.sampled_from((GPU_RESET, REBOOT)), st.just("sick"), st.booleans()),
)
steps = st.lists(
    st.tuples(
        st.sampled_from((GPU_RESET, REBOOT, FENCE)),
        needs,
        st.floats(0, 40_000),
        st.sampled_from((DONE, FAILED, "interrupted", None)),
        st.booleans(),
    ),
    max_size=60,
)


@given(steps)
def test_no_sequence_of_requests_exceeds_the_budget_in_any_window(
    sequence: list[tuple[str, dict[str, Need], float, str | None, bool]],
) -> None:
    ledger, now, boots = Ledger(), NOW, 1
    done: list[tuple[str, float]] = []
    for number, (what, needy, later_s, outcome, rebooted) in enumerate(sequence):
        boots += rebooted
        uptime_s = later_s if rebooted else now.uptime_s + later_s
        now = Clock(now.at + later_s, f"boot-{boots}", uptime_s)
        asked = request(what, id=str(number), at=now.at)
        try:
            made = reactions.decide(asked, "chat", TRUTH, needy, ledger, now)
        except Refused:
            entry = reactions.entry(asked, "chat", what, REFUSED, now, "")
            ledger = ledger.added(entry)
            continue
        assert made.what is not None
        done.append((made.what, now.at))
        entry = reactions.entry(asked, "chat", made.what, BEGUN, now, "")
        ledger = ledger.added(replace(entry, gpus=made.gpus))
        if outcome is not None:
            ledger = ledger.ended(ledger.entries[-1], outcome)
        ledger = ledgers.parsed(ledgers.text(ledger).encode()) or Ledger()
    for what, budget in BUDGETS.items():
        times = [at for kind, at in done if kind == what]
        for first in times:
            # A millisecond: sums of seconds are rounded.
            window = first + budget.window_s - 1e-3
            assert sum(first <= at < window for at in times) <= budget.most


@given(st.integers(0, 400), st.integers(0, 400))
def test_a_flood_of_refusals_or_fences_never_frees_a_budget(refusals: int, fences: int) -> None:
    ledger = Ledger().added(acted(REBOOT))
    for _ in range(refusals):
        ledger = ledger.added(acted(GPU_RESET, outcome=REFUSED))
    for _ in range(fences):
        ledger = ledger.added(acted(FENCE))
    assert ledger.left(REBOOT, NOW) == 0
    assert ledger.totals.get(FENCE, {}).get(DONE, 0) == fences


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
GOOD = {"schema": 1, "id": "1", "what": GPU_RESET, "gpus": [A], "why": "gpu_lost", "at": NOW.at}


@given(
    st.dictionaries(st.sampled_from((*GOOD, "text", "evidence")), ANYTHING), st.text(max_size=80)
)
def test_whatever_stands_in_a_request_it_is_read_or_refused(
    changed: dict[str, object], name: str
) -> None:
    content = json.dumps({**GOOD, **changed}).encode()
    for file in (name, "1.json"):
        try:
            found = parsed(file, content, "chat")
        except Refused:
            continue
        assert found.text.isprintable() and len(content) <= 4096
        assert found.what in (GPU_RESET, REBOOT, FENCE) and found.id == "1"


@given(st.binary(max_size=200))
def test_bytes_that_are_no_request_are_refused(content: bytes) -> None:
    with pytest.raises(Refused):
        parsed("1.json", content, "chat")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"what": "rm -rf /"}, "what is none of"),
        ({"id": "../../etc/passwd"}, "id is not the name"),
        ({"gpus": ["all; reboot"]}, "no card"),
        ({"gpus": [A] * 17}, "no list of 16"),
        ({"at": float("nan")}, "no time"),
        ({"evidence": "/var/lib/multigpu/chat/evidence/../../../../etc/shadow.json"}, "evidence"),
        ({"evidence": "/var/lib/multigpu/code/evidence/a.json"}, "evidence"),
        ({"schema": 2}, "schema"),
        ({"text": "x" * 5000}, "4096 bytes"),
    ],
)
def test_a_forged_request_is_refused_and_says_why(changed: dict[str, object], why: str) -> None:
    with pytest.raises(Refused, match=why):
        parsed("1.json", json.dumps({**GOOD, **changed}).encode(), "chat")


def test_a_foreign_card_an_old_request_and_a_replay_are_refused() -> None:
    def admit(asked: Request, service: str = "chat", ledger: Ledger = EMPTY) -> None:
        reactions.admit(asked, service, TRUTH, ledger, NOW)

    admit(request(GPU_RESET, A))
    with pytest.raises(Refused, match=f"{A} is no card of code's plan"):
        admit(request(GPU_RESET, A), "code")
    with pytest.raises(Refused, match="no service"):
        admit(request(), "other")
    with pytest.raises(Refused, match="asked 601 s ago"):
        admit(request(at=NOW.at - 601))
    with pytest.raises(Refused, match="asked -"):
        admit(request(at=NOW.at + 3600))
    with pytest.raises(Refused, match="answered before"):
        admit(request(id="x"), ledger=Ledger((acted(GPU_RESET),)))


# --- the ledger's file ----------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_a_torn_ledger_is_no_ledger(content: bytes) -> None:
    whole = ledgers.text(Ledger().added(acted(REBOOT))).encode()
    assert ledgers.parsed(whole) is not None
    assert ledgers.parsed(whole[:-20]) is None
    assert ledgers.parsed(content) is None


@given(st.lists(st.sampled_from((GPU_RESET, REBOOT, FENCE)), max_size=5))
def test_a_ledger_is_read_as_it_was_written(kinds: list[str]) -> None:
    ledger = Ledger()
    for kind in kinds:
        ledger = ledger.added(acted(kind))
    assert ledgers.parsed(ledgers.text(ledger).encode()) == ledger


# --- what the cards need ----------------------------------------------------------------------


def look(*cards: Card) -> dict[str, Need]:
    return reactions_need.nvml_needs(Reading(0.0, cards))


def test_nvmls_recovery_action_decides_and_an_error_stands_for_one() -> None:
    assert look(Card(A, recovery_action=0), Card(B)) == {}
    assert look(Card(A, recovery_action=3), Card(B, recovery_action=5)) == {}
    found = look(Card(A, recovery_action=1), Card(B, recovery_action=2))
    assert (found[A].what, found[B].what, found[B].host) == (GPU_RESET, REBOOT, True)
    assert look(Card(A, error=15))[A].what == REBOOT
    assert look(Card(A, error=6))[A].what == REBOOT, "a card that NVML does not find is lost"
    assert look(Card(A, error=16))[A].what == GPU_RESET


def test_the_kernel_log_counts_for_an_hour_and_until_the_next_reset() -> None:
    cards: dict[str, str | None] = {A: "0000:01:00.0", B: "0000:02:00.0"}

    def needs(age_s: float, xid: int | None, ledger: Ledger = EMPTY) -> dict[str, Need]:
        event = None if xid else "off-the-bus"
        line = Events("0000:01:00.0", NOW.uptime_s - age_s, xid, event, "")
        return reactions_need.log_needs(cards, [line], ledger, NOW)

    assert needs(10, 119)[A].what == GPU_RESET and list(needs(10, 119)) == [A]
    assert needs(10, 79)[A].what == needs(10, None)[A].what == REBOOT
    assert needs(3601, 119) == {} and needs(10, 13) == {} and needs(10, 31) == {}
    assert needs(10, 119, Ledger((acted(GPU_RESET, 5),))) == {}
    assert needs(10, 119, Ledger((acted(GPU_RESET, 20),))) != {}
