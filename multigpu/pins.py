"""Pins of a wish against each other, the host and the model; each contradiction is one line."""

from __future__ import annotations

from multigpu import labels
from multigpu.backend import GGML_RUNTIMES, Backend, of_devices
from multigpu.errors import WishError
from multigpu.flags import check
from multigpu.hardware import Host
from multigpu.memo import memo
from multigpu.pinned_ways import layers, sizes, strategy
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
    "backend",
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
    "--context-length": "context",
    "--ctx-size": "context",
    "--parallel": "concurrency",
    "--max-running-requests": "concurrency",
    "--tensor-parallel-size": "tensor_parallel_size",
    "--tp-size": "tensor_parallel_size",
    "--pipeline-parallel-size": "pipeline_parallel_size",
    "--pp-size": "pipeline_parallel_size",
    "--enable-expert-parallel": "expert_parallel",
    "--ep-size": "expert_parallel",
    "--cpu-offload-gb": "cpu_offload_gib",
    "--gpu-memory-utilization": "gpu_memory_utilization",
    "--mem-fraction-static": "gpu_memory_utilization",
    "--split-mode": "strategy",
    "--tensor-split": "layers",
    "--device": "devices",
    "--model_alias": "served_model_name",
    "--n_ctx": "context",
    "--split_mode": "strategy",
    "--tensor_split": "layers",
    "--main_gpu": "gpus",
}
"""Flags that are written from the plan -> the key that decides them.

A second word on them would be served, but not planned, probed or verified.
"""


KV_CACHE_DTYPES = {
    "vllm": (
        "auto",
        "bfloat16",
        "float16",
        "fp8",
        "fp8_e4m3",
        "fp8_e5m2",
        "fp8_ds_mla",
        "fp8_inc",
        "fp8_per_token_head",
        "int8_per_token_head",
        "int4_per_token_head",
        "nvfp4",
    ),
    "sglang": ("auto", "bf16", "bfloat16", "fp8_e4m3", "fp8_e5m2", "fp4_e2m1"),
    **dict.fromkeys(
        GGML_RUNTIMES,
        ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"),
    ),
}
"""Types of the KV cache by the runtimes' own words; vLLM's `turboquant_*` are passed on as well.

vLLM: `CacheDType` in config/cache.py; SGLang: server_args.py; llama.cpp: `kv_cache_types` in
common/arg.cpp.
"""


def pinned_keys(wish: Wish) -> tuple[str, ...]:
    """Names of the wish keys that the operator fixed."""
    known = memo(wish)
    if "pinned" not in known:
        known["pinned"] = tuple(
            key
            for key in PINS
            if getattr(wish, key) not in (None, {})
            and (getattr(wish, key) or key == "expert_parallel")
        )
    found: tuple[str, ...] = known["pinned"]
    return found


def check_pins(host: Host, model: ModelSpec, wish: Wish) -> None:
    """Raises WishError for the first contradiction."""
    if not pinned_keys(wish) and wish.gpus is None and wish.devices is None:
        return
    for checked in (
        _cards,
        _runtime,
        strategy,
        sizes,
        layers,
        _experts,
        _utilization,
        _cache,
        _devices,
        _backend,
    ):
        problem = checked(host, model, wish)
        if problem is not None:
            raise WishError(f"{wish.name}: {problem}")
    problem = _flags(model, wish)
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
    if name not in GGML_RUNTIMES and model.format == "gguf":
        return f"runtime {name} cannot serve a GGUF: use llama.cpp, or a Transformers repository"
    if name in GGML_RUNTIMES and model.format != "gguf":
        return f"runtime {name} needs a GGUF, {model.name} is in {model.format}: leave runtime out"
    return None


def _experts(host: Host, model: ModelSpec, wish: Wish) -> str | None:
    if not wish.expert_parallel:
        return None
    if model.format == "gguf":
        return "expert_parallel is vLLM's and SGLang's: leave it out for a GGUF"
    if not model.num_experts:
        return f"expert_parallel needs a mixture of experts, {model.name} is dense: leave it out"
    alone = wish.strategy in (Strategy.SINGLE, Strategy.PIPELINE_PARALLEL)
    if wish.tensor_parallel_size == 1 or alone:
        return "expert_parallel needs a tensor parallel group: pin tensor_parallel_size above 1"
    return None


def _utilization(host: Host, model: ModelSpec, wish: Wish) -> str | None:
    if wish.gpu_memory_utilization is not None and model.format == "gguf":
        return "gpu_memory_utilization is vLLM's and SGLang's: leave it out for a GGUF"
    return None


def _cache(host: Host, model: ModelSpec, wish: Wish) -> str | None:
    dtype = wish.kv_cache_dtype
    if dtype is None:
        return None
    name = wish.runtime or ("llama.cpp" if model.format == "gguf" else "vllm")
    known = KV_CACHE_DTYPES[name]
    written = [f for f in ("--kv-cache-dtype", "--cache-type-k") if f in wish.flags]
    if written:
        return f"kv_cache_dtype and flags {written[0]} say the same: leave one of them out"
    if dtype not in known and not (name == "vllm" and dtype.startswith("turboquant")):
        use = f"use one of {', '.join(known)}"
        return f"kv_cache_dtype is {dtype!r}, which {labels.runtime_name(name)} has not: {use}"
    return None


def _devices(host: Host, model: ModelSpec, wish: Wish) -> str | None:
    if wish.devices is None:
        return None
    if wish.runtime not in (None, "llama.cpp") or model.format != "gguf":
        return "devices are llama.cpp's device names: for vLLM pin gpus"
    if len(set(wish.devices)) < len(wish.devices) or not wish.devices:
        return f"devices {list(wish.devices)} is empty or names a device twice: name each once"
    if wish.gpus is not None and len(wish.gpus) != len(wish.devices):
        return (
            f"devices {list(wish.devices)} do not match gpus {list(wish.gpus)}: one name per card"
        )
    return None


def _backend(host: Host, model: ModelSpec, wish: Wish) -> str | None:
    """llama.cpp's backend against the cards, the names of its devices and the runtime."""
    if wish.backend is None:
        return None
    if wish.runtime not in (None, *GGML_RUNTIMES) or model.format != "gguf":
        return "backend is llama.cpp's: leave it out, vLLM and SGLang have one for each vendor"
    named = of_devices(wish.devices or ()) - {Backend.CPU}
    if named - {wish.backend}:
        return (
            f"backend {wish.backend} does not have devices {list(wish.devices or ())}: name those "
            "of one backend, or leave devices out"
        )
    return None


def _flags(model: ModelSpec, wish: Wish) -> str | None:
    for flag in wish.flags:
        if flag in WRITTEN:
            return f"flags: {flag} is written from the plan: set the key {WRITTEN[flag]!r} instead"
    name = wish.runtime or ("llama.cpp" if model.format == "gguf" else "vllm")
    words = [w for flag, value in wish.flags.items() for w in (flag, value) if w is not None]
    for reason in check(name, words, wish.runtime_version):
        needed = f", needs {reason.needed}" if reason.needed else ""
        hint = f": {reason.hint}" if reason.hint else ""
        return f"flags: {reason.found}{needed}{hint}"
    return None
