"""Pages of plans that a person looked at; `python -m tests.pages` writes them anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from multigpu.errors import NoPlan
from multigpu.explain import explain, explain_refusal
from multigpu.gpus import what_if
from multigpu.hardware import Host
from multigpu.parse.capture import read
from multigpu.plan import ModelSpec
from multigpu.planner import plan
from multigpu.store import models
from multigpu.wish import wishes
from tests.hosts import captured
from tests.machines import gguf

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
GGUF = "models/chat.gguf"


@dataclass(frozen=True)
class Case:
    """A machine of tests/hosts (or cards that nobody has), a model of inventories/models, a wish.

    `models/chat.gguf` is a GGUF of 8 GiB with the shapes of Llama 3.1 8B.
    """

    machine: str
    model: str
    wish: Mapping[str, Any] = field(default_factory=dict)
    pcie: str | None = None


CASES = {
    "single": Case("4090+3090", "Qwen3-8B", {"strategy": "single", "context": 8192}),
    "replicas": Case(
        "4x3090-two-bridges", "Qwen3-14B-AWQ", {"objective": "throughput", "concurrency": 64}
    ),
    "tensor-parallel": Case("2x3090-nvlink", "Qwen3-32B-AWQ", {"ttft_ms": 500, "tpot_ms": 40}),
    "pipeline-partitioned": Case(
        "5090+3090", "Qwen3-32B-AWQ", {"strategy": "pipeline_parallel", "concurrency": 4}
    ),
    "tensor-pipeline": Case(
        "4x3090-two-bridges",
        "Qwen3-32B-AWQ",
        {"strategy": "tensor_pipeline_parallel", "context": 32768, "objective": "throughput"},
    ),
    "layer-split": Case("4090+3090", GGUF, {"context": 32768, "strategy": "layer_split"}),
    "tensor-split": Case("2x3090-nvlink", GGUF, {"strategy": "tensor_split"}),
    "refusal": Case("2x3090-x4", "Llama-3.1-70B"),
    "refusal-pins": Case("2x3090-nvlink", "Llama-3.1-70B", {"gpus": [0]}),
    "amd": Case("2x7900xtx", GGUF, {"objective": "throughput"}),
    "vulkan": Case("2x7900xtx", GGUF, {"backend": "vulkan", "strategy": "layer_split"}),
    "mixed": Case("a6000+3090", "Qwen3-32B-AWQ", {"objective": "context"}),
    "eight-cards": Case(
        "8xH100-nvswitch", "Llama-3.1-70B", {"objective": "throughput", "concurrency": 256}
    ),
    "shared-prefix": Case(
        "2x3090-nvlink",
        "Qwen3-8B",
        {"concurrency": 8, "shared_prefix_tokens": 6000, "input_tokens": 7000, "context": 8192},
    ),
    "single-user": Case(
        "4090+3090", GGUF, {"runtime": "llama_cpp.server", "strategy": "layer_split"}
    ),
    "virtual-machine": Case("2x4090-vm", "Qwen3-32B-AWQ", {"env": {"NCCL_DEBUG": "INFO"}}),
    "what-if": Case("2x RTX 3090 + RTX 3060", "Qwen3-14B-AWQ", pcie="x8,x8,x4"),
}


@cache
def model(name: str) -> ModelSpec:
    """One of inventories/models, named as from the root of the repository."""
    if name == GGUF:
        return gguf(block_mib=230)
    return models.load(f"inventories/models/{name}", base=ROOT)


def machine(case: Case) -> Host:
    """The captured machine, or the cards as written."""
    if case.pcie is not None:
        return what_if.host(case.machine, case.pcie)
    return read(captured(case.machine), case.machine)


def page(name: str) -> str:
    """The page of that case as it is now."""
    case = CASES[name]
    (wish,) = wishes({"chat": {"model": model(case.model).name, **case.wish}})
    host = machine(case)
    try:
        return explain(plan(host, model(case.model), wish))
    except NoPlan as error:
        return explain_refusal(error, host.name)
