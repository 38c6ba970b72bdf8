"""Rules that hold for every runtime. A rule is a plain `yield Reason(...)`."""

from __future__ import annotations

from collections.abc import Iterator

from multigpu.hardware import Gpu, Host
from multigpu.labels import cards, gib, of, size
from multigpu.plan import Candidate, Memory, ModelSpec, Reason, Strategy, Wish

ROPE_FLAGS = ("--hf-overrides", "--rope-scaling", "--rope-scale", "--yarn-orig-ctx")


def objections(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> Iterator[Reason]:
    """What stands against a candidate whatever the runtime; `memory_fit` is asked last."""
    yield from pinned(candidate, wish)
    yield from usable(candidate, host)
    yield from one_vendor(candidate, host, wish)
    yield from device_names(candidate, wish)
    yield from context_length(model, wish)


def pinned(candidate: Candidate, wish: Wish) -> Iterator[Reason]:
    """The operator's pins are obeyed: every other candidate is out."""
    pins = {
        "runtime": (wish.runtime, candidate.runtime),
        "strategy": (wish.strategy, candidate.strategy),
        "tensor_parallel_size": (wish.tensor_parallel_size, candidate.tensor_parallel_size),
        "pipeline_parallel_size": (wish.pipeline_parallel_size, candidate.pipeline_parallel_size),
        "layers": (wish.layers, candidate.layers),
        "gpus": (sorted(wish.gpus) if wish.gpus else None, sorted(candidate.gpus)),
    }
    for key, (wished, found) in pins.items():
        if wished is not None and wished != found:
            hint = f"take {key} out of the inventory to allow it"
            yield Reason("pinned", f"{key} {_plain(found)}", f"{key} {_plain(wished)}", hint)


def _plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return str(value)


def usable(candidate: Candidate, host: Host) -> Iterator[Reason]:
    """A card that answers with an error, or is cut into MIG slices, cannot be planned."""
    good = {gpu.index for gpu in host.usable}
    for index in candidate.gpus:
        if index not in good:
            hint = "leave it out of gpus, or repair it"
            yield Reason("usable-card", f"GPU {index}: {defect(host.gpu(index))}", None, hint)


def defect(gpu: Gpu) -> str:
    """Why a card is not usable."""
    if gpu.error is not None:
        return gpu.error
    return "cut into MIG slices" if gpu.mig else "its memory is not known"


def one_vendor(candidate: Candidate, host: Host, wish: Wish) -> Iterator[Reason]:
    """One process uses the cards of one vendor; only llama.cpp over Vulkan or RPC joins two."""
    vendors = sorted({host.gpu(index).vendor for index in candidate.gpus})
    if len(vendors) < 2 or wish.devices is not None:
        return
    yield Reason(
        "one-vendor",
        f"{cards(candidate.gpus)} are of {' and '.join(vendors)}",
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
    if not candidate.memory:
        return
    index, worst = max(
        zip(candidate.gpus, candidate.memory, strict=True),
        key=lambda item: item[1].total_mib - item[1].capacity_mib,
    )
    if not worst.fits:
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


def shrink(candidate: Candidate, worst: Memory) -> str:
    """What would make it fit."""
    spare = worst.capacity_mib - (worst.total_mib - worst.kv_cache_mib)
    if worst.kv_cache_mib > 0 and spare > 0.1 * worst.kv_cache_mib:
        percent = int(100 * spare / worst.kv_cache_mib)
        return f"lower context x concurrency to {percent} % of what is asked"
    if candidate.strategy in (Strategy.SINGLE, Strategy.REPLICAS):
        return "split the model over more cards, or take a smaller quantization"
    return "take a smaller quantization or more cards"
