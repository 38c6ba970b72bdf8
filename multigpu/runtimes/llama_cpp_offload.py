"""Weights that a wish allows in the host's memory: experts of the first blocks, or whole blocks.

Facts of 0.5.0-dev (0c1e57098): `--n-cpu-moe N` keeps the experts of the first N blocks on the CPU
(common/arg.cpp), `--gpu-layers N` the last N units on the cards (src/llama-model.cpp). Either turns
pipeline parallelism off, and with it the copies of inputs (src/llama-context.cpp).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate

from multigpu.memo import memo
from multigpu.plan import Candidate, ModelSpec

# Long prompts are computed on the first card although the weights are in the host's memory
# (`ggml_backend_cuda_device_offload_op`): they are brought over, tensor by tensor. Of seven models
# on an H200 (driver 580.159.04, 96 loads, ours) the compute buffer grew by one to three tensors of
# a block; how many lie in it at one time depends on the holes between them. A whole block is the
# safe side: no card took 150 MiB more, some took up to 1 GiB less.
Fitted = Callable[[Candidate], Candidate]


def on_cards(model: ModelSpec, cpu_moe_layers: int) -> ModelSpec:
    """The model without the experts that stay in the host's memory."""
    if not cpu_moe_layers:
        return model
    known = memo(model)
    key = ("llama.cpp-cpu-moe", cpu_moe_layers)
    if key not in known:
        gone = [*model.experts_mib[:cpu_moe_layers]]
        gone += [0.0] * (len(model.layers_mib) - len(gone))
        left = tuple(mib - out for mib, out in zip(model.layers_mib, gone, strict=True))
        known[key] = replace(model, layers_mib=left)
    found: ModelSpec = known[key]
    return found


def streamed_mib(candidate: Candidate, model: ModelSpec) -> float:
    """At most what the first card holds of weights that stay in the host's memory: a block."""
    if candidate.cpu_moe_layers:
        return max(model.experts_mib[: candidate.cpu_moe_layers], default=0.0)
    if candidate.gpu_layers is None:
        return 0.0
    away = model.num_hidden_layers + 1 - candidate.gpu_layers
    return max(model.layers_mib[:away], default=0.0)


def offloaded(base: Candidate, model: ModelSpec, budget_mib: float, fitted: Fitted) -> Candidate:
    """The candidate with the fewest weights in the host's memory that fits the cards.

    `fitted` sizes a candidate. Experts go first: they are read least per token. Every step is tried
    that frees what is missing, from the smallest on: one more block in the host's memory may move
    others between the cards.
    Where not even the whole budget is enough, the candidate that uses all of it is returned.
    """
    ways = _ways(base, model, budget_mib)
    if not ways:
        return fitted(base)
    found = fitted(base)
    excess = sum(m.weights_mib + m.kv_cache_mib - m.capacity_mib for m in found.memory)
    enough = [way for way in ways if way.cpu_offload_mib >= excess // max(1, base.replicas)]
    for way in enough or ways[-1:]:
        found = fitted(way)
        if fits(found):
            break
    return found


def fits(candidate: Candidate) -> bool:
    """True for a sized candidate whose cards all hold their share."""
    return bool(candidate.memory) and all(memory.fits for memory in candidate.memory)


def _ways(base: Candidate, model: ModelSpec, budget_mib: float) -> list[Candidate]:
    """Every step of the way from one block to as many as the budget allows."""
    experts = any(model.experts_mib)
    sums = accumulate(model.experts_mib if experts else model.layers_mib)
    units = model.num_hidden_layers + 1
    return [
        replace(base, cpu_moe_layers=count, cpu_offload_mib=mib)
        if experts
        else replace(base, gpu_layers=units - count, cpu_offload_mib=mib)
        for count, mib in enumerate(sums, start=1)
        if mib <= budget_mib
    ]
