"""Tables of observations: what is found, what was expected, what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from multigpu import fed, verdict
from multigpu.observation import CardSeen, LoadSeen, ServiceSeen, UnitSeen
from multigpu.plan import Candidate, Check, Plan, Service, Strategy
from multigpu.units import RenderedUnit
from tests.plans import LAYER_SPLIT, MEMORY, TENSOR_PARALLEL, UUIDS, plan

REVISION = "0123456789abcdef"
LOAD = LoadSeen(8.2, 412, 0, 26368, " four, five, six,", None)
PIPELINE = replace(
    TENSOR_PARALLEL,
    strategy=Strategy.PIPELINE_PARALLEL,
    tensor_parallel_size=1,
    pipeline_parallel_size=2,
    layers=(33, 31),
)
FLAGS = {
    Strategy.TENSOR_PARALLEL: ("--tensor-parallel-size", "2"),
    Strategy.PIPELINE_PARALLEL: ("--pipeline-parallel-size", "2"),
    Strategy.LAYER_SPLIT: ("--split-mode", "layer", "--tensor-split", "33,32"),
}
LOGS = {
    "vllm": ("world_size=2 rank=0 local_rank=0", "GPU KV cache size: 60,928 tokens"),
    "llama.cpp": ("load_tensors: offloaded 65/65 layers to GPU",),
}


def card(which: int, /, *busy: int, used: int | None = 20000, **more: Any) -> CardSeen:
    good = CardSeen(which, UUIDS[which], busy, (300.0,), used, 24564, ((42, used),), None)
    return replace(good, **more)


def unit(chosen: Candidate) -> RenderedUnit:
    argv = ("/opt/engine", "serve", "model", "--port", "8000", *FLAGS[chosen.strategy])
    return RenderedUnit(Service("chat", argv, (), 8000, "/health", chosen.gpus), REVISION, (), 600)


def running(chosen: Candidate, **more: Any) -> UnitSeen:
    rendered = unit(chosen)
    good = UnitSeen(
        rendered.name,
        "active",
        "running",
        0,
        rendered.service.argv,
        {"MULTIGPU_REVISION": REVISION},
        LOGS[chosen.runtime],
        log_begins_s=0.4,
    )
    return replace(good, **more)


def judge(
    wished: Plan,
    *cards: CardSeen,
    load: LoadSeen = LOAD,
    nvml_error: str | None = None,
    **more: Any,
) -> tuple[Check, ...]:
    return verdict.judge(
        wished,
        (unit(wished.chosen),),
        see(wished, *cards, load=load, nvml_error=nvml_error, **more),
    )


def see(
    wished: Plan,
    *cards: CardSeen,
    load: LoadSeen = LOAD,
    nvml_error: str | None = None,
    **more: Any,
) -> ServiceSeen:
    return ServiceSeen("chat", load, cards, nvml_error, (running(wished.chosen, **more),))


def failed(checks: tuple[Check, ...]) -> list[str]:
    return [check.name for check in checks if not check.ok]


def one(checks: tuple[Check, ...], name: str) -> Check:
    (found,) = [check for check in checks if check.name == name]
    return found


SPLIT = plan(LAYER_SPLIT, concurrency=1)


@pytest.mark.parametrize(
    ("wished", "busy", "bad"),
    [
        (plan(concurrency=8), (93, 95), []),
        (plan(concurrency=8), (93, 70), []),
        (plan(concurrency=8), (93, 69), ["GPU 1 fed"]),
        (plan(concurrency=8), (69, 69), ["GPU 0 fed", "GPU 1 fed"]),
        (plan(concurrency=1), (45, 45), []),
        (plan(concurrency=1), (45, 39), ["GPU 1 fed"]),
        (SPLIT, (45, 45), []),
        (SPLIT, (45, 19), ["GPU 1 fed"]),
        (plan(LAYER_SPLIT, concurrency=16), (45, 45), []),
        (plan(PIPELINE, concurrency=1), (30, 30), []),
        (plan(PIPELINE, concurrency=8), (30, 80), ["GPU 0 fed"]),
    ],
)
def test_how_busy_a_card_must_be_follows_from_the_strategy(
    wished: Plan, busy: tuple[int, int], bad: list[str]
) -> None:
    assert failed(judge(wished, card(0, busy[0]), card(1, busy[1]))) == bad


def test_a_layer_split_says_that_its_cards_work_in_turn() -> None:
    check = one(judge(SPLIT, card(0, 45, 45), card(1, 45)), "GPU 0 fed")
    assert check.found == (
        "GPU 0 busy 45 % over 8 s: 2 cards work in turn, this one about 51 % of the time"
    )
    assert check.expected.startswith("at least 20 %: ")


def test_stages_of_a_pipeline_overlap_with_enough_requests() -> None:
    check = one(judge(plan(PIPELINE, concurrency=8), card(0, 90), card(1, 90)), "GPU 0 fed")
    assert "2 cards work on several requests at once, this one about 100 %" in check.found


def test_a_card_below_its_share_says_what_was_found_and_expected() -> None:
    check = one(judge(plan(concurrency=8), card(0, 93), card(1, 40)), "GPU 1 fed")
    assert check.found == "GPU 1 busy 40 % over 8 s"
    assert check.expected == "at least 70 %: every rank works on every token"
    assert check.hint is not None and check.hint.startswith("verify again while nothing else")


def test_a_single_rank_on_two_planned_cards_names_the_idle_card() -> None:
    argv = ("/opt/engine", "serve", "model", "--port", "8000", "--tensor-parallel-size", "1")
    checks = judge(plan(), card(0, 95), card(1, 0, used=412), argv=argv)
    assert failed(checks) == ["as planned", "GPU 1 fed"]
    check = one(checks, "GPU 1 fed")
    assert check.found == "GPU 1 idle: 0 % over 8 s under load, 412 MiB used; planned 19.2 GiB"
    assert check.expected == (
        "both cards of the plan (vllm, tensor_parallel) to work; the running process carries "
        "--tensor-parallel-size 1 (plan: 2)"
    )
    assert check.hint == fed.REDEPLOY


def test_all_layers_on_one_card_names_the_idle_card_and_the_differing_split() -> None:
    argv = ("/opt/engine", "--port", "8000", "--split-mode", "layer", "--tensor-split", "65,0")
    checks = judge(SPLIT, card(0, 95, used=23000), card(1, 0, used=412), argv=argv)
    check = one(checks, "GPU 1 fed")
    assert check.found.startswith("GPU 1 idle: ")
    assert "--tensor-split 65,0 (plan: 33,32)" in check.expected
    assert "GPU 1 idle" in (verdict.failure(SPLIT, checks) or "")


def test_an_idle_card_of_a_process_as_planned_sends_to_the_log_not_to_serve() -> None:
    check = one(judge(plan(), card(0, 95), card(1, 2, 3)), "GPU 1 fed")
    assert check.hint == (
        "the command line is as planned: look for the card in the engine's log, "
        "journalctl -u multigpu-chat.service"
    )


@pytest.mark.parametrize(
    ("used", "ok"),
    [(12599, False), (12600, True), (20000, True), (23100, True), (23168, False), (None, False)],
)
def test_memory_lies_between_most_of_the_weights_and_somewhat_above_the_prediction(
    used: int | None, ok: bool
) -> None:
    assert MEMORY.total_mib == 19700
    check = one(judge(plan(), card(0, 95), card(1, 95, used=used)), "GPU 1 memory")
    assert check.ok is ok
    assert check.expected == "12600 to 23167 MiB"
    assert check.found.endswith(" MiB, 19700 MiB predicted")


def test_too_much_memory_names_who_holds_it_and_too_little_the_engine() -> None:
    high = one(judge(plan(), card(0, 95), card(1, 95, used=24000)), "GPU 1 memory")
    assert high.hint == "see who holds it: pid 42 24000 MiB"
    low = one(judge(plan(), card(0, 95), card(1, 95, used=2000)), "GPU 1 memory")
    assert (low.hint or "").startswith("the engine put less here than planned")


def test_unknown_memory_is_not_shown_as_0() -> None:
    check = one(judge(plan(), card(0, 95), card(1, 95, used=None)), "GPU 1 memory")
    assert check.found.startswith("GPU 1 holds an unknown number of MiB")


def test_unknown_utilization_is_not_called_idle() -> None:
    check = one(judge(plan(), card(0, 95), card(1)), "GPU 1 fed")
    assert (check.ok, check.found) == (False, "GPU 1 tells no utilization")


@pytest.mark.parametrize(
    ("cards", "why"),
    [
        ((card(0, 95), card(1, error="GPU is lost", uuid=None)), "GPU is lost"),
        ((card(0, 95),), "no such card"),
        ((card(0, 95), card(1, 95, uuid="GPU-of-a-stranger")), "no such card"),
    ],
)
def test_a_planned_card_that_is_gone_is_named(cards: tuple[CardSeen, ...], why: str) -> None:
    checks = judge(plan(), *cards)
    assert failed(checks) == ["GPU 1"]
    check = one(checks, "GPU 1")
    assert check.found == f"GPU 1 is lost: NVML says: {why}"
    assert check.expected == f"the planned card {UUIDS[1]}"
    assert "Xid" in (check.hint or "")


def test_a_card_is_known_by_its_uuid_when_its_index_moved() -> None:
    moved = (card(0, 95, index=1), card(1, 95, index=0))
    assert failed(judge(plan(), *moved)) == []


def test_a_card_without_a_uuid_is_known_by_its_index() -> None:
    assert failed(judge(plan(), card(0, 95), card(1, 95, uuid=None))) == []
    unnamed = replace(plan(), gpu_uuids=(None, None))
    assert failed(judge(unnamed, card(0, 95), card(1, 95))) == []


@pytest.mark.parametrize("error", ["NVML: Driver Not Loaded", None])
def test_nvml_that_does_not_answer_is_one_failure_not_one_a_card(error: str | None) -> None:
    checks = judge(plan(), nvml_error=error)
    assert failed(checks) == ["cards seen"]
    check = one(checks, "cards seen")
    assert check.found == (error or "NVML lists no card")
    assert check.hint == "run nvidia-smi on the host"


def test_failed_requests_are_told_with_their_first_error() -> None:
    load = replace(LOAD, failed=3, error="http://127.0.0.1:8000: timed out")
    check = one(judge(plan(), card(0, 95), card(1, 95), load=load), "answers")
    assert not check.ok
    assert check.found == "412 completions, 3 failed in 8 s: http://127.0.0.1:8000: timed out"
    assert check.hint == "read the engine's log: journalctl -u multigpu-chat.service -n 100"


def test_an_engine_that_answers_nothing_is_one_failure_but_a_lost_card_is_named() -> None:
    dead = replace(LOAD, completed=0, failed=8, error="refused")
    assert failed(judge(plan(), card(0, 0), card(1, 0), load=dead)) == ["answers"]
    gone = judge(plan(), card(0, 0), card(1, error="GPU is lost"), load=dead)
    assert failed(gone) == ["answers", "GPU 1"]


def test_a_unit_that_is_down_is_one_failure() -> None:
    dead = replace(LOAD, completed=0, failed=8, error="refused")
    down: dict[str, Any] = {
        "active_state": "activating",
        "sub_state": "auto-restart",
        "n_restarts": 4,
        "argv": (),
        "environment": {},
        "log": (),
    }
    checks = judge(plan(), card(0, 0), card(1, 0), load=dead, **down)
    assert failed(checks) == ["running", "answers"]
    check = one(checks, "running")
    assert check.found == ("multigpu-chat.service is activating (auto-restart), restarted 4 times")


def test_a_unit_that_was_not_seen_is_said_so() -> None:
    nothing = ServiceSeen("chat", LOAD, (card(0, 95), card(1, 95)), None, ())
    checks = verdict.judge(plan(), (unit(TENSOR_PARALLEL),), nothing)
    assert one(checks, "running").found == "multigpu-chat.service unseen"


def test_another_revision_is_told_even_where_all_flags_are_equal() -> None:
    checks = judge(plan(), card(0, 95), card(1, 95), environment={"MULTIGPU_REVISION": "old"})
    assert failed(checks) == ["as planned"]
    check = one(checks, "as planned")
    assert check.found == "the running process carries revision old"
    assert (check.expected, check.hint) == (
        f"revision {REVISION} with the planned flags",
        fed.REDEPLOY,
    )


def test_flags_are_compared_by_name_in_any_order_and_spelling() -> None:
    planned = ("engine", "serve", "--a", "1", "--b", "--c", "x", "y")
    assert fed.flags(planned) == {"--a": "1", "--b": "", "--c": "x y"}
    assert fed.flags(("python3", "engine", "--b", "--c", "x", "y", "--a=1")) == fed.flags(planned)


def test_simulated_cards_may_be_slow_but_not_idle_and_say_that_they_are_simulated() -> None:
    wished = plan(simulated=True, concurrency=8)
    slow = judge(wished, card(0, 6), card(1, 7))
    assert failed(slow) == []
    assert one(slow, "simulated GPU 0 fed").found == (
        "simulated GPU 0 busy 6 % over 8 s: simulated cards share the host's CPU cores"
    )
    idle = judge(wished, card(0, 60), card(1, 0, used=100))
    assert failed(idle) == ["simulated GPU 1 fed"]
    empty = judge(wished, card(0, 60), card(1, 60, used=100))
    assert failed(empty) == ["simulated GPU 1 memory"], "their memory is a real process's"
    found = one(idle, "simulated GPU 1 fed").found
    assert found.startswith("simulated GPU 1 idle: 0 % over 8 s under load")


def test_each_replica_is_judged_by_its_own_process() -> None:
    chosen = replace(
        TENSOR_PARALLEL, strategy=Strategy.REPLICAS, tensor_parallel_size=1, replicas=2
    )
    argv = ("/opt/engine", "--device", "CUDA0")
    units = tuple(
        RenderedUnit(Service(f"chat-{n}", argv, (), 8000 + n, "/health", (n,)), REVISION, (), 600)
        for n in range(2)
    )
    seen = tuple(
        replace(running(TENSOR_PARALLEL), unit=u.name, argv=argv, log=("world_size=1",))
        for u in units
    )
    seen = (seen[0], replace(seen[1], argv=("/opt/engine", "--device", "none")))
    observed = ServiceSeen("chat", LOAD, (card(0, 95), card(1, 0)), None, seen)
    checks = verdict.judge(plan(chosen), units, observed)
    assert "--device none (plan: CUDA0)" in one(checks, "GPU 1 fed").expected
    assert one(checks, "GPU 0 fed").ok


def test_every_failure_says_what_to_do() -> None:
    dead = replace(LOAD, completed=3, failed=8, error="refused")
    everything = judge(plan(), card(0, 0), card(1, error="lost"), load=dead, argv=(), log=())
    everything += judge(plan(), card(0, 20, used=1), active_state="failed")
    assert all(check.hint and check.found and check.expected for check in everything)


GOOD = """\
verify chat on tower: all checks passed
  ok    multigpu-chat.service is active (running)
  ok    multigpu-chat.service runs as planned, revision 0123456789abcdef
  ok    layers offloaded 65/65
  ok    412 completions, 0 failed in 8 s
  ok    GPU 0 busy 45 % over 8 s: 2 cards work in turn, this one about 51 % of
        the time
  ok    GPU 0 holds 20000 MiB, 19700 MiB predicted
  ok    GPU 1 busy 45 % over 8 s: 2 cards work in turn, this one about 49 % of
        the time
  ok    GPU 1 holds 20000 MiB, 19700 MiB predicted
  says  ' four, five, six,'"""

BAD = """\
verify chat on tower: 3 of 7 checks failed
  ok    multigpu-chat.service is active (running)
  ok    layers offloaded 65/65
  ok    412 completions, 0 failed in 8 s
  ok    GPU 0 busy 95 % over 8 s: 2 cards work in turn, this one about 51 % of
        the time
  FAIL  the running process carries --tensor-split 65,0 (plan: 33,32)
        expected revision 0123456789abcdef with the planned flags
        do       re-run deploys/serve.py: the unit on the host differs from the
                 plan
  FAIL  GPU 0 holds 24000 MiB, 19700 MiB predicted
        expected 12600 to 23167 MiB
        do       see who holds it: pid 42 24000 MiB
  FAIL  GPU 1 idle: 0 % over 8 s under load, 412 MiB used; planned 19.2 GiB
        expected both cards of the plan (llama.cpp, layer_split) to work; the
                 running process carries --tensor-split 65,0 (plan: 33,32)
        do       re-run deploys/serve.py: the unit on the host differs from the
                 plan
  says  ' four, five, six,'"""


def shown(wished: Plan, *cards: CardSeen, **more: Any) -> str:
    seen = see(wished, *cards, **more)
    return verdict.screen(wished, seen, verdict.judge(wished, (unit(wished.chosen),), seen))


@pytest.mark.parametrize("begins_s", [None, 3600.0])
def test_a_journal_that_lost_the_start_of_the_process_is_no_failure(begins_s: float | None) -> None:
    checks = judge(plan(LAYER_SPLIT), log=(), log_begins_s=begins_s)
    assert "offloaded" in {check.name for check in judge(plan(LAYER_SPLIT), log=())}
    (said,) = [check for check in checks if check.name == "log"]
    assert said.ok and "any more" in said.found


def test_the_screen_of_a_good_service() -> None:
    assert shown(SPLIT, card(0, 45), card(1, 45)) == GOOD


def test_the_screen_of_a_service_with_an_idle_card() -> None:
    argv = ("/opt/engine", "--port", "8000", "--split-mode", "layer", "--tensor-split", "65,0")
    assert shown(SPLIT, card(0, 95, used=24000), card(1, 0, used=412), argv=argv) == BAD


def test_the_screen_of_a_simulated_host_says_so_at_the_top() -> None:
    wished = plan(LAYER_SPLIT, simulated=True)
    first = shown(wished, card(0, 45), card(1, 45)).splitlines()[0]
    assert first == "verify chat on tower: all checks passed  (simulated GPUs)"


def test_the_summary_is_one_line_and_nothing_when_all_is_well() -> None:
    assert verdict.failure(SPLIT, judge(SPLIT, card(0, 45), card(1, 45))) is None
    line = verdict.failure(SPLIT, judge(SPLIT, card(0, 45), card(1, 0, used=412))) or ""
    assert "\n" not in line
    assert line.startswith("chat: 1 of 7 checks failed: GPU 1 idle: 0 % over 8 s under load")
    assert "; expected both cards" in line and "; do: " in line
