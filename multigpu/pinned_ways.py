"""Pins of a strategy, its sizes and its layers against each other; a contradiction is one line."""

from __future__ import annotations

from multigpu.hardware import Host
from multigpu.plan import ModelSpec, Strategy, Wish


def strategy(host: Host, model: ModelSpec, wish: Wish) -> str | None:
    for checked in (_strategy_of_format, _single, _parallel_sizes):
        problem = checked(model, wish)
        if problem is not None:
            return problem
    return None


def _ranks(wish: Wish) -> tuple[int, int]:
    return wish.tensor_parallel_size or 1, wish.pipeline_parallel_size or 1


PARALLEL = (
    Strategy.TENSOR_PARALLEL,
    Strategy.PIPELINE_PARALLEL,
    Strategy.TENSOR_PIPELINE_PARALLEL,
)
"""Strategies of vLLM and SGLang; llama.cpp splits by layer or tensor."""


def _strategy_of_format(model: ModelSpec, wish: Wish) -> str | None:
    tp, pp = _ranks(wish)
    wished, gguf = wish.strategy, model.format == "gguf"
    if wished in (Strategy.LAYER_SPLIT, Strategy.TENSOR_SPLIT):
        if tp > 1 or pp > 1:
            return f"strategy {wished} has no tensor or pipeline parallel size: pin layers or gpus"
        if not gguf:
            use = "pipeline" if wished is Strategy.LAYER_SPLIT else "tensor"
            return f"strategy {wished} is llama.cpp's and needs a GGUF: use {use}_parallel"
    if gguf and (wished in PARALLEL or tp > 1 or pp > 1):
        return "a GGUF is split by layer (strategy layer_split), not by tensor or pipeline parallel"
    return None


def _single(model: ModelSpec, wish: Wish) -> str | None:
    if wish.strategy is not Strategy.SINGLE:
        return None
    tp, pp = _ranks(wish)
    if tp > 1 or pp > 1:
        sized = "tensor_parallel_size" if tp > 1 else "pipeline_parallel_size"
        return f"strategy single contradicts {sized} {max(tp, pp)}: leave one of them out"
    if wish.gpus is not None and len(wish.gpus) > 1:
        return f"strategy single contradicts gpus {list(wish.gpus)}: name one card"
    return None


def _parallel_sizes(model: ModelSpec, wish: Wish) -> str | None:
    """A strategy names which sizes are above 1."""
    if wish.strategy not in PARALLEL:
        return None
    for size, word in (
        (wish.tensor_parallel_size, "tensor"),
        (wish.pipeline_parallel_size, "pipeline"),
    ):
        key, named = f"{word}_parallel_size", word in wish.strategy
        if named and size == 1:
            return f"strategy {wish.strategy} contradicts {key} 1: leave one out"
        if not named and size is not None and size > 1:
            return f"strategy {wish.strategy} with {key}: use tensor_pipeline_parallel"
    return None


def sizes(host: Host, model: ModelSpec, wish: Wish) -> str | None:
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


def layers(host: Host, model: ModelSpec, wish: Wish) -> str | None:
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
    whole = (Strategy.SINGLE, Strategy.REPLICAS, Strategy.TENSOR_PARALLEL, Strategy.TENSOR_SPLIT)
    if wish.strategy in whole:
        return f"strategy {wish.strategy} does not split by layer: leave layers out"
    return None
