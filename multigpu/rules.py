"""Rules that hold for every runtime. A rule is a plain `yield Reason(...)`."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Any

from multigpu.backend import GGML_RUNTIMES
from multigpu.hardware import Gpu, Host, Vendor
from multigpu.labels import cards, gib, of, size
from multigpu.memo import memo
from multigpu.memory import all_fit
from multigpu.plan import Candidate, Memory, ModelSpec, Reason, Strategy, Wish, Workload
from multigpu.runtimes import llama_cpp_backends, rocm, vllm_rules

ROPE_FLAGS = ("--hf-overrides", "--rope-scaling", "--rope-scale", "--yarn-orig-ctx")


def objections(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> Iterator[Reason]:
    """What stands against a candidate whatever the runtime; `memory_fit` is asked last."""
    # Asked for every candidate: what cannot speak is not even begun.
    if _pins(wish):
        yield from pinned(candidate, wish)
    if len(host.usable) < len(host.gpus):
        yield from usable(candidate, host)
    if len(_vendors(host)) > 1:
        yield from one_vendor(candidate, host, wish)
    if wish.devices is not None:
        yield from device_names(candidate, wish)
    if wish.context is not None:
        yield from context_length(model, wish)


PINNED = (
    "runtime",
    "strategy",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "layers",
    "gpus",
    "expert_parallel",
)


def pinned(candidate: Candidate, wish: Wish) -> Iterator[Reason]:
    """The operator's pins are obeyed: every other candidate is out."""
    for key, wished in _pins(wish):
        found = getattr(candidate, key)
        if key == "gpus" and sorted(found) == sorted(wished):
            continue
        if found != wished:
            hint = f"take {key} out of the inventory to allow it"
            yield Reason("pinned", f"{key} {_plain(found)}", f"{key} {_plain(wished)}", hint)


def _pins(wish: Wish) -> tuple[tuple[str, Any], ...]:
    known = memo(wish)
    if "pins" not in known:
        pins = ((key, getattr(wish, key)) for key in PINNED)
        known["pins"] = tuple((key, wished) for key, wished in pins if wished is not None)
    found: tuple[tuple[str, Any], ...] = known["pins"]
    return found


def _plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return str(value)


def _vendors(host: Host) -> frozenset[Vendor]:
    """Of all cards, kept with the host."""
    known = memo(host)
    if "vendors" not in known:
        known["vendors"] = frozenset([gpu.vendor for gpu in host.gpus])
    found: frozenset[Vendor] = known["vendors"]
    return found


def usable(candidate: Candidate, host: Host) -> Iterator[Reason]:
    """A card that answers with an error, or is cut into MIG slices, cannot be planned."""
    good = host.usable
    if len(good) == len(host.gpus):
        return
    for index in candidate.gpus:
        if host.gpu(index) not in good:
            hint = "leave it out of gpus, or repair it"
            yield Reason("usable-card", f"GPU {index}: {defect(host.gpu(index))}", None, hint)


def defect(gpu: Gpu) -> str:
    """Why a card is not usable."""
    if gpu.error is not None:
        return gpu.error
    return "cut into MIG slices" if gpu.mig else "its memory is not known"


def one_vendor(candidate: Candidate, host: Host, wish: Wish) -> Iterator[Reason]:
    """One service uses the cards of one vendor; only llama.cpp over Vulkan or RPC joins two."""
    gpus = candidate.gpus
    first = host.gpu(gpus[0]).vendor
    if all(host.gpu(index).vendor is first for index in gpus):
        return
    if wish.devices is not None and candidate.strategy is Strategy.LAYER_SPLIT:
        return
    vendors = sorted({host.gpu(index).vendor for index in gpus})
    yield Reason(
        "one-vendor",
        f"{cards(gpus)} are of {' and '.join(vendors)}",
        "cards of one vendor",
        "serve one model per vendor, or pin devices = ('Vulkan0', 'Vulkan1') with llama.cpp",
    )


def device_names(candidate: Candidate, wish: Wish) -> Iterator[Reason]:
    """Names of the runtime's own devices are given one per planned card."""
    if wish.devices is not None and len(wish.devices) < len(candidate.gpus):
        found = f"{len(wish.devices)} devices for {len(candidate.gpus)} cards"
        yield Reason("device-names", found, "one device name per card", "name more devices")


def context_length(model: ModelSpec, wish: Wish) -> Iterator[Reason]:
    """Beyond the trained context a model needs rope scaling, which is passed on as a flag."""
    longest = model.max_position_embeddings
    if (
        longest is None
        or wish.context is None
        or wish.context <= longest
        or any(f in wish.flags for f in ROPE_FLAGS)
    ):
        return
    found = f"context {wish.context:,}"
    yield Reason("context-length", found, f"at most {longest:,}", f"set context to {longest}")


def memory_fit(candidate: Candidate) -> Iterator[Reason]:
    """Every card must hold its share; the card that lacks most is named."""
    if all_fit(candidate.memory):
        return
    index, worst = max(
        zip(candidate.gpus, candidate.memory, strict=True),
        key=lambda item: item[1].total_mib - item[1].capacity_mib,
    )
    found = f"GPU {index} needs {of(worst.total_mib, worst.capacity_mib)} ({parts(worst)})"
    yield Reason("memory-fit", found, size(worst.capacity_mib), shrink(candidate, worst))


def parts(memory: Memory) -> str:
    """`weights 10.1, KV 9.6, compute 1.2, overhead 0.5` in GiB; in MiB what would read 0.0."""
    named = {
        "weights": memory.weights_mib,
        "KV": memory.kv_cache_mib,
        "compute": memory.activations_mib,
        "overhead": memory.overhead_mib,
    }
    small = memory.total_mib < 1024
    return ", ".join(
        f"{name} {size(mib) if small or 0 < mib < 52 else gib(mib)}" for name, mib in named.items()
    )


MUCH = 0.25
"""A step that takes such a share of a card serves more requests than the card is for."""


def shrink(candidate: Candidate, worst: Memory) -> str:
    """What would make it fit."""
    spare = worst.capacity_mib - (worst.total_mib - worst.kv_cache_mib)
    if worst.kv_cache_mib > 0 and spare > 0.1 * worst.kv_cache_mib:
        if candidate.context_limit:
            return f"lower context to {candidate.context_limit:,}"
        return f"lower context to {int(100 * spare / worst.kv_cache_mib)} % of what is asked"
    if worst.activations_mib > MUCH * worst.capacity_mib and spare + worst.activations_mib > 0:
        return "what a step computes grows with the requests in it: lower concurrency"
    if candidate.strategy in (Strategy.SINGLE, Strategy.REPLICAS):
        return "split the model over more cards, or take a smaller quantization"
    return "take a smaller quantization or more cards"


def warnings(
    chosen: Candidate, host: Host, model: ModelSpec, wish: Wish, load: Workload
) -> Iterator[Reason]:
    """What of the wish a plan that holds does not give, or not on every kernel."""
    yield from requests_wait(chosen, wish, load)
    if chosen.runtime not in GGML_RUNTIMES:
        yield from vllm_rules.kv_kernel(chosen, host, wish)
    if chosen.runtime == "vllm":
        yield from rocm.build(chosen, host, wish)
        yield from rocm.overridden(wish, rocm.of(chosen, host))
    elif chosen.runtime in GGML_RUNTIMES:
        yield from llama_cpp_backends.cautions(chosen, host, wish)


def requests_wait(chosen: Candidate, wish: Wish, load: Workload) -> Iterator[Reason]:
    """Only one request of full context per engine is needed; what does not fit beside it waits.

    Asked where the operator states a concurrency. A request counts with the whole context where
    that is stated, else with its typical length, as the predicted number of running requests does.
    """
    if wish.concurrency is None or chosen.kv_tokens is None:
        return
    share, running = ceil(load.concurrency / chosen.replicas), _running(chosen, wish, load)
    held = running // chosen.replicas
    if running >= load.concurrency:
        return
    length = f"{load.context:,}"
    if wish.context is None:
        length = f"{load.input_tokens:,} + {load.output_tokens:,}"
    each = f" on each of {chosen.replicas} engines" if chosen.replicas > 1 else ""
    found = f"holds {held} of {share} requests of {length} tokens at a time{each}"
    hint = f"the others wait for their turn; lower concurrency to {running}, "
    hint += "quantize the KV cache (kv_cache_dtype), or add cards"
    yield Reason("requests-wait", found, f"{share} at a time", hint)


def _running(chosen: Candidate, wish: Wish, load: Workload) -> int:
    """Requests that all engines hold at once."""
    predicted, tokens = chosen.predicted, chosen.kv_tokens or 0
    if wish.context is None:
        if predicted is not None and predicted.running is not None:
            return predicted.running
        return tokens // min(load.request_tokens, load.context) * chosen.replicas
    held = chosen.kv_sequences
    return (tokens // load.context if held is None else held) * chosen.replicas
