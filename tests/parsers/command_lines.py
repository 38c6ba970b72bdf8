"""Every command line that the test plans render, by runtime, each once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from benchmarks.random_hosts import hosts
from multigpu.errors import MultigpuError
from multigpu.hardware import Host
from multigpu.plan import ModelSpec, Plan
from multigpu.planner import plan
from multigpu.runtimes import RUNTIMES, runtime
from multigpu.wish import wishes
from tests import pages
from tests.machines import gguf
from tests.test_runtimes import PLANS

WISHED: tuple[dict[str, Any], ...] = (
    {},
    {"objective": "throughput", "concurrency": 32},
    {"objective": "context"},
    {"strategy": "replicas", "objective": "throughput"},
    {"strategy": "tensor_parallel", "kv_cache_dtype": "fp8"},
    {"strategy": "pipeline_parallel"},
    {"strategy": "tensor_split"},
    {"strategy": "layer_split", "cpu_offload_gib": 8},
    {"expert_parallel": True},
)
RANDOM_HOSTS = 60


@cache
def command_lines() -> dict[str, tuple[tuple[str, ...], ...]]:
    """Runtime -> argument lists as systemd starts them, executable first."""
    found: dict[str, dict[tuple[str, ...], None]] = {module.NAME: {} for module in RUNTIMES}
    for made in plans():
        name = made.chosen.runtime
        for service in runtime(name).render(made, "/opt/run", "/srv/model"):
            found[name][service.argv] = None
    return {name: tuple(lines) for name, lines in found.items()}


def plans() -> Iterator[Plan]:
    """Those of the tests of rendering, of the pages, and of random machines with every runtime."""
    for machine, model, keys in PLANS:
        yield from attempt(machine, model, keys)
    for case in pages.CASES.values():
        yield from attempt(pages.machine(case), pages.model(case.model), dict(case.wish))
    models = (gguf(), pages.model("Qwen3-8B"), pages.model("Qwen3-32B-AWQ"))
    for machine in hosts(RANDOM_HOSTS):
        for model in models:
            for keys in WISHED:
                for module in RUNTIMES:
                    yield from attempt(machine, model, {**keys, "runtime": module.NAME})


def attempt(machine: Host, model: ModelSpec, keys: dict[str, Any]) -> Iterator[Plan]:
    """The plan, or nothing where the wish cannot be had on this machine."""
    try:
        (wish,) = wishes({"chat": {"model": model.name, **keys}})
        yield plan(machine, model, wish)
    except MultigpuError:
        return
