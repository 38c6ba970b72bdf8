"""What vLLM 0.33.0 refuses, and what it does more slowly than one may expect."""

from __future__ import annotations

from collections.abc import Iterator

from multigpu.hardware import Host
from multigpu.labels import size
from multigpu.memo import memo
from multigpu.plan import Candidate, ModelSpec, Reason, Wish
from multigpu.runtimes import rocm
from multigpu.runtimes.sharding import sharding

Capability = tuple[int, int]

# CUDA 13, which the PyPI wheels of 0.33.0 are built for, has no code for Volta and older.
CUDA_13_MINIMUM: Capability = (7, 5)
SOURCE_MINIMUM: Capability = (7, 0)
BFLOAT16: Capability = (8, 0)
# `_FLOAT16_NOT_SUPPORTED_MODELS` of vllm/config/model.py: too large numbers for float16.
NO_FLOAT16 = frozenset({"gemma2", "gemma3", "gemma3_text", "plamo2", "glm4"})
# Compute in the format itself; below, weights are unpacked to 16 bits (Marlin) from 8.0 on.
NATIVE: dict[str, Capability] = {"fp8": (8, 9), "w8a8": (7, 5), "nvfp4": (10, 0), "mxfp4": (9, 0)}
QUANTIZED_MINIMUM: dict[str, Capability] = {
    "fp8": (8, 0),
    "nvfp4": (8, 0),
    "mxfp4": (8, 0),
    "w4a16": (8, 0),
    "w8a16": (8, 0),
}
# What the NVFP4 KV cache has kernels for (vllm-project/vllm #43562).
NVFP4_KV: frozenset[Capability] = frozenset({(10, 0), (10, 3)})
# The Triton attention kernel reads fp8_e4m3 from here on; FlashInfer ran it on 8.6 as well.
E4M3_TRITON: Capability = (8, 9)
# FlashAttention and FlashInfer take heads up to this; wider ones (Gemma 4) go to Triton.
WIDEST_HEAD = 256
# Families without a tick under PP in docs/models/supported_models.md, and encoder-decoders.
NO_PIPELINE = frozenset({"gemma3n", "gemma3n_text", "zamba2", "mllama", "whisper"})
# Weights in the host's memory are pinned; the system itself needs some.
HOST_SHARE = 0.9


def objections(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> Iterator[Reason]:
    """Every rule, in the order in which an operator would want to hear of them."""
    if model.format == "gguf":
        yield from model_format(model)
    yield from rocm.vllm(candidate, host, model, wish)
    if not _cards_serve(candidate, host, model, wish):
        yield from capability(candidate, host, model, wish)
        yield from kv_cache_dtype(candidate, host, model, wish)
    if candidate.tensor_parallel_size > 1:
        yield from sharding(model, candidate.tensor_parallel_size, candidate.expert_parallel)
    if candidate.expert_parallel:
        yield from experts(candidate, model)
    if candidate.pipeline_parallel_size > 1:
        yield from stages(candidate, model)
    if candidate.cpu_offload_mib > 0:
        yield from host_memory(candidate, host)


def _cards_serve(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> bool:
    """True where each card serves the model: then a group of them does, its oldest being one."""
    known = memo(host)
    asked = known.get("vllm-serve")
    if asked is None or asked[0] is not model or asked[1] is not wish:
        no = [g.index for g in host.gpus if not _serves(g.compute_capability, model, wish)]
        asked = known["vllm-serve"] = (model, wish, frozenset(no))
    unable: frozenset[int] = asked[2]
    return unable.isdisjoint(candidate.gpus)


def refuses(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> bool:
    """True where a card cannot serve the model, however much memory it has."""
    unable = not _serves(lowest(candidate, host), model, wish)
    return unable or rocm.refuses(candidate, host, model, wish)


def _serves(found: Capability | None, model: ModelSpec, wish: Wish) -> bool:
    """Follows from the capability alone, so it is kept with the wish, for one model."""
    known = memo(wish)
    asked = known.get("vllm-serves")
    if asked is None or asked[0] is not model:
        asked = known["vllm-serves"] = (model, {})
    verdicts: dict[Capability | None, bool] = asked[1]
    if found not in verdicts:
        reasons = (*_capability(found, model, wish), *_kv_cache_dtype(found, model, wish))
        verdicts[found] = not reasons
    return verdicts[found]


def model_format(model: ModelSpec) -> Iterator[Reason]:
    """GGUF left vLLM's core: it needs a plugin."""
    if model.format == "gguf":
        hint = "serve it with llama.cpp, or name the Transformers repository of the model"
        yield Reason("model-format", "the model is a GGUF", "safetensors for vLLM", hint)


def lowest(candidate: Candidate, host: Host) -> Capability | None:
    """The lowest compute capability of the group: kernels are planned for it."""
    known = [host.gpu(i).compute_capability for i in candidate.gpus]
    return min((c for c in known if c is not None), default=None)


def _version(capability: Capability) -> str:
    return f"{capability[0]}.{capability[1]}"


def capability(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> Iterator[Reason]:
    """Compute capability against vLLM itself, the dtype and the quantization."""
    yield from _capability(lowest(candidate, host), model, wish)


def _capability(found: Capability | None, model: ModelSpec, wish: Wish) -> Iterator[Reason]:
    if found is None:
        return
    own_build = wish.executable is not None or wish.wheel is not None
    minimum = SOURCE_MINIMUM if own_build else CUDA_13_MINIMUM
    seen = f"compute capability {_version(found)}"
    if found < minimum:
        hint = "serve a GGUF with llama.cpp on this card"
        yield Reason("compute-capability", seen, f"{_version(minimum)} for vLLM", hint)
    yield from _bfloat16(found, model, wish)
    needed = QUANTIZED_MINIMUM.get(model.quantization or "")
    if needed is not None and found < needed:
        hint = "take an AWQ or GPTQ checkpoint, or a GGUF with llama.cpp"
        yield Reason(
            "quantization-capability", seen, f"{_version(needed)} for {model.quantization}", hint
        )


def _bfloat16(found: Capability, model: ModelSpec, wish: Wish) -> Iterator[Reason]:
    """Older cards have no bfloat16; with `--dtype auto` vLLM takes float16 where the model may.

    `_resolve_auto_dtype` of vllm/config/model.py. What may not is computed in float32: twice the
    memory that was planned, so it is refused.
    """
    dtype = wish.flags.get("--dtype") or "auto"
    if found >= BFLOAT16:
        return
    seen, needed = f"compute capability {_version(found)}", f"{_version(BFLOAT16)} for bfloat16"
    if dtype == "bfloat16":
        yield Reason("bfloat16", seen, needed, "leave --dtype out: vLLM takes float16 then")
    elif model.dtype == "bfloat16" and model.model_type in NO_FLOAT16:
        hint = "serve a GGUF with llama.cpp on this card"
        yield Reason("bfloat16", f"{seen}; {model.model_type} has no float16", needed, hint)


def cautions(candidate: Candidate, host: Host, model: ModelSpec) -> Iterator[Reason]:
    """What loads, but is computed in another format than its own on these cards."""
    yield from rocm.vllm_cautions(candidate, host, model)
    found, native = lowest(candidate, host), NATIVE.get(model.quantization or "")
    if found is not None and found < BFLOAT16 and model.dtype == "bfloat16":
        yield Reason(
            "float16-instead",
            f"compute capability {_version(found)} has no bfloat16: vLLM takes float16",
            _version(BFLOAT16),
            "compare its answers with those of a newer card once",
        )
    if found is not None and native is not None and found < native:
        yield Reason(
            "weight-only",
            f"compute capability {_version(found)} has no {model.quantization} arithmetic",
            _version(native),
            "it saves memory but not time; nothing to do",
        )


def kv_kernel(candidate: Candidate, host: Host, wish: Wish) -> Iterator[Reason]:
    """A type of the KV cache that only one attention backend reads on these cards."""
    dtype, found = kv_dtype(wish), lowest(candidate, host)
    if dtype in ("fp8", "fp8_e4m3") and found is not None and found < E4M3_TRITON:
        yield Reason(
            "kv-dtype-kernel",
            f"compute capability {_version(found)} reads {dtype} by FlashInfer alone",
            f"{_version(E4M3_TRITON)} for every attention backend",
            "if the start fails, set kv_cache_dtype to fp8_e5m2 or int8_per_token_head",
        )


def experts(candidate: Candidate, model: ModelSpec) -> Iterator[Reason]:
    """Expert parallelism deals whole experts to the ranks of a tensor parallel group."""
    if not candidate.expert_parallel:
        return
    tp, found = candidate.tensor_parallel_size, model.num_experts or 0
    if tp < 2 or found < tp:
        seen = f"{found} experts over TP={tp}"
        hint = "leave expert_parallel out, or take a mixture of experts over several cards"
        yield Reason("expert-parallel", seen, "an expert for each of two or more ranks", hint)


def stages(candidate: Candidate, model: ModelSpec) -> Iterator[Reason]:
    """Pipeline stages hold at least one block each and all blocks together."""
    pp, n = candidate.pipeline_parallel_size, model.num_hidden_layers
    if pp == 1:
        return
    if model.model_type in NO_PIPELINE:
        hint = "take tensor parallel, replicas, or a GGUF with llama.cpp"
        yield Reason("pipeline-support", f"{model.model_type} in stages", "SupportsPP", hint)
    layers = candidate.layers or ()
    if len(layers) != pp or sum(layers) != n or min(layers, default=0) < 1:
        found = f"stages {'+'.join(str(x) for x in layers) or 'none'} for {n} blocks"
        hint = "pin layers that add up, or take fewer cards"
        yield Reason("pipeline-stages", found, f"{pp} stages that add up to {n}", hint)


def kv_dtype(wish: Wish) -> str:
    """The word that `--kv-cache-dtype` gets, `auto` where nothing is said."""
    return wish.kv_cache_dtype or wish.flags.get("--kv-cache-dtype") or "auto"


def kv_cache_dtype(
    candidate: Candidate, host: Host, model: ModelSpec, wish: Wish
) -> Iterator[Reason]:
    """Formats of the KV cache that the oldest card has no kernel for."""
    yield from _kv_cache_dtype(lowest(candidate, host), model, wish)


def _kv_cache_dtype(found: Capability | None, model: ModelSpec, wish: Wish) -> Iterator[Reason]:
    dtype = kv_dtype(wish)
    if dtype == "auto" or found is None:
        return
    seen = f"compute capability {_version(found)} with a KV cache in {dtype}"
    if dtype == "nvfp4" and found not in NVFP4_KV:
        hint = "set kv_cache_dtype to fp8 or int8_per_token_head"
        yield Reason("kv-cache-dtype", seen, "10.0 or 10.3 for nvfp4", hint)
    elif dtype in ("fp8", "fp8_e4m3") and found < E4M3_TRITON and widest_head(model) > WIDEST_HEAD:
        hint = "set kv_cache_dtype to fp8_e5m2 or int8_per_token_head"
        needed = f"{_version(E4M3_TRITON)} where heads are wider than {WIDEST_HEAD} (Triton)"
        yield Reason("kv-cache-dtype", seen, needed, hint)


def widest_head(model: ModelSpec) -> int:
    """The largest head dimension of the attention layers."""
    return max((layer.head_dim for layer in model.layers), default=model.head_dim)


def host_memory(candidate: Candidate, host: Host) -> Iterator[Reason]:
    """Offloaded weights must fit the host's free memory."""
    available = host.memory_available_mib or host.memory_mib
    if candidate.cpu_offload_mib <= 0 or available is None:
        return
    if candidate.cpu_offload_mib > HOST_SHARE * available:
        found = f"{size(candidate.cpu_offload_mib)} of weights in the host's memory"
        needed = f"at most {size(HOST_SHARE * available)} of {size(available)}"
        yield Reason("host-memory", found, needed, "lower cpu_offload_gib, or take more cards")
