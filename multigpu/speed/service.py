"""A service at work: what its engines do when requests come as fast as they are answered.

Closed loop: every one of the workload's requests is either waiting, reading its prompt or
decoding. What does not fit the KV cache waits. Replicas share the requests evenly: of 4 requests
three engines take 2, 1 and 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from multigpu.backend import GGML_RUNTIMES
from multigpu.hardware import Host
from multigpu.memo import changed, memo
from multigpu.plan import Candidate, Memory, ModelSpec, Strategy, Workload
from multigpu.prefixes import reused
from multigpu.speed.arrivals import LARGE_CARD_MIB, LARGE_STEP, SMALL_STEP, arrivals, rounds
from multigpu.speed.cards import Cards, cards
from multigpu.speed.constants import ENGINES, LINKS, Engine, Links
from multigpu.speed.steps import UBATCH, Stage, prompt, step
from multigpu.speed.work import MIB, Work, element_bytes, work

KEPT, KEPT_LOADS = 4096, 16
"""Engines and workloads whose times are kept with a model; beyond, all are worked out anew.

What is kept is found by numbers and strings alone: the garbage collector, which would stop planning
to walk through objects, has nothing to follow there.
"""
SHARDED = (Strategy.TENSOR_PARALLEL, Strategy.TENSOR_PIPELINE_PARALLEL, Strategy.TENSOR_SPLIT)


class Rates(NamedTuple):
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
    """What one engine takes at a time: requests, tokens of prompts in a step, prompts or mixed.

    `cached` tokens of every prompt are in its cache already.
    """

    requests: int
    step_tokens: int
    prompts_first: bool
    cached: int


def engine_name(candidate: Candidate, amd: bool) -> str:
    """The calibrated engine of a candidate; SGLang is taken for vLLM's equal."""
    if candidate.runtime in GGML_RUNTIMES:
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
    known, gpus = cards(host), candidate.gpus
    if not gpus or not known.unknown.isdisjoint(gpus):
        return None
    way = _Way(candidate, known, model, load, engines, links)
    copies = candidate.replicas
    if copies <= 1:
        return way.rates(gpus, candidate.memory, load.concurrency)
    # Replicas on like cards that are joined alike and take as many requests are timed once.
    each: dict[tuple[object, ...], Rates] = {}
    times, size = [], len(gpus) // copies
    share, more = divmod(load.concurrency, copies)
    for i in range(copies):
        part = slice(i * size, (i + 1) * size)
        taken, indices = share + (i < more), gpus[part]
        joined = known.join(indices) if size > 1 else None
        kind = (taken, joined, *[known.by_index[index] for index in indices])
        found = each.get(kind)
        if found is None:
            found = each[kind] = way.rates(indices, candidate.memory[part], taken)
        times.append(found)
    return _together(times, load)


class _Way:
    """One candidate on its cards under a workload, with what all of its engines share."""

    def __init__(
        self,
        candidate: Candidate,
        known: Cards,
        model: ModelSpec,
        load: Workload,
        engines: Mapping[str, Engine],
        links: Links,
    ) -> None:
        self.candidate, self.known, self.model, self.load = candidate, known, model, load
        self.links = links
        card = known.by_index[candidate.gpus[0]]
        self.engine = engines[engine_name(candidate, card is not None and card.amd)]
        self.tp = tensor_size(candidate)
        self.rank = work(model, self.tp, element_bytes(load.kv_cache_dtype))
        usual = engines is ENGINES and links is LINKS
        self.kept = _kept(model, load) if usual else {}

    def rates(self, gpus: tuple[int, ...], memory: tuple[Memory, ...], taken: int) -> Rates:
        """Of the engine over these cards, with the requests it has taken."""
        c, load, rank, tp = self.candidate, self.load, self.rank, self.tp
        seats = _seats(c, memory, rank, load, len(gpus) // tp, taken)
        key = (c.runtime, tp, c.layers, _stage_cards(self.known, gpus, tp), *seats, taken)
        found = self.kept.get(key)
        if found is None:
            stages = _stages(c, self.known, gpus, rank, self.engine, self.model)
            found = _loop(load, rank, stages, self.engine, self.links, seats, taken)
            self.kept[key] = found
        return found


def _kept(model: ModelSpec, load: Workload) -> dict[tuple[object, ...], Rates]:
    """What engines over like cards give, of any hosts: it follows from the key alone."""
    near = memo(load)
    if near.get("speed-model") is not model:
        loads: dict[Workload, dict[tuple[object, ...], Rates]]
        loads = memo(model).setdefault("speed-engines", {})
        if load not in loads and len(loads) >= KEPT_LOADS:
            loads.clear()
        # A copy, which knows no model: else model and workload would keep each other.
        near["speed-model"], near["speed-engines"] = model, loads.setdefault(changed(load), {})
    found: dict[tuple[object, ...], Rates] = near["speed-engines"]
    if len(found) >= KEPT:
        found.clear()
    return found


def _stage_cards(known: Cards, gpus: tuple[int, ...], tp: int) -> tuple[object, ...]:
    """The cards of every stage and how they are joined, as numbers."""
    if tp == 1:
        return tuple([known.numbers[index] for index in gpus])
    return tuple([known.kind(gpus[i : i + tp]) for i in range(0, len(gpus), tp)])


def _together(each: list[Rates], load: Workload) -> Rates:
    """The sum of the engines; times are those of a request that meets the slowest.

    One request meets any of them; an engine without a request is timed with one and adds nothing.
    """
    decode, prefill, first, low, high, token, running = zip(*each, strict=True)
    together = sum([rate for rate, taken in zip(decode, running, strict=True) if taken])
    return Rates(
        decode_tokens_per_s=min(decode) if load.concurrency == 1 else together,
        prefill_tokens_per_s=sum(prefill),
        ttft_ms=max(first),
        ttft_low_ms=min(low),
        ttft_high_ms=max(high),
        tpot_ms=max(token),
        running=sum(running),
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
    stages: int,
    taken: int,
) -> Seats:
    """Of one engine in `stages`; no more of them than requests that it has taken."""
    step = candidate.max_num_batched_tokens
    if not step:
        small = bool(memory) and min([card.capacity_mib for card in memory]) < LARGE_CARD_MIB
        step = SMALL_STEP if small else LARGE_STEP
    name, cached = candidate.runtime, 0
    if load.shared_prefix_tokens:
        cached = reused(name, load, states=rank.state_bytes > 0, windows=bool(rank.windows))
    wanted = max(1, taken)
    if wanted > 1:
        wanted = min(wanted, _room(candidate, memory, rank, load, max(1, stages), cached))
    return Seats(wanted, step, name == "sglang", cached)


def _room(
    candidate: Candidate,
    memory: tuple[Memory, ...],
    rank: Work,
    load: Workload,
    stages: int,
    cached: int,
) -> int:
    """Requests of the workload that one engine's KV cache holds in the middle of their life.

    What they share is held once.
    """
    most = candidate.max_num_seqs or 1 << 30
    if candidate.runtime in GGML_RUNTIMES or not memory:
        return most
    tokens = load.input_tokens + load.output_tokens / 2
    pool = min(card.kv_cache_mib for card in memory) * MIB
    shared = rank.held(cached) / stages if cached else 0.0
    held = rank.held(tokens) / stages - shared
    fit = (pool - shared) / held if held > 0 else float(most)
    if candidate.kv_tokens:
        fit = max(fit, (candidate.kv_tokens - cached) / (tokens - cached))
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
    token, own = _times(load, rank, stages, engine, links, seats, context)
    read = load.input_tokens - seats.cached
    times, fit = rounds(load.concurrency), seats.step_tokens / read
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
        prefill_tokens_per_s=read / own,
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
    seats: Seats,
    context: float,
) -> tuple[float, float]:
    """(seconds between two tokens of one request, seconds the engine is held by one prompt)."""
    count, running = len(stages), seats.requests
    overhead = engine.step_us * 1e-6 + running * engine.sequence_us * 1e-6
    tokens, cached = float(load.input_tokens - seats.cached), float(seats.cached)
    prompts = [prompt(rank, s, engine, links, tokens, cached) for s in stages]
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
