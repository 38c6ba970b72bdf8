"""No rendered flag without a sentence of why."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multigpu.hardware import Host
from multigpu.page.flag_reasons import INVENTORY, REASONS, UNEXPLAINED, explained, why
from multigpu.plan import ModelSpec, Plan
from multigpu.planner import plan
from multigpu.runtimes import runtime
from multigpu.wish import wishes
from tests import plans
from tests.machines import H100, RTX_3060, RTX_3090, RTX_4090, gguf, hf, host, llama_70b

RUNTIMES = Path(__file__).parent.parent / "multigpu" / "runtimes"


def named() -> dict[str, str]:
    """Flags that the runtimes' modules write, with a file that does.

    Written are keys of a dict and of an assignment; others are read in the wish or said in a hint.
    """
    found: dict[str, str] = {}
    for file in sorted(RUNTIMES.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            keys: list[ast.expr | None] = node.keys if isinstance(node, ast.Dict) else []
            if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
                keys = [node.slice]
            for key in keys:
                value = key.value if isinstance(key, ast.Constant) else None
                if isinstance(value, str) and re.fullmatch(r"--[a-z][a-z0-9-]+", value):
                    found.setdefault(value, file.name)
    return found


def test_every_flag_that_a_runtime_names_has_a_reason() -> None:
    missing = [
        f'    "{flag}": "...",  # {file}' for flag, file in named().items() if flag not in REASONS
    ]
    assert len(named()) > 20
    assert not missing, "add to REASONS of multigpu/page/flag_reasons.py:\n" + "\n".join(missing)


PLANS = [
    (host(RTX_3090, RTX_3090), hf(), {}),
    (host(RTX_3090, RTX_3090), hf(), {"objective": "throughput", "concurrency": 32}),
    (host(RTX_3090, RTX_4090), hf(), {"strategy": "pipeline_parallel", "context": 4096}),
    (host(*[H100] * 8, nvlinks=18), llama_70b(), {"objective": "context"}),
    (host(RTX_3090, RTX_3060), gguf(block_mib=700), {"context": 2048}),
    (host(RTX_3090, RTX_3090), gguf(), {"objective": "throughput"}),
]


def made(machine: Host, model: ModelSpec, keys: dict[str, Any]) -> Plan:
    (wish,) = wishes({"chat": {"model": model.name, **keys}})
    return plan(machine, model, wish)


@pytest.mark.parametrize(("machine", "model", "keys"), PLANS)
def test_every_flag_of_a_command_is_explained_and_none_is_invented(
    machine: Host, model: ModelSpec, keys: dict[str, Any]
) -> None:
    chosen = made(machine, model, keys)
    for service in runtime(chosen.chosen.runtime).render(chosen, "engine", "model"):
        found = explained(chosen, service.argv)
        assert UNEXPLAINED not in [setting.why for setting in found]
        words = [word for s in found for word in (s.name, s.value) if word]
        assert list(service.argv[-len(words) :]) == words
        assert all("None" not in setting.why for setting in found)


def test_flags_of_the_inventory_say_so() -> None:
    flags = {"--kv-cache-dtype": "fp8", "--enforce-eager": None}
    chosen = made(host(RTX_3090, RTX_3090), hf(), {"flags": flags})
    (service,) = runtime("vllm").render(chosen, "vllm", "org/model")
    ours = {s.name: s.value for s in explained(chosen, service.argv) if s.why == INVENTORY}
    assert ours == {"--kv-cache-dtype": "fp8", "--enforce-eager": ""}


def test_a_value_that_looks_like_a_flag_stays_with_its_flag() -> None:
    odd = plans.plan(flags={"--alias": "--odd", "--metrics": None})
    found = explained(odd, ("vllm", "serve", "m", "--alias", "--odd", "--metrics", "--port", "1"))
    pairs = [(s.name, s.value) for s in found]
    assert pairs == [("--alias", "--odd"), ("--metrics", ""), ("--port", "1")]


@pytest.mark.parametrize(
    ("offload", "said"),
    [
        ({}, "unnoticed"),
        ({"gpu_layers": 20}, "as wished: so many layers on the cards"),
        ({"cpu_moe_layers": 4}, "but for the weights that are wished into host memory"),
    ],
)
def test_the_reason_of_gpu_layers_does_not_contradict_what_is_offloaded(
    offload: dict[str, int], said: str
) -> None:
    made = plan(host(RTX_3090), gguf(), *wishes({"chat": {"model": "m.gguf"}}))
    changed = replace(made, chosen=replace(made.chosen, **offload))  # type: ignore[arg-type]
    assert said in why(changed, "--gpu-layers")
