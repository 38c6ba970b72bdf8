"""Kept plan or new plan, and what is refused before a host is touched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from multigpu import planfile
from multigpu.decide import Decision, decide
from multigpu.errors import MultigpuError, PlanFileError, WishError
from multigpu.hardware import Host
from multigpu.plan import ModelSpec, Strategy, Wish
from tests.machines import RTX_3090, RTX_4090, gguf, host

PATH = "plans/tower.yaml"
TOWER = host(RTX_3090, RTX_3090)
CHAT = {"model": "models/chat.gguf"}
ON_0 = {**CHAT, "gpus": [0]}
ON_1 = {**CHAT, "gpus": [1], "port": 8001}


class Models:
    """Gives one small model, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, wish: Wish) -> ModelSpec:
        self.asked.append(wish.model)
        return gguf()


def run(
    services: dict[str, Any],
    existing: str | None = None,
    machine: Host = TOWER,
    models: Models | None = None,
    anew: bool = False,
) -> Decision:
    return decide(
        machine, services, existing=existing, path=PATH, load_model=models or Models(), anew=anew
    )


def refusal(kind: type[MultigpuError], *arguments: Any, **more: Any) -> str:
    with pytest.raises(kind) as refused:
        run(*arguments, **more)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_wish_without_a_plan_is_planned_and_written() -> None:
    decision = run({"chat": CHAT})
    (plan,) = decision.plans
    assert (plan.host, plan.wish.name, plan.wish.model) == ("tower", "chat", "models/chat.gguf")
    assert planfile.read(decision.text, PATH) == {"chat": plan}


def test_a_stored_plan_is_kept_without_asking_for_the_model_again() -> None:
    first, models = run({"chat": CHAT}), Models()
    again = run({"chat": CHAT}, first.text, models=models)
    assert (again, models.asked) == (first, [])


def test_a_stored_plan_is_kept_though_the_service_now_fills_the_cards() -> None:
    first = run({"chat": CHAT})
    full = replace(TOWER, gpus=tuple(replace(gpu, memory_free_mib=100) for gpu in TOWER.gpus))
    assert run({"chat": CHAT}, first.text, full) == first


def test_a_changed_wish_is_planned_again() -> None:
    first, models = run({"chat": CHAT}), Models()
    again = run({"chat": {**CHAT, "context": 4096}}, first.text, models=models)
    assert models.asked == ["models/chat.gguf"]
    assert again.plans[0].wish.context == 4096


def test_a_pin_in_the_plan_file_wins_over_the_inventory() -> None:
    first = run({"chat": {**CHAT, "port": 9000}})
    edited = first.text.replace("pins: {}", "pins: {gpus: [1], port: 9001}")
    (plan,) = run({"chat": {**CHAT, "port": 9000}}, edited).plans
    assert (plan.chosen.gpus, plan.wish.port) == ((1,), 9001)
    assert "gpus" in plan.pinned


def test_planning_anew_plans_even_what_holds_and_keeps_pins_and_comments() -> None:
    first, models = run({"chat": CHAT}), Models()
    edited = first.text.replace("    pins: {}", "    # mine\n    pins: {gpus: [1]}")
    again = run({"chat": CHAT}, edited, models=models, anew=True)
    assert models.asked == ["models/chat.gguf"]
    assert "    # mine\n    pins: {gpus: [1]}\n" in again.text


def test_planning_anew_gets_over_a_plan_of_another_version() -> None:
    value = {"host": "tower"}
    old = f"services: {{chat: {{plan: {{host: tower}}, digest: {planfile._digest(value)}}}}}"
    assert "another version: run deploys/plan.py" in refusal(PlanFileError, {"chat": CHAT}, old)
    assert run({"chat": CHAT}, old, anew=True).plans == run({"chat": CHAT}).plans


def test_a_hand_edit_is_refused_even_when_planning_anew() -> None:
    edited = run({"chat": CHAT}).text.replace("runtime: llama.cpp", "runtime: vllm", 1)
    assert "edited by hand" in refusal(PlanFileError, {"chat": CHAT}, edited)
    assert "edited by hand" in refusal(PlanFileError, {"chat": CHAT}, edited, anew=True)


def test_what_is_served_is_what_the_file_says() -> None:
    decision = run({"chat": ON_0, "coder": {**ON_1, "port": 9000}})
    written = planfile.read(decision.text, PATH)
    assert decision.plans == (written["chat"], written["coder"])


def test_a_planned_card_that_was_swapped_is_named_with_what_is_there_now() -> None:
    first = run({"chat": {**CHAT, "gpus": [0, 1]}})
    new = replace(TOWER.gpus[1], uuid="GPU-new", name="RTX 4090")
    swapped = replace(TOWER, gpus=(TOWER.gpus[0], new))
    message = refusal(MultigpuError, {"chat": {**CHAT, "gpus": [0, 1]}}, first.text, swapped)
    assert message == (
        "plans/tower.yaml plans GPU 1 as GPU-00000001, tower has RTX 4090 GPU-new there: "
        "review with deploys/plan.py"
    )


@pytest.mark.parametrize("change", [{"error": "GPU is lost"}, {"memory_mib": None}, {"mig": True}])
def test_a_planned_card_that_cannot_be_used_any_more_is_refused(change: dict[str, Any]) -> None:
    first = run({"chat": ON_0})
    broken = replace(TOWER, gpus=(replace(TOWER.gpus[0], **change), TOWER.gpus[1]))
    message = refusal(MultigpuError, {"chat": ON_0}, first.text, broken)
    assert "tower has no usable card there" in message


def test_a_planned_card_that_is_gone_is_refused() -> None:
    first = run({"chat": ON_1})
    message = refusal(MultigpuError, {"chat": ON_1}, first.text, host(RTX_3090))
    assert message.startswith("plans/tower.yaml plans GPU 1 as GPU-00000001, tower has no usable")


def test_two_services_on_one_port_are_refused() -> None:
    message = refusal(MultigpuError, {"chat": ON_0, "coder": {**ON_1, "port": 8000}})
    assert message == "tower: chat and coder both use port 8000: set another port"


def test_replicas_take_a_port_each() -> None:
    machine = host(RTX_4090, RTX_4090, RTX_4090)
    chat = {**CHAT, "strategy": Strategy.REPLICAS, "gpus": [0, 1]}
    coder = {**CHAT, "gpus": [2], "port": 8001}
    message = refusal(MultigpuError, {"chat": chat, "coder": coder}, machine=machine)
    assert message == "tower: chat and coder both use port 8001: set another port"


def test_two_services_on_one_card_are_refused() -> None:
    message = refusal(MultigpuError, {"chat": ON_0, "coder": {**ON_0, "port": 8001}})
    assert message == "tower: chat and coder both use GPU 0: pin gpus of each"


def test_a_service_named_like_the_replica_of_another_is_refused() -> None:
    machine = host(RTX_4090, RTX_4090, RTX_4090)
    chat = {**CHAT, "strategy": "replicas", "gpus": [0, 1]}
    message = refusal(
        MultigpuError, {"chat": chat, "chat-1": {**CHAT, "gpus": [2], "port": 9}}, machine=machine
    )
    assert message == (
        "tower: chat and chat-1 both have a process named chat-1: name one of them otherwise"
    )


def test_pins_of_a_service_that_nobody_wishes_are_refused() -> None:
    edited = run({"chat": CHAT}).text.replace("pins: {}", "pins: {gpus: [1]}")
    message = refusal(MultigpuError, {"coder": CHAT}, edited)
    assert message == (
        "plans/tower.yaml: pins for chat, which the inventory does not ask for: remove them or "
        "add the service"
    )


def test_a_service_without_pins_leaves_the_file_when_nobody_wishes_it() -> None:
    decision = run({"coder": CHAT}, run({"chat": CHAT}).text)
    assert set(planfile.read(decision.text, PATH)) == {"coder"}


@pytest.mark.parametrize("wished", ["models/chat.gguf", None, 3, ["model"]])
def test_a_service_that_is_no_mapping_is_a_wish_error(wished: Any) -> None:
    assert "chat: is not a dict" in refusal(WishError, {"chat": wished})


def test_a_pin_that_is_no_key_of_a_service_names_the_nearest() -> None:
    edited = run({"chat": CHAT}).text.replace("pins: {}", "pins: {gpu: [1]}")
    assert "did you mean 'gpus'?" in refusal(WishError, {"chat": CHAT}, edited)
