"""What the supervisor is made of: pages, state files, records, words. Values in, values out."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.host import engine_output, gave_up, metrics_page, records, state
from multigpu.host.engine_output import Output
from multigpu.host.gpu_facts import Card, Reading, sick
from multigpu.host.gpu_work import GpuWork
from multigpu.host.state import LastVerdict, State

PAGE = (
    "# TYPE vllm:num_requests_running gauge\n"
    'vllm:num_requests_running{engine="0",model="a}\\"b"} 1.0\n'
    'vllm:num_requests_running{engine="1"} 2 1700000000000\n'
    "vllm:num_requests_waiting 0.0\n"
    'vllm:generation_tokens_total{engine="0"} 1.5e3\n'
)
BUSY = ("vllm:num_requests_running", "vllm:num_requests_waiting")
MOVING = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total")


def test_a_page_is_summed_over_its_labels_and_a_counter_yet_to_come_is_0() -> None:
    page = metrics_page.read(PAGE, BUSY, MOVING)
    assert page is not None and (page.busy, page.moving) == (3.0, (1500.0, 0.0))


@given(st.integers(0, len(PAGE) - 1))
def test_a_torn_page_is_no_data_and_never_another_number(cut: int) -> None:
    page = metrics_page.read(PAGE[:cut], BUSY, MOVING)
    assert page is None


@pytest.mark.parametrize("value", ["NaN", "+Inf", "", "one", "1 2 3"])
def test_a_gauge_that_is_no_number_is_no_data(value: str) -> None:
    text = PAGE.replace("vllm:num_requests_waiting 0.0", f"vllm:num_requests_waiting {value}")
    assert metrics_page.read(text, BUSY, MOVING) is None


@given(st.text())
def test_any_text_is_a_page_or_none(text: str) -> None:
    metrics_page.read(text, BUSY, MOVING)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(state.names()), json_values))
def test_a_state_file_of_any_content_is_a_state(content: dict[str, object]) -> None:
    found = state.parsed(json.dumps(content).encode())
    assert state.parsed(json.dumps(asdict(found)).encode()) == found


@given(st.binary())
def test_a_state_file_that_is_none_is_empty(content: bytes) -> None:
    assert isinstance(state.parsed(content), State)


def test_a_state_comes_back_as_it_was_written(tmp_path: Path) -> None:
    last = LastVerdict("stalled", "no progress", 5.0, 12, None, "abc")
    kept = State("chat", "chat", state="serving", restarts={"stalled": 2}, last_verdict=last)
    path = state.path_of(str(tmp_path), "chat")
    assert state.write(path, kept) and state.read(path) == kept
    assert [item.name for item in Path(path).parent.iterdir()] == ["chat.json"]


def test_a_fault_that_systemd_knows_better_is_still_one_restart() -> None:
    ours = records.recorded(State(), LastVerdict("engine_exit", "", 5.0, 10, None, "one"))
    after = records.corrected(ours, "oom-kill", "memory", 6.0, "one")
    assert after.restarts == {"engine_exit": 0, "oom-kill": 1}
    assert len(after.history) == 1 and after.backoff == ours.backoff
    other = records.corrected(ours, "watchdog", "frozen", 9.0, "two")
    assert other.restarts == {"engine_exit": 1, "watchdog": 1}


def test_pauses_grow_with_what_systemd_waits_itself_up_to_five_minutes() -> None:
    together = [records.delay_s(n, 5) + 5 for n in range(1, 10)]
    assert together == [5, 10, 20, 40, 80, 160, 300, 300, 300]


def test_a_failure_after_ten_minutes_of_service_is_the_first() -> None:
    verdict = LastVerdict("engine_exit", "", 2000.0)
    before = State(ready_at=1000.0, backoff=state.Backoff(4))
    assert records.recorded(before, verdict).backoff.n == 1
    assert records.recorded(replace(before, ready_at=1500.0), verdict).backoff.n == 5


def test_a_card_lost_twice_and_ranks_that_wait_three_times_put_up_the_fence() -> None:
    once = records.recorded(State(), LastVerdict("gpu_lost", "", 10.0))
    assert records.fence_reason(once, 10.0, reactions=False) is None
    twice = records.recorded(once, LastVerdict("gpu_lost", "", 20.0))
    assert records.fence_reason(twice, 20.0, reactions=False) is not None
    assert records.fence_reason(twice, 20.0, reactions=True) is None
    stuck = State()
    for at in (1.0, 2.0, 3.0):
        assert records.fence_reason(stuck, at, reactions=False) is None
        stuck = records.recorded(stuck, LastVerdict("stalled", "", at), records.DEADLOCK)
    assert records.fence_reason(stuck, 3.0, reactions=True) is not None


@pytest.mark.parametrize(
    ("line", "status", "wrong"),
    [
        ("error: invalid argument: --nope", 1, True),
        ("vllm: error: unrecognized arguments: --nope", 2, True),
        ("torch.OutOfMemoryError: CUDA out of memory.", 1, False),
        ("RuntimeError: NCCL error", 1, False),
    ],
)
def test_words_of_engines_tell_what_another_start_would_not_mend(
    line: str, status: int, wrong: bool
) -> None:
    assert (engine_output.configuration_error([line], status) is not None) == wrong
    if not wrong:
        assert engine_output.message([line]) is None


def test_the_same_last_words_are_known_again_whatever_their_numbers() -> None:
    said = engine_output.message(["(pid=17) failed at 0x7fff"])
    before = State(message=engine_output.message(["(pid=4711) failed at 0x12ab"]))
    assert records.said_twice(before, said, 5.0)
    assert not records.said_twice(before, said, 61.0)
    assert not records.said_twice(before, None, 5.0)


def test_lines_of_output_are_kept_however_they_arrive() -> None:
    output = Output()
    for piece in (b"one\ntw", b"o\n", b"No available shared memory broadcast block found in"):
        output.feed(piece)
    output.feed(b" 60 seconds\n")
    assert output.last()[:2] == ["one", "two"] and output.waits_for_ranks == 1


def reading(at: float, watts: float, percent: int) -> Reading:
    card = Card("GPU-a", utilization=percent, power_w=watts, power_limit_w=350.0)
    return Reading(at, (card, replace(card, uuid="GPU-b")))


def test_full_use_at_little_power_is_a_wait_and_not_work() -> None:
    work = GpuWork()
    work.take(reading(0, 300, 98), moved=True)
    assert work.working and not work.deadlocked
    for at in range(1, 4):
        work.take(reading(at, 90, 100), moved=False)
    assert work.deadlocked and not work.working


def test_a_lost_card_and_one_to_be_reset_are_named_and_an_ignorable_xid_is_not(
    tmp_path: Path,
) -> None:
    lost = Reading(0.0, (Card("GPU-a", error=15), Card("GPU-b", recovery_action=1)))
    assert set(sick(lost, 0.0)) == {"gpu_lost", "reset_required"}
    file = tmp_path / "xid.json"
    event = {"pci": "0000:01:00.0", "uuid": None, "xid": 43, "text": "t", "uptime_s": 50}
    card = Reading(0.0, (Card("GPU-a", pci="0000:01:00.0"),))
    for xid, wanted in ((43, set()), (79, {"gpu_lost"}), (13, {"xid"}), (119, {"reset_required"})):
        file.write_text(json.dumps({"events": [{**event, "xid": xid}]}))
        assert set(sick(card, 10.0, str(file))) == wanted
        assert sick(card, 60.0, str(file)) == {}
    file.write_text('{"events": [')
    assert sick(card, 0.0, str(file)) == {}


def test_giving_up_is_written_down_once_by_whose_state_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = state.path_of(str(tmp_path / "chat"), "chat-1")
    state.write(path, State("chat-1", last_verdict=LastVerdict("engine_exit", "it ended")))
    assert gave_up.gave_up(["--home", str(tmp_path), "multigpu-chat-1.service"]) == 0
    after = state.read(path)
    assert (after.state, after.restarts) == (state.GAVE_UP, {"start-limit-hit": 1})
    assert "it ended" in capsys.readouterr().err
    assert gave_up.gave_up(["--home", str(tmp_path), "multigpu-other.service"]) == 0
