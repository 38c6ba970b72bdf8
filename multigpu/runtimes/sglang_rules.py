"""What SGLang 0.5.23 refuses, and which wishes it is a way of without being named."""

from __future__ import annotations

from collections.abc import Iterator

from multigpu import memory as m
from multigpu.hardware import Host, Vendor
from multigpu.labels import cards, counted, gib
from multigpu.plan import Candidate, ModelSpec, Reason, Wish
from multigpu.prefixes import pays
from multigpu.runtimes.sglang_models import OWN
from multigpu.runtimes.sharding import sharding
from multigpu.workload import workload

NAME = "sglang"

# SGLang asks the same of heads and widths as vLLM, whose layers it inherited; its wheels for CUDA
# 13 have no code for cards before Turing, FlashInfer none before 7.5.
MINIMUM = (7, 5)
# A rank must have at least this share of what another one of its team has free
# (`_check_tp_memory_balance`).
BALANCE = 0.9


def not_offered(model: ModelSpec, wish: Wish) -> str | None:
    """Why SGLang is no way of a wish that does not name it; None where it is one."""
    if wish.runtime == NAME:
        return None
    load = workload(model, wish)
    if wish.runtime is not None or not load.shared_prefix_tokens:
        return "requests share no prefix"
    words = ("flags", "kv_cache_dtype", "executable", "wheel", "cpu_offload_gib")
    own = [key for key in words if getattr(wish, key)]
    if own:
        return f"{own[0]} of the wish is vLLM's"
    if model.model_type not in OWN:
        return f"it has no layers of its own for {model.model_type}"
    if not pays(load):
        at_a_time = f"{counted(load.concurrency, 'request')} at a time"
        shared = f"{load.shared_prefix_tokens:,} of {load.input_tokens:,} tokens shared"
        return f"{at_a_time} with {shared} gain as much from vLLM's cache of prefixes"
    return None


def objections(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> Iterator[Reason]:
    """What stands against serving this candidate with SGLang."""
    why = not_offered(model, wish)
    if why is not None:
        needed = "several requests at a time that share half of their prompts, or runtime = sglang"
        yield Reason("runtime-on-request", f"SGLang: {why}", needed)
    yield from wheel(candidate, host, wish)
    if model.format == "gguf":
        hint = "serve it with llama.cpp, or name the Transformers repository of the model"
        yield Reason("model-format", "the model is a GGUF", "safetensors for SGLang", hint)
    yield from capability(candidate, host)
    yield from sharding(model, candidate.tensor_parallel_size, candidate.expert_parallel)
    yield from _stages(candidate, model)
    yield from balance(candidate, host, wish)


def wheel(candidate: Candidate, host: Host, wish: Wish) -> Iterator[Reason]:
    """The wheel on PyPI is built for CUDA 13; for ROCm there are containers and the source."""
    others = {host.gpu(i).vendor for i in candidate.gpus} - {Vendor.NVIDIA}
    if others and wish.executable is None:
        found = f"{cards(candidate.gpus)}: PyPI's wheel of SGLang is built for CUDA, not for ROCm"
        hint = "set executable to a ROCm build on the host, or serve a GGUF with llama.cpp"
        yield Reason("cuda-wheel", found, "a ROCm build of SGLang", hint)


def capability(candidate: Candidate, host: Host) -> Iterator[Reason]:
    """Cards that the wheel has code for."""
    old = [
        index
        for index in candidate.gpus
        if host.gpu(index).vendor is Vendor.NVIDIA
        and (host.gpu(index).compute_capability or MINIMUM) < MINIMUM
    ]
    if old:
        needed = "compute capability 7.5 or newer"
        yield Reason("compute-capability", f"{cards(old)} is older", needed, "use llama.cpp")


def _stages(candidate: Candidate, model: ModelSpec) -> Iterator[Reason]:
    layers, n = candidate.layers or (), model.num_hidden_layers
    if candidate.pipeline_parallel_size > 1 and (sum(layers) != n or min(layers, default=0) < 1):
        found = f"stages {'+'.join(str(x) for x in layers) or 'none'} for {n} blocks"
        needed = f"{candidate.pipeline_parallel_size} stages that add up to {n}"
        yield Reason("pipeline-stages", found, needed, "pin layers that add up, or fewer cards")


def balance(candidate: Candidate, host: Host, wish: Wish) -> Iterator[Reason]:
    """Ranks of a team must have nearly the same memory free."""
    if candidate.tensor_parallel_size == 1:
        return
    if wish.env.get("SGLANG_ENABLE_TP_MEMORY_INBALANCE_CHECK") == "0":
        return
    free = {index: m.free_mib(host.gpu(index), wish) for index in candidate.gpus}
    least, most = min(free.values()), max(free.values())
    if least < BALANCE * most:
        found = f"{gib(least)} to {gib(most)} GiB free on {cards(candidate.gpus)}"
        needed = f"at least {BALANCE:.0%} of the fullest on every card of a team"
        hint = "free the smaller card, or take pipeline parallel with vLLM"
        yield Reason("memory-unbalanced", found, needed, hint)
