"""Pins of a wish against each other, the host and the model; each contradiction is one line."""

from __future__ import annotations

from multigpu import labels
from multigpu.errors import WishError
from multigpu.flags import check
from multigpu.hardware import Host
from multigpu.plan import ModelSpec, Strategy, Wish
from multigpu.runtimes import runtime

PINS = (
    "runtime",
    "strategy",
    "gpus",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "layers",
    "gpu_memory_utilization",
    "kv_cache_dtype",
    "expert_parallel",
    "cpu_offload_gib",
    "devices",
    "flags",
    "env",
)


WRITTEN = {
    "--port": "port",
    "--host": "bind",
    "--model": "model",
    "--served-model-name": "served_model_name",
    "--alias": "served_model_name",
    "--max-model-len": "context",
    "--ctx-size": "context",
    "--parallel": "concurrency",
    "--tensor-parallel-size": "tensor_parallel_size",
    "--pipeline-parallel-size": "pipeline_parallel_size",
    "--gpu-memory-utilization": "gpu_memory_utilization",
    "--split-mode": "strategy",
    "--tensor-split": "layers",
    "--device": "devices",
}
"""Flags that are written from the plan -> the key that decides them.

A second word on them would be served, but not planned, probed or verified.
"""


def pinned_keys(wish: Wish) -> tuple[str, ...]:
    """Names of the wish keys that the operator fixed."""
    return tuple(key for key in PINS if getattr(wish, key) not in (None, {}) and getattr(wish, key))


def check_pins(host: Host, model: ModelSpec, wish: Wish) -> None:
    """Raises WishError for the first contradiction."""
    for checked in (_cards, _runtime, _strategy, _sizes, _layers, _devices, _flags):
        problem = checked(host, model, wish)
        if problem is not None:
            raise WishError(f"{wish.name}: {problem}")


def _cards(host: Host, model: ModelSpec, wish: Wish) -> str | None:
    if wish.gpus is None:
        return None
    if not wish.gpus:
        return "gpus is empty: name at least one card, or leave gpus out"
    if len(set(wish.gpus)) < len(wish.gpus):
        return f"gpus {list(wish.gpus)} names a card twice: name each once"
    known = {gpu.index for gpu in host.gpus}
    unknown = sorted(set(wish.gpus) - known)
    if unknown:
        has = labels.cards(sorted(known)) if known else "no GPU"
        return f"gpus names GPU {unknown[0]}, {host.name} has {has}: name those, or leave gpus out"
    return None


def _runtime(host: Host, model: ModelSpec, wish: Wish) -> str | None:
    if wish.runtime is None:
        return None
    name = runtime(wish.runtime).NAME
    if name == "vllm" and model.format == "gguf":
        return "runtime vllm cannot serve a GGUF: use llama.cpp, or a Transformers repository"
    if name == "llama.cpp" and model.format != "gguf":
        return (
            f"runtime llama.cpp needs a GGUF, {model.name} is in {model.format}: leave runtime out"
        )
    return None


def _strategy(host: Host, model: ModelSpec, wish: Wish) -> str | None:
    tp, pp = wish.tensor_parallel_size or 1, wish.pipeline_parallel_size or 1
    if wish.strategy is Strategy.SINGLE and (tp > 1 or pp > 1):
        sized = "tensor_parallel_size" if tp > 1 else "pipeline_parallel_size"
        return f"strategy single contradicts {sized} {max(tp, pp)}: leave one of them out"
    if wish.strategy is Strategy.SINGLE and wish.gpus is not None and len(wish.gpus) > 1:
        return f"strategy single contradicts gpus {list(wish.gpus)}: name one card"
    split = wish.strategy is Strategy.LAYER_SPLIT
    if split and (tp > 1 or pp > 1):
        return "strategy layer_split has no tensor or pipeline parallel size: pin layers or gpus"
    if split and model.format != "gguf":
        return "strategy layer_split is llama.cpp's and needs a GGUF: use pipeline_parallel"
    if model.format == "gguf" and (
        wish.strategy in (Strategy.TENSOR_PARALLEL, Strategy.PIPELINE_PARALLEL) or tp > 1 or pp > 1
    ):
        return "a GGUF is split by layer (strategy layer_split), not by tensor or pipeline parallel"
    if wish.strategy is Strategy.TENSOR_PARALLEL and pp > 1:
        return "strategy tensor_parallel with pipeline_parallel_size: use pipeline_parallel"
    if wish.strategy is Strategy.TENSOR_PARALLEL and wish.tensor_parallel_size == 1:
        return "strategy tensor_parallel contradicts tensor_parallel_size 1: leave one out"
    if wish.strategy is Strategy.PIPELINE_PARALLEL and wish.pipeline_parallel_size == 1:
        return "strategy pipeline_parallel contradicts pipeline_parallel_size 1: leave one out"
    return None


def _sizes(host: Host, model: ModelSpec, wish: Wish) -> str | None:
    tp, pp = wish.tensor_parallel_size or 1, wish.pipeline_parallel_size or 1
    available = len(wish.gpus) if wish.gpus is not None else len(host.usable)
    if tp * pp > 1 and tp * pp > available:
        named = f"gpus {list(wish.gpus)}" if wish.gpus is not None else "the usable cards"
        return f"{tp} x {pp} ranks need {tp * pp} cards, {named} are {available}: pin smaller sizes"
    fixed = wish.tensor_parallel_size is not None and wish.pipeline_parallel_size is not None
    one_engine = fixed and wish.strategy is not Strategy.REPLICAS
    if one_engine and wish.gpus is not None and tp * pp != len(wish.gpus):
        return f"{tp} x {pp} ranks do not use all of gpus {list(wish.gpus)}: name {tp * pp}"
    return None


def _layers(host: Host, model: ModelSpec, wish: Wish) -> str | None:
    if wish.layers is None:
        return None
    gguf = model.format == "gguf"
    total = model.num_hidden_layers + (1 if gguf else 0)
    what = f"{total} units (blocks and the output layer)" if gguf else f"{total} blocks"
    if sum(wish.layers) != total or min(wish.layers, default=0) < 1:
        counts = list(wish.layers)
        return f"layers {counts} add up to {sum(counts)}, {model.name} has {what}: mend the counts"
    stages = wish.pipeline_parallel_size
    if stages is not None and stages != len(wish.layers):
        sized = f"pipeline_parallel_size is {stages}: leave one out"
        return f"layers {list(wish.layers)} are {len(wish.layers)} stages, {sized}"
    tp = wish.tensor_parallel_size or 1
    if wish.gpus is not None and len(wish.layers) * tp != len(wish.gpus):
        return f"layers {list(wish.layers)} do not match gpus {list(wish.gpus)}: one count per card"
    if wish.strategy in (Strategy.SINGLE, Strategy.REPLICAS, Strategy.TENSOR_PARALLEL):
        return f"strategy {wish.strategy} does not split by layer: leave layers out"
    return None


def _devices(host: Host, model: ModelSpec, wish: Wish) -> str | None:
    if wish.devices is None:
        return None
    if wish.runtime == "vllm" or model.format != "gguf":
        return "devices are llama.cpp's device names: for vLLM pin gpus"
    if len(set(wish.devices)) < len(wish.devices) or not wish.devices:
        return f"devices {list(wish.devices)} is empty or names a device twice: name each once"
    if wish.gpus is not None and len(wish.gpus) != len(wish.devices):
        return (
            f"devices {list(wish.devices)} do not match gpus {list(wish.gpus)}: one name per card"
        )
    return None


def _flags(host: Host, model: ModelSpec, wish: Wish) -> str | None:
    for flag in wish.flags:
        if flag in WRITTEN:
            return f"flags: {flag} is written from the plan: set the key {WRITTEN[flag]!r} instead"
    name = wish.runtime or ("llama.cpp" if model.format == "gguf" else "vllm")
    words = [w for flag, value in wish.flags.items() for w in (flag, value) if w is not None]
    for reason in check(name, words):
        needed = f", needs {reason.needed}" if reason.needed else ""
        hint = f": {reason.hint}" if reason.hint else ""
        return f"flags: {reason.found}{needed}{hint}"
    return None
