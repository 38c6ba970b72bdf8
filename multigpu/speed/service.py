"""A service at work: what its engines do when requests come as fast as they are answered.

Closed loop: every one of the workload's requests is either waiting, reading its prompt or
decoding. What does not fit the KV cache waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from multigpu.hardware import Host
from multigpu.plan import Candidate, Memory, ModelSpec, Strategy, Workload
from multigpu.speed.arrivals import LARGE_CARD_MIB, LARGE_STEP, SMALL_STEP, arrivals, rounds
from multigpu.speed.cards import Card, Cards, cards
from multigpu.speed.constants import ENGINES, LINKS, Engine, Links
from multigpu.speed.steps import UBATCH, Stage, arithmetic, prompt, step
from multigpu.speed.work import MIB, Work, element_bytes, work

SHARDED = (Strategy.TENSOR_PARALLEL, Strategy.TENSOR_PIPELINE_PARALLEL, Strategy.TENSOR_SPLIT)


@dataclass(frozen=True, slots=True)
class Rates:
    """Predicted middle values: per service, and times of one request in milliseconds.

    `ttft_low_ms` and `ttft_high_ms` are for arrivals spread by chance and for all at once.
    """

    decode_tokens_per_s: float
    prefill_tokens_per_s: float
    ttft_ms: float
    ttft_low_ms: float
    ttft_high_ms: float
    tpot_ms: float
    running: int


class Seats(NamedTuple):
    """What one engine takes at a time: requests, tokens of prompts in a step, prompts or mixed."""

    requests: int
    step_tokens: int
    prompts_first: bool


def engine_name(candidate: Candidate, amd: bool) -> str:
    """The calibrated engine of a candidate; SGLang is taken for vLLM's equal."""
    if candidate.runtime == "llama.cpp":
        return "llama.cpp"
    return "vllm-amd" if amd else "vllm"


def rates(
    candidate: Candidate,
    host: Host,
    model: ModelSpec,
    load: Workload,
    engines: Mapping[str, Engine] = ENGINES,
    links: Links = LINKS,
) -> Rates | None:
    """The speed of a candidate, or None when a card has no data."""
    known = cards(host)
    group = [known.by_index.get(index) for index in candidate.gpus]
    some = [card for card in group if card is not None]
    if len(some) != len(group) or not some:
        return None
    engine = engines[engine_name(candidate, some[0].amd)]
    rank = work(model, tensor_size(candidate), element_bytes(load.kv_cache_dtype))
    copies = max(1, candidate.replicas)
    size = len(group) // copies
    alike = 1 if copies == 1 or len(set(some)) == 1 else copies
    # Like replicas are timed once, unlike ones each by itself.
    each = []
    for i in range(alike):
        part = slice(i * size, (i + 1) * size)
        stages = _stages(candidate, known, some[part], candidate.gpus[part], rank, engine, model)
        seats = _seats(candidate, candidate.memory[part], rank, load, len(stages))
        each.append(_loop(load, rank, stages, engine, links, seats, copies))
    return each[0] if alike == 1 else _together(each, load)


def _together(each: list[Rates], load: Workload) -> Rates:
    """Unlike replicas, each with its share of the requests; a request may meet the slowest."""
    copies = len(each)
    decode = sum(one.decode_tokens_per_s for one in each) / copies
    if load.concurrency == 1:
        decode = min(one.decode_tokens_per_s for one in each)
    return Rates(
        decode_tokens_per_s=decode,
        prefill_tokens_per_s=sum(one.prefill_tokens_per_s for one in each) / copies,
        ttft_ms=max(one.ttft_ms for one in each),
        ttft_low_ms=min(one.ttft_low_ms for one in each),
        ttft_high_ms=max(one.ttft_high_ms for one in each),
        tpot_ms=max(one.tpot_ms for one in each),
        running=min(load.concurrency, sum(one.running for one in each) // copies),
    )


def tensor_size(candidate: Candidate) -> int:
    """Ranks that share every block."""
    if candidate.strategy is Strategy.TENSOR_SPLIT:
        return len(candidate.gpus)
    return max(1, candidate.tensor_parallel_size)


def _stages(
    candidate: Candidate,
    known: Cards,
    group: list[Card],
    indices: tuple[int, ...],
    rank: Work,
    engine: Engine,
    model: ModelSpec,
) -> list[Stage]:
    """One engine's pipeline stages: llama.cpp's layer split and vLLM's pipeline are alike."""
    tp = tensor_size(candidate)
    count = max(1, len(group) // tp)
    shares = _shares(candidate, count, model.num_hidden_layers)
    stages = []
    for i in range(count):
        team = group[i * tp : (i + 1) * tp]
        stages.append(
            Stage(
                bandwidth=min(card.bandwidth for card in team),
                arithmetic=min(arithmetic(card, rank, engine) for card in team),
                sixteen_bit=min(card.fp16 for card in team) * engine.arithmetic,
                cycles=min(card.cycles for card in team),
                share=shares[i],
                last=i == count - 1,
                join=known.join(indices[i * tp : (i + 1) * tp]) if tp > 1 else None,
                tp=tp,
            )
        )
    return stages


def _shares(candidate: Candidate, count: int, layers: int) -> list[float]:
    """Shares of the blocks; llama.cpp counts the output layer on its last card."""
    given = candidate.layers
    if given is None or len(given) != count or sum(given) <= 0:
        return [1.0 / count] * count
    total = sum(given)
    blocks = [float(n) for n in given]
    if total == layers + 1:
        blocks[-1] -= 1.0
    return [n / layers if total in (layers, layers + 1) else n / total for n in blocks]


def _seats(
    candidate: Candidate, memory: tuple[Memory, ...], rank: Work, load: Workload, stages: int
) -> Seats:
    small = bool(memory) and min(card.capacity_mib for card in memory) < LARGE_CARD_MIB
    step = candidate.max_num_batched_tokens or (SMALL_STEP if small else LARGE_STEP)
    room = _room(candidate, memory, rank, load, stages)
    return Seats(room, step, candidate.runtime == "sglang")


def _room(
    candidate: Candidate, memory: tuple[Memory, ...], rank: Work, load: Workload, stages: int
) -> int:
    """Requests of the workload that one engine's KV cache holds in the middle of their life."""
    most = candidate.max_num_seqs or 1 << 30
    if candidate.runtime == "llama.cpp" or not memory:
        return most
    tokens = load.input_tokens + load.output_tokens / 2
    pool = min(card.kv_cache_mib for card in memory) * MIB
    held = rank.held(tokens) / stages
    fit = pool / held if held > 0 else float(most)
    if candidate.kv_tokens:
        fit = max(fit, candidate.kv_tokens / tokens)
    return max(1, min(int(fit), most))


def _loop(
    load: Workload,
    rank: Work,
    stages: list[Stage],
    engine: Engine,
    links: Links,
    seats: Seats,
    copies: int,
) -> Rates:
    """A service of `copies` like engines with so many `seats` each."""
    wanted = ceil(load.concurrency / copies)
    busy, running = min(copies, load.concurrency), min(wanted, seats.requests)
    context = load.input_tokens + load.output_tokens / 2
    token, own = _times(load, rank, stages, engine, links, running, context)
    times, fit = rounds(load.concurrency), seats.step_tokens / load.input_tokens
    came = arrivals(running, fit, seats.prompts_first, times)
    tpot = token + came.between * own / load.output_tokens
    # Reading all prompts and all tokens of those that run together; the others wait for it.
    round_ = load.output_tokens * token + running * own
    waiting = (wanted / running - 1) * round_
    # Of the first round some wait not at all, the last one the whole time.
    queued = waiting * (1 - 0.5 / times)
    hops = (len(stages) - 1) * links.hop_us * 1e-6
    first = token + (0.0 if rank.gguf else (len(stages) - 1) * own + hops)
    # A request alone is timed between its tokens; a service at work also reads its own prompt.
    full = load.output_tokens * token if load.concurrency == 1 else round_
    return Rates(
        decode_tokens_per_s=busy * running * load.output_tokens / full,
        prefill_tokens_per_s=copies * load.input_tokens / own,
        ttft_ms=1000 * (came.usual * own + first + queued),
        ttft_low_ms=1000 * (came.spread * own + first + queued),
        ttft_high_ms=1000 * (came.together * own + first + waiting),
        tpot_ms=1000 * tpot,
        running=min(load.concurrency, running * copies),
    )


def _times(
    load: Workload,
    rank: Work,
    stages: list[Stage],
    engine: Engine,
    links: Links,
    running: int,
    context: float,
) -> tuple[float, float]:
    """(seconds between two tokens of one request, seconds the engine is held by one prompt)."""
    count = len(stages)
    overhead = engine.step_us * 1e-6 + running * engine.sequence_us * 1e-6
    tokens = float(load.input_tokens)
    prompts = [prompt(rank, s, engine, links, tokens) for s in stages]
    # Stages take turns with one request, and are filled with as many batches as there are stages.
    batches = min(count, running) if not rank.gguf else 1
    each = running / batches
    steps = [step(rank, s, engine, links, each, context) for s in stages]
    hop = (count - 1) * links.hop_us * 1e-6
    full = max(steps) * batches * (1.0 + (batches - 1) * links.bubble)
    token = max(full, sum(steps) + hop) + overhead
    held = max(prompts)
    if rank.gguf:
        # llama.cpp sends a prompt through the cards in pieces, one behind the other.
        pieces = max(1.0, tokens / UBATCH)
        held *= (pieces + count - 1) / pieces
    return token, held + engine.step_us * 1e-6
