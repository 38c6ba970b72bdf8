"""Times of one engine: a decode step, a prompt; from work, cards and calibrated constants."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

from multigpu.speed.cards import Card, Join
from multigpu.speed.constants import Engine, Links
from multigpu.speed.work import Work

SIXTEEN_BIT = (None, "F16", "BF16", "bitsandbytes")
# llama.cpp's physical batch (-ub) that prompts are cut into.
UBATCH = 512


@dataclass(frozen=True, slots=True)
class Stage:
    """One pipeline stage: its slowest card's figures and its share of the blocks."""

    bandwidth: float
    arithmetic: float
    share: float
    last: bool
    join: Join | None
    tp: int


def arithmetic(card: Card, work: Work, engine: Engine) -> float:
    """Operations/s in matrix products of the model's format on a card.

    FP8 and NVFP4 run natively where the card has the type; elsewhere, and for 4-bit integers,
    vLLM widens weights to 16 bit. llama.cpp multiplies quantized weights in 8-bit integers.
    """
    q = work.quantization
    if q in SIXTEEN_BIT:
        rate = card.fp16
    elif work.gguf:
        rate = (card.int8 or card.fp16) * engine.dequantized
    elif q in ("fp8", "w8a8") and card.fp8 is not None:
        rate = card.fp8
    elif q == "nvfp4" and card.fp4 is not None:
        rate = card.fp4
    else:
        rate = card.fp16 * engine.dequantized
    return rate * engine.arithmetic * (engine.routed if work.experts_bytes else 1.0)


def step(work: Work, stage: Stage, engine: Engine, links: Links, b: float, context: float) -> float:
    """Seconds of one decode step of one stage for `b` sequences with `context` tokens each."""
    blocks, experts = work.weights(b)
    bandwidth = stage.bandwidth
    read = stage.share * (blocks / engine.bandwidth + experts / engine.experts)
    flops = stage.share * work.flops * b
    if stage.last:
        read += work.head_bytes / engine.bandwidth
        flops += work.head_flops * b
    read /= bandwidth
    done = flops / stage.arithmetic
    cached = stage.share * b * work.cached(context) / (bandwidth * engine.cache)
    layers = stage.share * work.layers
    total = _overlapped(read, done) + cached + layers * _launch(work, engine)
    if stage.join is not None:
        total += 2 * layers * reduce(stage.join, stage.tp, b * work.hidden_bytes, links)
    return total


def reduce(join: Join, tp: int, size: float, links: Links) -> float:
    """Seconds of one all-reduce of `size` bytes over `tp` ranks."""
    if join.kind == "nvlink":
        latency, share = links.nvlink_us * log2(tp), links.nvlink
    elif join.kind == "peer":
        latency, share = links.peer_us * (tp - 1), links.peer
    else:
        latency, share = links.staged_us * (tp - 1), links.staged
    moved = 2.0 * (tp - 1) / tp * size
    return latency * 1e-6 + moved / (join.rate * share)


def prompt(work: Work, stage: Stage, engine: Engine, links: Links, tokens: float) -> float:
    """Seconds of one stage for a prompt of `tokens` tokens."""
    blocks, experts = work.weights(tokens)
    read = stage.share * (blocks / engine.bandwidth + experts / engine.experts) / stage.bandwidth
    flops = tokens * (work.flops + work.attention_flops(tokens / 2))
    done = stage.share * flops / stage.arithmetic
    layers = stage.share * work.layers
    total = _overlapped(read, done) + layers * _launch(work, engine)
    if stage.join is not None:
        total += 2 * layers * reduce(stage.join, stage.tp, tokens * work.hidden_bytes, links)
    return total


def _overlapped(read: float, done: float) -> float:
    """Reading and multiplying overlap in part: the time is between the larger one and the sum."""
    return float((read * read * read + done * done * done) ** (1.0 / 3.0))


def _launch(work: Work, engine: Engine) -> float:
    """Seconds one block takes however little it does."""
    return 1e-6 * (engine.layer_us + (engine.routing_us if work.experts_bytes else 0.0))
