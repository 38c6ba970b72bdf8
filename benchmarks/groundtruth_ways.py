"""The way of serving that a line of the published measurements was run with, as a candidate."""

from __future__ import annotations

import re
from dataclasses import replace

from benchmarks.groundtruth_lines import number
from multigpu.errors import MultigpuError
from multigpu.hardware import Host
from multigpu.plan import Candidate, ModelSpec, Strategy, Wish, Workload
from multigpu.runtimes import runtime

# A runtime of the table that the planner does not render; its memory is sized as vLLM's.
STAND_IN = {"trtllm": "vllm"}


def runtime_of(raw: dict[str, str]) -> str:
    """The runtime that the flags of a line name, in the planner's word where it has one."""
    text = raw["runtime_flags"].strip('" ').lower()
    for name in ("trtllm", "sglang", "vllm/llama.cpp", "vllm", "llama"):
        if text.startswith(name):
            break
    else:
        name = "vllm" if "vllm" in text else "llama"
    if name == "vllm/llama.cpp":
        name = "llama" if "beellama" in text or "q4_0" in text or "q80" in text else "vllm"
    return "llama.cpp" if name == "llama" else name


def way_of(name: str, host: Host, assumed: tuple[str, ...], raw: dict[str, str]) -> Candidate:
    """Strategy and sizes as run; one engine over all cards where nothing else is said."""
    flags = raw["runtime_flags"]
    cards = tuple(gpu.index for gpu in host.gpus)
    if name == "llama.cpp":
        tensor = "-sm tensor" in assumed
        strategy = Strategy.TENSOR_SPLIT if tensor else Strategy.LAYER_SPLIT
        return Candidate("llama.cpp", strategy if len(cards) > 1 else Strategy.SINGLE, cards)
    tp = number(r"(?:tensor-parallel-size[= ]|-tp |tp=|TP=)(\d+)", flags)
    pp = number(r"(?:pipeline-parallel-size[= ]|pp=)(\d+)", flags) or 1
    copies = number(r"replicas=(\d+)", flags) or number(r"x(\d+) replicas", flags) or 1
    tp = tp or max(1, len(cards) // (pp * copies))
    cards = cards[: tp * pp * copies]
    return Candidate(name, _strategy(tp, pp, copies), cards, tp, pp, copies)


def _strategy(tp: int, pp: int, copies: int) -> Strategy:
    if copies > 1:
        return Strategy.REPLICAS
    if tp > 1 and pp > 1:
        return Strategy.TENSOR_PIPELINE_PARALLEL
    if pp > 1:
        return Strategy.PIPELINE_PARALLEL
    return Strategy.TENSOR_PARALLEL if tp > 1 else Strategy.SINGLE


def utilization_of(raw: dict[str, str]) -> float | None:
    """The fraction that a line or its publisher's script gives vLLM (see `SEQUENCES`)."""
    stated = re.search(r"(?:gpu-memory-utilization|gmu)[= ]([\d.]+)", raw["runtime_flags"])
    if stated is not None:
        return float(stated[1])
    if raw["metric"] != "offline_total_tok_s":
        return None
    if "R9700" in raw["hardware"]:
        return 0.95 if "27B" in raw["model"] else 0.98
    return 0.90 if any(n in raw["model"] for n in ("Qwen3-14B", "30B-A3B")) else 0.95


def sized(
    way: Candidate,
    host: Host,
    model: ModelSpec,
    load: Workload,
    utilization: float | None = None,
) -> Candidate:
    """The planner's own candidate of that way, with memory; the bare way when it has none."""
    name = STAND_IN.get(way.runtime, way.runtime)
    wish = Wish(
        "groundtruth",
        model.path,
        load.objective,
        context=load.context,
        concurrency=load.concurrency,
        input_tokens=load.input_tokens,
        output_tokens=load.output_tokens,
        runtime=name,
        gpus=way.gpus,
        gpu_memory_utilization=utilization,
    )
    key = (way.strategy, way.tensor_parallel_size, way.pipeline_parallel_size, way.replicas)
    try:
        offered = runtime(name).candidates(host, model, wish)
    except MultigpuError:
        return way
    for found in offered:
        sizes = (found.tensor_parallel_size, found.pipeline_parallel_size, found.replicas)
        if (found.strategy, *sizes) == key and set(found.gpus) == set(way.gpus):
            return replace(found, runtime=way.runtime)
    return way
