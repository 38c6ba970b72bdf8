"""The plan screen."""

from __future__ import annotations

from typing import Any

import pytest

from multigpu.errors import NoPlan
from multigpu.explain import explain, explain_refusal
from multigpu.hardware import Host
from multigpu.plan import ModelSpec
from multigpu.planner import plan
from multigpu.wish import wishes
from tests.machines import H100, RTX_3060, RTX_3090, RTX_4090, gguf, hf, host, llama_70b


def screen(machine: Host, model: ModelSpec, **keys: Any) -> str:
    (wish,) = wishes({"chat": {"model": model.name, **keys}})
    return explain(plan(machine, model, wish))


SCREENS = [
    (host(RTX_3090, RTX_3090), hf(), {}),
    (host(RTX_3090, RTX_4090), hf(), {"objective": "context", "context": 32768}),
    (host(RTX_3090, RTX_3060), hf(), {"context": 16384}),
    (host(*[H100] * 8, nvlinks=18), llama_70b(), {"objective": "throughput"}),
    (host(RTX_3090, RTX_3060, simulated=True), gguf(block_mib=700), {"context": 2048}),
]


@pytest.mark.parametrize(("machine", "model", "keys"), SCREENS)
def test_a_screen_is_plain_text_of_eighty_columns(
    machine: Host, model: ModelSpec, keys: dict[str, Any]
) -> None:
    lines = screen(machine, model, **keys).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert len(lines) < 60 and all(line.isprintable() for line in lines)


def test_the_chosen_way_and_the_memory_of_its_cards_are_shown() -> None:
    text = screen(host(RTX_3090, RTX_3090), hf())
    assert text.startswith("chat on tower: vLLM, tensor parallel 2, GPU 0, 1\n")
    assert "GPU 0, 1: 21.6 of 21.6 GiB (weights 7.7" in text
    assert "tokens" in text and "[tensor-parallel]" in text and "[ranked-lower]" in text


def test_pins_are_marked() -> None:
    text = screen(host(RTX_3090, RTX_3090), hf(), strategy="single", gpus=[1])
    assert "pinned    strategy single, gpus 1" in text


def test_a_simulated_host_says_so() -> None:
    assert "simulated" in screen(host(RTX_3090, RTX_3090, simulated=True), hf())
    assert "simulated" not in screen(host(RTX_3090, RTX_3090), hf())


def test_no_speed_is_printed() -> None:
    assert "tok/s" not in screen(host(RTX_3090, RTX_3090), hf())


def test_a_refusal_lists_what_was_tried_and_what_to_do() -> None:
    (wish,) = wishes({"chat": {"model": "org/model"}})
    with pytest.raises(NoPlan) as caught:
        plan(host(RTX_3090, RTX_3090), llama_70b(), wish)
    text = explain_refusal(caught.value, "tower")
    assert text.startswith("chat on tower: no plan\n")
    assert "[memory-fit]" in text and "smaller quantization" in text
    assert max(len(line) for line in text.splitlines()) <= 80
