"""The page of a plan and of a refusal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from multigpu.errors import NoPlan
from multigpu.explain import explain, explain_refusal, short
from multigpu.hardware import Host
from multigpu.plan import (
    Estimate,
    ModelSpec,
    Objective,
    Plan,
    Prediction,
    Reason,
    Rejected,
    Strategy,
    Workload,
)
from multigpu.planner import plan
from multigpu.wish import wishes
from tests import plans
from tests.machines import H100, RTX_3060, RTX_3090, RTX_4090, gguf, hf, host, llama_70b


def screen(machine: Host, model: ModelSpec, **keys: Any) -> str:
    (wish,) = wishes({"chat": {"model": model.name, **keys}})
    return explain(plan(machine, model, wish))


def speed(tokens: float, **known: Any) -> Prediction:
    """So many tokens per second, within a fifth either way."""

    def near(value: float) -> Estimate:
        return Estimate(value, 0.8 * value, 1.2 * value)

    return Prediction(near(tokens), near(50 * tokens), near(540), near(1000 / tokens), **known)


def predicted(ours: float, theirs: float, **known: Any) -> Plan:
    """A plan with one alternative, a pipeline of the same cards."""
    chosen = replace(plans.TENSOR_PARALLEL, predicted=speed(ours, **known))
    other = replace(
        chosen,
        strategy=Strategy.PIPELINE_PARALLEL,
        tensor_parallel_size=1,
        pipeline_parallel_size=2,
        layers=(33, 31),
        predicted=speed(theirs),
    )
    lost = Rejected(other, (Reason("ranked-lower", "the cards work in turn"),))
    return replace(plans.plan(chosen), rejected=(lost,))


SCREENS = [
    (host(RTX_3090, RTX_3090), hf(), {}),
    (host(RTX_3090, RTX_4090), hf(), {"objective": "context", "context": 32768}),
    (host(RTX_3090, RTX_3060), hf(), {"context": 16384}),
    (host(*[H100] * 8, nvlinks=18), llama_70b(), {"objective": "throughput"}),
    (host(RTX_3090, RTX_3060, simulated=True), gguf(block_mib=700), {"context": 2048}),
]


@pytest.mark.parametrize(("machine", "model", "keys"), SCREENS)
def test_a_page_is_plain_text_of_eighty_columns(
    machine: Host, model: ModelSpec, keys: dict[str, Any]
) -> None:
    lines = screen(machine, model, **keys).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert len(lines) < 200 and all(line.isprintable() for line in lines)


def test_the_chosen_way_and_the_memory_of_its_cards_are_shown() -> None:
    text = screen(host(RTX_3090, RTX_3090), hf())
    assert text.startswith("chat on tower: vLLM, tensor parallel 2, GPU 0, 1\n")
    assert "weights" in text and "  GPU 0, 1  " in text
    assert "tokens" in text and "[tensor-parallel]" in text and "[ranked-lower]" in text


def test_what_the_wish_leaves_open_is_marked_as_a_default() -> None:
    asked = screen(host(RTX_3090, RTX_3090), hf(), context=4096)
    assert "context 4,096," in asked and "1 request at a time (default)" in asked


def test_pins_are_marked() -> None:
    text = screen(host(RTX_3090, RTX_3090), hf(), strategy="single", gpus=[1])
    assert "pinned    strategy single, gpus 1" in text


def test_a_simulated_host_says_so() -> None:
    assert "simulated" in screen(host(RTX_3090, RTX_3090, simulated=True), hf())
    assert "simulated" not in screen(host(RTX_3090, RTX_3090), hf())


def test_speeds_have_a_range_and_a_basis_and_stand_beside_those_of_the_alternative() -> None:
    text = explain(predicted(41.3, 30.0, basis="14 measured rows"))
    assert "decode                  41 tokens/s        (33 to 50)\n" in text
    assert "basis     14 measured rows" in text
    assert "  this plan                   41     2,060   540    24" in text
    assert "  1  vLLM PP 2 (33+31)        30     1,500   540    33" in text


def test_a_measured_speed_is_called_measured_and_its_basis_cited() -> None:
    text = explain(predicted(41.3, 30.0, basis="bench of 2026-11-23", measured=True))
    assert "Measured at 1 request" in text and "Predicted" not in text
    assert "measured on this rig: bench of 2026-11-23" in text


def test_what_is_not_known_is_unknown_with_the_reason() -> None:
    chosen = replace(plans.TENSOR_PARALLEL, predicted=Prediction(unknown=("no bandwidth of X",)))
    text = explain(plans.plan(chosen))
    assert "speed unknown: no bandwidth of X" in text and "tokens/s" not in text


def test_a_bound_is_held_or_missed() -> None:
    load = Workload(Objective.LATENCY, 8192, 1, 1024, 256, ttft_ms=500, tpot_ms=30)
    text = explain(replace(predicted(41.3, 30.0), workload=load))
    assert "<= 500: missed" in text and "<= 30: held" in text


def test_the_second_and_what_is_close_to_it_are_measured_and_told_what_they_must_show() -> None:
    text = explain(predicted(41.3, 30.0))
    assert "a whole request in less than 6.7 s (9.1 predicted, 7.3 to 11)" in " ".join(text.split())
    assert "{strategy: pipeline_parallel, layers: [33, 31], gpus: [0, 1]}" in text
    assert "--random-input-len 1024" in text


def test_the_short_screen_is_the_beginning_of_the_page() -> None:
    made = predicted(41.3, 35.0)
    *lines, blank, more, command = short(made, "plans/tower.yaml").splitlines()
    assert explain(made).splitlines()[: len(lines)] == lines
    assert blank == "" and more.endswith("every refusal:")
    assert command.strip() == "python -m multigpu page plans/tower.yaml chat"


def test_a_refusal_lists_what_was_tried_and_what_to_do() -> None:
    (wish,) = wishes({"chat": {"model": "org/model"}})
    with pytest.raises(NoPlan) as caught:
        plan(host(RTX_3090, RTX_3090), llama_70b(), wish)
    text = explain_refusal(caught.value, "tower")
    assert text.startswith("chat on tower: no plan\n")
    assert "Nearest: vLLM" in text and "[memory-fit]" in text and "smaller quantization" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_the_smallest_change_stands_on_the_page_of_a_refusal() -> None:
    lost = (Rejected(plans.TENSOR_PARALLEL, (Reason("memory-fit", "too large"),)),)
    change = Reason("memory-fit", "context 4,096 instead of 8,192", "it fits with 0.3 GiB spare")
    text = explain_refusal(NoPlan("no", lost, "chat", changes=(change,)), "tower")
    assert "  - context 4,096 instead of 8,192: it fits with 0.3 GiB spare" in text
