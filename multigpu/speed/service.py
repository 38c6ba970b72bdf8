"""A service at work: what its engines do when requests come as fast as they are answered.

Closed loop: every one of the workload's requests is either waiting, reading its prompt or
decoding. What does not fit the KV cache waits. Replicas share the requests evenly: of 4 requests
three engines take 2, 1 and 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from multigpu.hardware import Host
from multigpu.memo import memo
from multigpu.plan import Candidate, Memory, ModelSpec, Strategy, Workload
from multigpu.speed.arrivals import LARGE_CARD_MIB, LARGE_STEP, SMALL_STEP, arrivals, rounds
from multigpu.speed.cards import Cards, cards
from multigpu.speed.constants import ENGINES, LINKS, Engine, Links
from multigpu.speed.steps import UBATCH, Stage, prompt, step
from multigpu.speed.work import MIB, Work, element_bytes, work

KEPT, KEPT_LOADS = 8192, 16
"""Engines and workloads whose times are kept with a model; beyond, all are worked out anew."""
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
        return "llama.cpp-amd" if amd else "llama.cpp"
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
    some = [card for i in candidate.gpus if (card := known.by_index.get(i)) is not None]
    if len(some) != len(candidate.gpus) or not some:
        return None
    engine = engines[engine_name(candidate, some[0].amd)]
    rank = work(model, tensor_size(candidate), element_bytes(load.kv_cache_dtype))
    copies = max(1, candidate.replicas)
    size = len(some) // copies
    kept = _kept(model, load) if engines is ENGINES and links is LINKS else {}
    # Replicas on like cards that are joined alike and take as many requests are timed once.
    each: dict[tuple[object, ...], Rates] = {}
    times = []
    share, more = divmod(load.concurrency, copies)
    for i in range(copies):
        part = slice(i * size, (i + 1) * size)
        joined = known.join(candidate.gpus[part]) if copies > 1 and size > 1 else None
        taken = share + (i < more)
        kind = (taken, *some[part], joined)
        if kind not in each:
            indices = candidate.gpus[part]
            seats = _seats(candidate, candidate.memory[part], rank, load, size, taken)
            key = (*_way(candidate, known, indices), seats, taken)
            found = kept.get(key)
            if found is None:
                stages = _stages(candidate, known, indices, rank, engine, model)
                found = kept[key] = _loop(load, rank, stages, engine, links, seats, taken)
            each[kind] = found
        times.append(each[kind])
    return times[0] if copies == 1 else _together(times, load)


def _kept(model: ModelSpec, load: Workload) -> dict[tuple[object, ...], Rates]:
    """What engines over like cards give, of any hosts: it follows from the key alone."""
    loads: dict[Workload, dict[tuple[object, ...], Rates]]
    loads = memo(model).setdefault("speed-engines", {})
    found = loads.get(load)
    if found is None:
        if len(loads) >= KEPT_LOADS:
            loads.clear()
        found = loads[load] = {}
    if len(found) >= KEPT:
        found.clear()
    return found


def _way(candidate: Candidate, known: Cards, indices: tuple[int, ...]) -> tuple[object, ...]:
    """What stages, work and constants of one engine follow from, for one model."""
    tp, c = tensor_size(candidate), candidate
    if tp == 1:
        stages: tuple[object, ...] = tuple([known.by_index[index] for index in indices])
    else:
        teams = [indices[i : i + tp] for i in range(0, len(indices), tp)]
        stages = tuple([known.kind(team) for team in teams])
    return c.runtime, c.strategy, tp, c.layers, stages


def _together(each: list[Rates], load: Workload) -> Rates:
    """The sum of the engines; times are those of a request that meets the slowest.

    One request meets any of them; an engine without a request is timed with one and adds nothing.
    """
    decode = sum(one.decode_tokens_per_s for one in each if one.running)
    if load.concurrency == 1:
        decode = min(one.decode_tokens_per_s for one in each)
    return Rates(
        decode_tokens_per_s=decode,
        prefill_tokens_per_s=sum(one.prefill_tokens_per_s for one in each),
        ttft_ms=max(one.ttft_ms for one in each),
        ttft_low_ms=min(one.ttft_low_ms for one in each),
        ttft_high_ms=max(one.ttft_high_ms for one in each),
        tpot_ms=max(one.tpot_ms for one in each),
        running=sum(one.running for one in each),
    )


def tensor_size(candidate: Candidate) -> int:
    """Ranks that share every block."""
    if candidate.strategy is Strategy.TENSOR_SPLIT:
        return len(candidate.gpus)
    return max(1, candidate.tensor_parallel_size)


def _stages(
    candidate: Candidate,
    known: Cards,
    indices: tuple[int, ...],
    rank: Work,
    engine: Engine,
    model: ModelSpec,
) -> list[Stage]:
    """One engine's pipeline stages: llama.cpp's layer split and vLLM's pipeline are alike."""
    tp = tensor_size(candidate)
    count = max(1, len(indices) // tp)
    shares = _shares(candidate, count, model.num_hidden_layers)
    return [
        Stage(
            *known.team(indices[i * tp : (i + 1) * tp], rank, engine),
            share=shares[i],
            last=i == count - 1,
            tp=tp,
        )
        for i in range(count)
    ]


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
    candidate: Candidate,
    memory: tuple[Memory, ...],
    rank: Work,
    load: Workload,
    size: int,
    taken: int,
) -> Seats:
    """Of one engine over `size` cards; no more of them than requests that it has taken."""
    small = bool(memory) and min([card.capacity_mib for card in memory]) < LARGE_CARD_MIB
    step = candidate.max_num_batched_tokens or (SMALL_STEP if small else LARGE_STEP)
    wanted = max(1, taken)
    if wanted > 1:
        stages = max(1, size // tensor_size(candidate))
        wanted = min(wanted, _room(candidate, memory, rank, load, stages))
    return Seats(wanted, step, candidate.runtime == "sglang")


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
    taken: int,
) -> Rates:
    """One engine with its `seats` and the requests it has taken; with one where it has none."""
    wanted, running = max(1, taken), seats.requests
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
        decode_tokens_per_s=running * load.output_tokens / full,
        prefill_tokens_per_s=load.input_tokens / own,
        ttft_ms=1000 * (came.usual * own + first + queued),
        ttft_low_ms=1000 * (came.spread * own + first + queued),
        ttft_high_ms=1000 * (came.together * own + first + waiting),
        tpot_ms=1000 * tpot,
        running=min(taken, running),
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
