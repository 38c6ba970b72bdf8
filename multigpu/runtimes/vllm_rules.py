"""What vLLM 0.33.0 refuses, and what it does more slowly than one may expect."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from multigpu.hardware import Host, Vendor
from multigpu.labels import cards
from multigpu.plan import Candidate, ModelSpec, Reason, Strategy, Wish
from multigpu.quantization import MARLIN

Capability = tuple[int, int]

# CUDA 13, which the PyPI wheels of 0.33.0 are built for, has no code for Volta and older.
CUDA_13_MINIMUM: Capability = (7, 5)
SOURCE_MINIMUM: Capability = (7, 0)
BFLOAT16: Capability = (8, 0)
# Compute in the format itself; below, weights are unpacked to 16 bits (Marlin) from 8.0 on.
NATIVE: dict[str, Capability] = {"fp8": (8, 9), "w8a8": (7, 5), "nvfp4": (10, 0), "mxfp4": (9, 0)}
QUANTIZED_MINIMUM: dict[str, Capability] = {
    "fp8": (8, 0),
    "nvfp4": (8, 0),
    "mxfp4": (8, 0),
    "w4a16": (8, 0),
    "w8a16": (8, 0),
}
VOCAB_PADDING = 64


def objections(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> Iterator[Reason]:
    """Every rule, in the order in which an operator would want to hear of them."""
    yield from model_format(model)
    yield from vendor(candidate, host, wish)
    yield from capability(candidate, host, model, wish)
    yield from heads(candidate, model)
    yield from sizes(candidate, model)
    yield from quantization_groups(candidate, model)
    yield from stages(candidate, model)


def model_format(model: ModelSpec) -> Iterator[Reason]:
    """GGUF left vLLM's core: it needs a plugin."""
    if model.format == "gguf":
        hint = "serve it with llama.cpp, or name the Transformers repository of the model"
        yield Reason("model-format", "the model is a GGUF", "safetensors for vLLM", hint)


def vendor(candidate: Candidate, host: Host, wish: Wish) -> Iterator[Reason]:
    """The wheel on PyPI is built for CUDA."""
    others = {host.gpu(i).vendor for i in candidate.gpus} - {Vendor.NVIDIA}
    if others and wish.executable is None and wish.wheel is None:
        found = f"{cards(candidate.gpus)}: {', '.join(sorted(others))}"
        hint = "give executable or wheel of a ROCm build, or serve a GGUF with llama.cpp"
        yield Reason("cuda-wheel", found, "NVIDIA cards for the vLLM wheel of PyPI", hint)


def lowest(candidate: Candidate, host: Host) -> Capability | None:
    """The lowest compute capability of the group: kernels are planned for it."""
    known = [host.gpu(i).compute_capability for i in candidate.gpus]
    return min((c for c in known if c is not None), default=None)


def _version(capability: Capability) -> str:
    return f"{capability[0]}.{capability[1]}"


def capability(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> Iterator[Reason]:
    """Compute capability against vLLM itself, the dtype and the quantization."""
    found = lowest(candidate, host)
    if found is None:
        return
    own_build = wish.executable is not None or wish.wheel is not None
    minimum = SOURCE_MINIMUM if own_build else CUDA_13_MINIMUM
    seen = f"compute capability {_version(found)}"
    if found < minimum:
        hint = "serve a GGUF with llama.cpp on this card"
        yield Reason("compute-capability", seen, f"{_version(minimum)} for vLLM", hint)
    dtype = wish.flags.get("--dtype") or model.dtype
    if dtype == "bfloat16" and found < BFLOAT16:
        hint = "set flags = {'--dtype': 'half'}"
        yield Reason("bfloat16", seen, f"{_version(BFLOAT16)} for bfloat16", hint)
    needed = QUANTIZED_MINIMUM.get(model.quantization or "")
    if needed is not None and found < needed:
        hint = "take an AWQ or GPTQ checkpoint, or a GGUF with llama.cpp"
        yield Reason(
            "quantization-capability", seen, f"{_version(needed)} for {model.quantization}", hint
        )


def cautions(candidate: Candidate, host: Host, model: ModelSpec) -> Iterator[Reason]:
    """The format loads, but its arithmetic is done in 16 bits on these cards."""
    found, native = lowest(candidate, host), NATIVE.get(model.quantization or "")
    if found is not None and native is not None and found < native:
        yield Reason(
            "weight-only",
            f"compute capability {_version(found)} has no {model.quantization} arithmetic",
            _version(native),
            "it saves memory but not time; nothing to do",
        )


def heads(candidate: Candidate, model: ModelSpec) -> Iterator[Reason]:
    """Query heads divide; KV heads divide, or are replicated evenly."""
    tp = candidate.tensor_parallel_size
    if model.num_attention_heads % tp:
        found = f"{model.num_attention_heads} attention heads over TP={tp}"
        yield Reason("attention-heads", found, _multiple(tp), next_size(model, tp))
    widths = {layer.num_key_value_heads for layer in model.layers if layer.num_key_value_heads}
    for kv in sorted(widths):
        if kv % tp if kv >= tp else tp % kv:
            found = f"{kv} KV heads over TP={tp}"
            yield Reason("kv-heads", found, _multiple(tp), next_size(model, tp))


def _multiple(tp: int) -> str:
    return f"a multiple of {tp}"


def next_size(model: ModelSpec, tp: int) -> str:
    """The largest smaller size that divides, and what to do with the cards left over."""
    smaller = next(n for n in range(tp - 1, 0, -1) if n == 1 or not any(heads(_sized(n), model)))
    valid = f"TP={smaller} is the next valid size" if smaller > 1 else "no smaller TP is valid"
    return f"{valid}; pipeline parallel takes any number of cards"


def _sized(tp: int) -> Candidate:
    return Candidate("vllm", Strategy.TENSOR_PARALLEL, (), tensor_parallel_size=tp)


def sizes(candidate: Candidate, model: ModelSpec) -> Iterator[Reason]:
    """Hidden size, feed-forward size and the padded vocabulary divide."""
    tp = candidate.tensor_parallel_size
    needed, hint = _multiple(tp), "take another TP size, or pipeline parallel"
    if model.hidden_size % tp:
        yield Reason("hidden-size", f"hidden_size {model.hidden_size} over TP={tp}", needed, hint)
    if (model.intermediate_size or 0) % tp:
        found = f"intermediate_size {model.intermediate_size} over TP={tp}"
        yield Reason("ffn-size", found, needed, hint)
    if (model.moe_intermediate_size or 0) % tp:
        found = f"moe_intermediate_size {model.moe_intermediate_size} over TP={tp}"
        yield Reason("expert-size", found, needed, hint)
    padded = ceil(model.vocab_size / VOCAB_PADDING) * VOCAB_PADDING
    if padded % tp:
        yield Reason("vocab-size", f"padded vocab_size {padded} over TP={tp}", needed, hint)


def quantization_groups(candidate: Candidate, model: ModelSpec) -> Iterator[Reason]:
    """Each rank's share of a quantized matrix is whole groups and whole tiles."""
    tp, scheme = candidate.tensor_parallel_size, model.quantization
    ffn = model.moe_intermediate_size or model.intermediate_size
    if tp == 1 or ffn is None or ffn % tp:
        return
    share = ffn // tp
    needed = _tile(scheme, model.group_size)
    if needed > 1 and share % needed:
        found = f"{scheme}: {share} of {ffn} feed-forward columns per rank at TP={tp}"
        hint = "take a smaller TP, pipeline parallel, or another quantization"
        yield Reason("quantization-groups", found, f"a multiple of {needed}", hint)


def _tile(scheme: str | None, group_size: int | None) -> int:
    """Marlin: inputs per rank in 128s and whole groups; FP8 and FP4 in whole blocks."""
    if scheme in MARLIN:
        return max(128, group_size or 0)
    if scheme in ("fp8", "nvfp4", "mxfp4"):
        return group_size or 1
    return 1


def stages(candidate: Candidate, model: ModelSpec) -> Iterator[Reason]:
    """Pipeline stages hold at least one block each and all blocks together."""
    pp, n = candidate.pipeline_parallel_size, model.num_hidden_layers
    if pp == 1:
        return
    layers = candidate.layers or ()
    if len(layers) != pp or sum(layers) != n or min(layers, default=0) < 1:
        found = f"stages {'+'.join(str(x) for x in layers) or 'none'} for {n} blocks"
        hint = "pin layers that add up, or take fewer cards"
        yield Reason("pipeline-stages", found, f"{pp} stages that add up to {n}", hint)
