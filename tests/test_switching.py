"""A service keeps its runtime for its first week of use, unless somebody says otherwise."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.decide import decide
from multigpu.hardware import Host, ManagedFile, UnitState
from multigpu.plan import Plan
from multigpu.planner import plan
from multigpu.switching import SETTLED_S, record_path, records, refusal, running, unwanted, uses
from multigpu.wish import wishes
from tests.machines import RTX_3090, hf, host

NOW = 1_795_000_000.0
DAY_S = 24 * 3600


def planned(name: str = "chat", **keys: Any) -> Plan:
    (wish,) = wishes({name: {"model": "org/model", **keys}})
    return plan(host(RTX_3090, RTX_3090), hf(), wish)


def machine(
    content: str | None, state: str = "active", unit: str = "multigpu-chat.service"
) -> Host:
    files = (
        () if content is None else (ManagedFile(record_path("chat"), "0" * 64, content=content),)
    )
    units = (UnitState(name=unit, active_state=state),)
    return replace(host(RTX_3090, RTX_3090), files=files, units=units)


def since(seconds: float, runtime: str = "llama.cpp") -> str:
    return json.dumps({"runtime": runtime, "since": NOW - seconds})


def test_another_runtime_within_a_week_is_refused_with_what_to_do() -> None:
    found = refusal(machine(since(2 * DAY_S)), [planned()], NOW)
    assert found is not None and "\n" not in found
    assert found.startswith("tower: chat is in use with llama.cpp since 2026-11-")
    assert "vLLM is planned for its wish now" in found
    assert "pin runtime = 'llama.cpp' to keep it" in found
    assert "wait 5 d" in found and "set switch_runtime = True" in found
    assert "--data switch_runtime=chat" in found


def test_who_pinned_the_other_runtime_is_not_told_to_pin() -> None:
    found = refusal(machine(since(3600)), [planned(runtime="vllm")], NOW) or ""
    assert "vLLM is pinned" in found and "to keep it" not in found and "wait 6 d 23 h" in found


@pytest.mark.parametrize(
    ("there", "keys", "allowed"),
    [
        (machine(since(SETTLED_S)), {}, ()),
        (machine(since(DAY_S, "vllm")), {}, ()),
        (machine(since(DAY_S)), {"switch_runtime": True}, ()),
        (machine(since(DAY_S)), {}, ("chat",)),
        (machine(since(DAY_S), state="failed"), {}, ()),
        (machine(since(DAY_S), state="activating"), {}, ()),
        (machine(since(DAY_S), unit="multigpu-chatter.service"), {}, ()),
        (machine(None), {}, ()),
        (machine("{"), {}, ()),
        (machine('{"runtime": 3, "since": "x"}'), {}, ()),
        (machine("[]"), {}, ()),
    ],
    ids=[
        "a week is over",
        "the same runtime",
        "the wish allows it",
        "this run allows it",
        "it failed",
        "it never came up",
        "another service of a like name",
        "no record",
        "a broken record",
        "a record of other types",
        "a record that is no mapping",
    ],
)
def test_nothing_stands_against_it(there: Host, keys: dict[str, Any], allowed: Any) -> None:
    assert refusal(there, [planned(**keys)], NOW, allowed) is None


def test_replicas_are_the_service_too() -> None:
    assert running(machine(None, unit="multigpu-chat-1.service"), "chat")
    assert refusal(machine(since(9), unit="multigpu-chat-0.service"), [planned()], NOW)


def test_a_clock_that_was_ahead_adds_no_more_than_a_week() -> None:
    found = refusal(machine(since(-100 * DAY_S)), [planned()], NOW) or ""
    assert "wait 7 d," in found


@given(st.floats(-1e7, 1e7))
def test_it_is_refused_for_a_week_and_no_longer(age_s: float) -> None:
    found = refusal(machine(since(age_s)), [PLAN], NOW)
    assert (found is not None) == (age_s < SETTLED_S)


PLAN = planned()


def test_what_is_written_is_read_back_and_then_nothing_is_left_to_write() -> None:
    (file,) = records(machine(None), [PLAN], NOW)
    after = machine(file.content)
    (use,) = uses(after).values()
    assert (use.service, use.runtime, use.since) == ("chat", "vllm", NOW)
    assert records(after, [PLAN], NOW + DAY_S) == ()
    assert refusal(after, [PLAN], NOW + DAY_S) is None


def test_a_switch_begins_a_new_week() -> None:
    (file,) = records(machine(since(SETTLED_S + 1)), [PLAN], NOW)
    assert json.loads(file.content) == {"runtime": "vllm", "since": int(NOW)}


def test_records_of_services_that_are_gone_are_removed() -> None:
    assert unwanted(machine(since(1)), ("rag",)) == (record_path("chat"),)
    assert unwanted(machine(since(1)), ("chat",)) == ()


def test_allowing_a_switch_makes_no_new_plan() -> None:
    there = host(RTX_3090, RTX_3090)
    services = {"chat": {"model": "org/model"}}
    asked: list[str] = []

    def load(wish: Any) -> Any:
        asked.append(wish.name)
        return hf()

    first = decide(there, services, existing=None, path="p", load_model=load)
    told = {"chat": {"model": "org/model", "switch_runtime": True}}
    second = decide(there, told, existing=first.text, path="p", load_model=load)
    assert asked == ["chat"] and second.plans[0].wish.switch_runtime is True
    assert second.plans[0].chosen == first.plans[0].chosen
    third = decide(there, services, existing=second.text, path="p", load_model=load)
    assert third.plans == first.plans and len(asked) == 1
