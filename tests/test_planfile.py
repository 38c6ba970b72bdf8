"""`plans/<host>.yaml` as a person and the next run find it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu import planfile, planner
from multigpu.errors import PlanFileError
from multigpu.page.alternatives import best, kind
from multigpu.plan import (
    Estimate,
    Plan,
    Prediction,
    Reason,
    Rejected,
)
from multigpu.stored import stored
from multigpu.wish import wishes
from tests.machines import H100, RTX_3090, hf, host, llama_70b
from tests.plans import LAYER_SPLIT, MEMORY, TENSOR_PARALLEL, plan
from tests.random_plans import plans

PATH = "plans/tower.yaml"
CHAT = plan()
CODER = plan(LAYER_SPLIT, name="coder", port=8001)


def write(*plans: Plan, existing: str | None = None) -> str:
    return planfile.write("tower", plans, existing, PATH)


def refusal(text: str) -> str:
    with pytest.raises(PlanFileError) as refused:
        planfile.read(text, PATH)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_what_is_written_is_read_back() -> None:
    assert planfile.read(write(CHAT, CODER), PATH) == {"chat": stored(CHAT), "coder": stored(CODER)}


def test_a_file_that_is_not_there_has_no_plans_and_no_pins() -> None:
    assert planfile.read(None, PATH) == {}
    assert planfile.pins("\n", PATH) == {}


def test_writing_the_same_plans_again_changes_no_byte() -> None:
    text = write(CHAT, CODER)
    assert write(CHAT, CODER, existing=text) == text
    assert write(*planfile.read(text, PATH).values(), existing=text) == text


def test_the_choice_and_its_reasons_come_before_the_long_tables() -> None:
    text = write(CHAT)
    assert text.startswith("# What multigpu plans for tower")
    order = ["pins: {}", "chosen:", "reasons:", "rejected:", "wish:", "model:", "digest:"]
    places = [text.index(word) for word in order]
    assert places == sorted(places)


def test_memory_is_one_line_a_card_and_equal_layers_one_line() -> None:
    full = replace(MEMORY, graphs_mib=900.0, other_mib=312.0)
    chosen = replace(TENSOR_PARALLEL, memory=(full, MEMORY, MEMORY, MEMORY))
    lines = write(replace(CHAT, chosen=chosen)).splitlines()
    assert (
        "          - {count: 1, weights: 10000, kv_cache: 8000, activations: 1200, overhead: 500, "
        "capacity: 23800, graphs: 900, other: 312}"
    ) in lines
    assert sum("{count: 3, weights: 10000, kv_cache: 8000" in line for line in lines) == 1
    assert "          - {count: 64, each: 240.5}" in lines
    assert max(map(len, lines)) <= planfile.WIDTH


def test_ways_refused_for_the_same_reason_share_it_and_take_a_line_each() -> None:
    ways = [replace(LAYER_SPLIT, gpus=(n, n + 1)) for n in range(20)]
    same = tuple(Rejected(way, (Reason("memory-fit", "too large", "less"),)) for way in ways)
    few, many = write(replace(CHAT, rejected=same[:1])), write(replace(CHAT, rejected=same))
    assert len(many.splitlines()) == len(few.splitlines()) + 19
    assert many.count("memory-fit") == 1


def test_a_plan_for_eight_cards_can_be_reviewed() -> None:
    """The whole file, every refusal included, stays far below a thousand lines."""
    (wish,) = wishes({"chat": {"model": "org/model"}})
    made = planner.plan(host(*[H100] * 8, nvlinks=18), llama_70b(), wish)
    assert len(made.rejected) > 10 and len(write(made).splitlines()) < 600


def test_the_page_of_a_plan_file_has_the_alternatives_and_the_rules_of_the_plan() -> None:
    (wish,) = wishes({"chat": {"model": "org/model"}})
    made = planner.plan(host(RTX_3090, RTX_3090), hf(), wish)
    (kept,) = planfile.read(write(made), PATH).values()
    assert [kind(item.candidate) for item in best(kept)] == [
        kind(item.candidate) for item in best(made)
    ]
    rules = {reason.rule for item in made.rejected for reason in item.reasons}
    assert all(f"[{rule}]" in kept.explain() for rule in rules)


def test_comments_pins_and_unknown_keys_survive_a_plan_anew() -> None:
    text = write(CHAT, CODER)
    text = text.replace("schema: 2", "# reviewed by Ada\nschema: 2\ncontact: ada  # on call")
    text = text.replace(
        "  chat:\n    pins: {}\n",
        "  # the family's chat\n  chat:\n    owner: grandmother\n    pins:\n"
        "      port: 9000  # the proxy knows it\n      # no more than both cards\n"
        "      gpus: [0, 1]\n",
    )
    text = text.replace("    digest: ", "    # ask before changing\n    digest: ", 1)
    anew = replace(CHAT, chosen=LAYER_SPLIT, warnings=(Reason("pcie-narrow", "x4 of x16"),))
    again = write(anew, CODER, existing=text)
    for kept in (
        "# reviewed by Ada",
        "contact: ada  # on call",
        "  # the family's chat",
        "    owner: grandmother",
        "      port: 9000  # the proxy knows it",
        "      # no more than both cards",
        "    # ask before changing",
    ):
        assert kept in again.splitlines()
    assert planfile.pins(again, PATH) == {"chat": {"port": 9000, "gpus": [0, 1]}, "coder": {}}
    assert planfile.read(again, PATH) == {"chat": stored(anew), "coder": stored(CODER)}


def test_a_service_that_is_not_wished_any_more_leaves_the_file() -> None:
    text = write(CODER, existing=write(CHAT, CODER))
    assert set(planfile.read(text, PATH)) == {"coder"}


@pytest.mark.parametrize("name", ["plan", "services", "pins", "digest", "no", "1e5", "0777"])
def test_a_service_may_have_any_name(name: str) -> None:
    odd = plan(name=name)
    text = write(odd, existing=write(odd))
    assert planfile.read(text, PATH) == {name: stored(odd)}
    assert planfile.pins(text, PATH) == {name: {}}


def test_a_plan_edited_by_hand_is_refused_with_the_way_out() -> None:
    edited = write(CHAT, CODER).replace("tensor_parallel_size: 2", "tensor_parallel_size: 1")
    assert refusal(edited) == (
        "plans/tower.yaml: the plan of chat was edited by hand: undo the edit, put the change into "
        "its pins and run deploys/plan.py; or delete the file to plan anew"
    )
    with pytest.raises(PlanFileError, match="edited by hand"):
        planfile.check(edited, PATH)


def test_a_key_added_to_a_plan_by_hand_is_refused_too() -> None:
    assert "edited by hand" in refusal(
        write(CHAT).replace("      chosen:", "      a: 1\n      chosen:")
    )


def test_a_number_that_only_changes_its_type_is_no_hand_edit() -> None:
    text = write(replace(CHAT, chosen=replace(TENSOR_PARALLEL, gpu_memory_utilization=1)))
    whole = replace(CHAT, chosen=replace(TENSOR_PARALLEL, gpu_memory_utilization=1.0))
    assert planfile.read(write(whole, existing=text), PATH) == {"chat": stored(whole)}


def test_broken_yaml_names_the_file_the_line_and_the_way_out() -> None:
    message = refusal("schema: 2\nservices:\n  chat: {pins: [\n")
    assert message.startswith("plans/tower.yaml line 4: not YAML: ")
    assert message.endswith("mend it, or delete the file to plan anew")


def test_a_key_given_twice_is_refused_in_one_line() -> None:
    assert refusal("schema: 2\nschema: 2\n").startswith("plans/tower.yaml line 2: not YAML: ")


def test_a_file_of_an_older_schema_is_refused_with_what_to_do_about_its_pins() -> None:
    message = refusal("schema: 1\nservices: {}\n")
    assert "schema 1, this multigpu reads 2: copy its pins, delete the file" in message


def test_a_file_of_a_later_schema_is_refused() -> None:
    assert "schema 3, this multigpu reads 2" in refusal("schema: 3\nservices: {}\n")


@pytest.mark.parametrize("text", ["[]", "services: 3", "just words", "services:\n  chat: 3"])
def test_a_file_that_is_no_plan_file_is_refused(text: str) -> None:
    assert "services" in refusal(text)


def test_pins_that_are_no_mapping_are_refused() -> None:
    with pytest.raises(PlanFileError, match="pins of chat must be a mapping"):
        planfile.pins("services: {chat: {pins: [gpus]}}", PATH)


def test_a_whole_plan_of_another_shape_asks_for_a_new_one() -> None:
    value = {"host": "tower"}
    text = f"services: {{chat: {{plan: {{host: tower}}, digest: {planfile._digest(value)}}}}}"
    assert refusal(text).endswith("the plan of chat is of another version: run deploys/plan.py")
    planfile.check(text, PATH)


def test_memory_is_rounded_to_a_mebibyte_and_speeds_to_six_digits() -> None:
    odd = replace(MEMORY, weights_mib=10000.4)
    speed = Prediction(Estimate(41.2345678, 30.0, 1234567.0), basis="rows")
    chosen = replace(TENSOR_PARALLEL, memory=(odd, odd), predicted=speed)
    read = planfile.read(write(replace(CHAT, chosen=chosen)), PATH)["chat"].chosen
    assert read.memory == (MEMORY, MEMORY)
    assert read.predicted == Prediction(Estimate(41.2346, 30.0, 1234570.0), basis="rows")


@pytest.mark.parametrize(
    "odd", [":a", "- a", "{a", "a, b", "#", "? a", "?a", "--a", "a: b", "''", "~", "\x85"]
)
def test_words_with_a_meaning_to_yaml_are_read_back(odd: str) -> None:
    for value in (odd, ""):
        wished = plan(env={odd: value}, flags={odd: None}, devices=(odd, "CUDA0"))
        before = write(plan(env={"A": "1"}))
        assert planfile.read(write(wished), PATH) == {"chat": stored(wished)}
        assert planfile.read(write(wished, existing=before), PATH) == {"chat": stored(wished)}


@given(st.lists(plans(), max_size=2, unique_by=lambda p: p.wish.name), plans())
def test_any_plans_are_read_back_whatever_was_in_the_file_before(
    wanted: list[Plan], before: Plan
) -> None:
    for existing in (None, write(before)):
        text = write(*wanted, existing=existing)
        assert planfile.read(text, PATH) == {each.wish.name: stored(each) for each in wanted}
        assert write(*wanted, existing=text) == text
