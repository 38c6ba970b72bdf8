"""Times of one engine: a decode step, a prompt; from work, cards and calibrated constants."""

from __future__ import annotations

from math import ceil, log2
from typing import NamedTuple

from multigpu.speed.cards import SIXTEEN_BIT, Join
from multigpu.speed.constants import Engine, Links, LlamaCpp
from multigpu.speed.work import Work

# llama.cpp's physical batch (-ub) that prompts are cut into.
UBATCH = 512


# Up to this many tokens llama.cpp multiplies with its vector kernels (MMVQ_MAX_BATCH_SIZE of
# ggml/src/ggml-cuda/mmvq.cuh), beyond with its matrix kernels.
VECTOR_TOKENS = 8


class Stage(NamedTuple):
    """One pipeline stage: its slowest card's figures and its share of the blocks.

    `arithmetic` is reached in products with the model's weights, `sixteen_bit` in those of 16 bit.
    """

    bandwidth: float
    arithmetic: float
    sixteen_bit: float
    cycles: float
    join: Join | None
    share: float
    last: bool
    tp: int


def step(work: Work, stage: Stage, engine: Engine, links: Links, b: float, context: float) -> float:
    """Seconds of one decode step of one stage for `b` sequences with `context` tokens each."""
    blocks, experts = work.weights(b)
    bandwidth = stage.bandwidth
    read = stage.share * (blocks / engine.bandwidth + experts / engine.experts)
    flops = stage.share * work.flops
    if stage.last:
        read += work.head_bytes / engine.bandwidth
        flops += work.head_flops
    read /= bandwidth
    if isinstance(engine, LlamaCpp) and work.quantization not in SIXTEEN_BIT:
        touched = stage.share * (blocks + experts)
        if stage.last:
            touched += work.head_bytes
        multiplied = read + _vectors(work, stage, engine, b, flops, touched)
    else:
        multiplied = _overlapped(read, b * flops / stage.arithmetic)
    cached = stage.share * b * work.cached(context) / (bandwidth * engine.cache)
    layers = stage.share * work.layers
    total = multiplied + cached + layers * _launch(work, engine)
    if stage.join is not None:
        total += 2 * layers * _reduce(stage, engine, b * work.hidden_bytes, links)
    return total


def _vectors(
    work: Work, stage: Stage, engine: LlamaCpp, b: float, flops: float, touched: float
) -> float:
    """Seconds of unpacking weights once and multiplying them with every token of the step."""
    weights = touched * work.weights_per_byte
    few = min(b, VECTOR_TOKENS)
    done = (weights / engine.unpack + few * flops / (2 * engine.dot)) / stage.cycles
    return done + (b - few) * flops / stage.arithmetic


def _reduce(stage: Stage, engine: Engine, size: float, links: Links) -> float:
    """Seconds of one all-reduce of a stage; llama.cpp's are bound by the pieces of its graph."""
    join = stage.join
    assert join is not None
    if isinstance(engine, LlamaCpp):
        return engine.split_us * 1e-6 + _moved(join, stage.tp, size, links)
    return reduce(join, stage.tp, size, links)


def reduce(join: Join, tp: int, size: float, links: Links) -> float:
    """Seconds of one all-reduce of `size` bytes over `tp` ranks."""
    if join.kind == "nvlink":
        latency = links.nvlink_us * log2(tp)
    elif join.kind == "peer":
        latency = links.peer_us * (tp - 1)
    else:
        latency = max(links.staged_us * log2(tp), links.peer_us * (tp - 1))
    return latency * 1e-6 + _moved(join, tp, size, links)


def _moved(join: Join, tp: int, size: float, links: Links) -> float:
    """Seconds that the bytes of an all-reduce take."""
    share = {"nvlink": links.nvlink, "peer": links.peer}.get(join.kind, links.staged)
    return 2.0 * (tp - 1) / tp * size / (join.rate * share)


def prompt(
    work: Work, stage: Stage, engine: Engine, links: Links, tokens: float, history: float = 0.0
) -> float:
    """Seconds of one stage for `tokens` tokens of a prompt behind `history` that are cached."""
    blocks, experts = work.weights(tokens)
    read = stage.share * (blocks / engine.bandwidth + experts / engine.experts) / stage.bandwidth
    done = stage.share * tokens * work.flops / stage.arithmetic
    layers, launch = stage.share * work.layers, _launch(work, engine)
    if isinstance(engine, LlamaCpp):
        launch += ceil(tokens / UBATCH) * engine.batch_us * 1e-6
        if work.experts_bytes:
            # `-sm tensor` halves the width of every expert, not the tiles: no rank is done sooner.
            done *= stage.tp
    # Scores and values are multiplied in 16 bit whatever the weights are stored in.
    done += stage.share * tokens * work.attention_flops(history + tokens / 2) / stage.sixteen_bit
    total = _overlapped(read, done) + layers * launch
    if stage.join is not None:
        total += 2 * layers * _reduce(stage, engine, tokens * work.hidden_bytes, links)
    return total


def _overlapped(read: float, done: float) -> float:
    """Reading and multiplying overlap in part: the time is between the larger one and the sum."""
    return float((read * read * read + done * done * done) ** (1.0 / 3.0))


def _launch(work: Work, engine: Engine) -> float:
    """Seconds one block takes however little it does."""
    return 1e-6 * (engine.layer_us + (engine.routing_us if work.experts_bytes else 0.0))
