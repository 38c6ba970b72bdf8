"""What vLLM holds of each card: weights, activations, graphs, overhead, and the KV cache.

vLLM takes what is left of its fraction of the card as KV cache; the rank with the fewest blocks
decides (`determine_available_memory` in `v1/worker/gpu_worker.py`, `get_kv_cache_configs` in
`v1/core/kv_cache_planning.py`). Only the sum of activations, graphs and overhead can be compared
with boot logs of releases that did not print them apart: `python -m benchmarks.kv_cache`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, floor, inf
from typing import NamedTuple

from multigpu import memory as m
from multigpu.hardware import Host
from multigpu.memo import changed, memo
from multigpu.plan import Candidate, Memory, ModelSpec, Wish
from multigpu.runtimes.vllm_cache import UNBOUNDED, Layout, layout
from multigpu.runtimes.vllm_cards import Card, cards
from multigpu.runtimes.vllm_release import RENDERED, Release, of_wish
from multigpu.runtimes.vllm_step import (
    Engine,
    activations_mib,
    engine,
    graphs_mib,
    overhead_mib,
    settings,
)
from multigpu.runtimes.vllm_weights import experts_factor, resident, weights_mib
from multigpu.workload import workload

# vLLM's default for --gpu-memory-utilization (0.33.0).
GPU_MEMORY_UTILIZATION = RENDERED.gpu_memory_utilization
# A start is promised only with this much to spare: nine of ten predictions whose release is known
# are nearer than that to what the boot printed.
FIT_MARGIN_MIB = 300
# Stages whose terms are kept with an engine: what is kept for good, the collector walks through.
KEPT = 256
# Candidates whose sums are kept with an engine.
KEPT_SUMS = 1024

Span = tuple[int, int]
Rank = tuple[Card, Span]
Kind = tuple[str, float, float]


class Fixed(NamedTuple):
    """What a rank holds beside its cache, in whole MiB, and how its cache is cut.

    `layout` is None and `block_mib` 0.0 where nothing is cached.
    """

    weights_mib: float
    activations_mib: float
    overhead_mib: float
    graphs_mib: float
    total_mib: float
    layout: Layout | None
    block_mib: float
    offloaded_mib: float


class Held(NamedTuple):
    """One rank of an engine: its card, what it holds beside its cache, what vLLM may take."""

    card: Card
    fixed: Fixed
    capacity_mib: float


class Team(NamedTuple):
    """The ranks of a candidate: those of all engines of `world`, or one that stands for `times`."""

    ranks: tuple[Rank, ...]
    world: int
    times: int


def _team(candidate: Candidate, held: list[Card], spans: list[Span], world: int) -> Team:
    """Like cards that hold the same blocks are counted once, and so are engines over such cards."""
    if candidate.pipeline_parallel_size == 1 and held.count(held[0]) == len(held):
        return Team(((held[0], spans[0]),), 1, len(held))
    return Team(tuple(zip(held, spans, strict=True)), world, 1)


def _held(ranks: Iterable[Rank], e: Engine, model: ModelSpec, fraction: float) -> list[Held]:
    """Like ranks as one object. What a kind of card holds is kept with the engine, for a model."""
    known = memo(e)
    if known.get("model") is not model:
        known.update({"model": model, "kinds": {}, "fixed": {}})
    kinds: dict[object, Kind] = known["kinds"]
    kept: dict[tuple[Span, Kind], Fixed] = known["fixed"]
    found: dict[Rank, Held] = {}
    held = []
    for rank in ranks:
        one = found.get(rank)
        if one is None:
            card, span = rank
            kind = kinds.get(card.kind)
            if kind is None:
                kind = kinds[card.kind] = _kind(card, e, model)
            fixed = kept.get((span, kind))
            if fixed is None:
                if len(kept) >= KEPT:
                    kept.clear()
                fixed = kept[span, kind] = _fixed(card, span, e, model)
            one = found[rank] = Held(card, fixed, float(floor(card.room.total_mib * fraction)))
        held.append(one)
    return held


def _kind(card: Card, e: Engine, model: ModelSpec) -> Kind:
    """All that `_fixed` reads of a card: cards of one generation hold most models alike."""
    experts = experts_factor(model, e.tp, card.gpu, expert_parallel=e.expert_parallel)
    return card.gpu.vendor.value, resident(model, card.gpu), experts


def _fixed(card: Card, span: Span, e: Engine, model: ModelSpec) -> Fixed:
    blocks = weights_mib(model, span, e.tp, card.gpu, expert_parallel=e.expert_parallel)
    first, last = span[0] == 0, span[1] == model.num_hidden_layers
    weights = float(ceil(max(0.0, blocks - e.offload_mib)))
    activations = float(ceil(activations_mib(model, e, first=first, last=last)))
    overhead = float(ceil(overhead_mib(card.gpu.vendor, e)))
    graphs = float(ceil(graphs_mib(model, e))) if e.release.graphs_first else 0.0
    total = weights + activations + overhead + graphs
    cut = layout(model, span, e.tp, e.kv_bytes)
    block = cut.block_bytes / m.MIB if cut is not None else 0.0
    offloaded = min(e.offload_mib, blocks)
    return Fixed(weights, activations, overhead, graphs, total, cut, block, offloaded)


def utilization(held: Sequence[Card], wish: Wish) -> float:
    """vLLM's one fraction for all cards: the pin, else 0.92, less where a card is in use."""
    if wish.gpu_memory_utilization is not None:
        return wish.gpu_memory_utilization
    return min([card.fraction for card in held])


def sized(
    candidate: Candidate, host: Host, model: ModelSpec, wish: Wish, release: Release | None = None
) -> Candidate:
    """The candidate with memory per card, KV tokens of one engine and the utilization.

    With the first settings that hold one request, or the last where none do. The accounting is
    that of the wished `runtime_version`, else that of the rendered release.
    """
    known = cards(host, wish)
    held = [known[index] for index in candidate.gpus]
    fraction = utilization(held, wish)
    known_as = release or of_wish(wish)
    e = engine(candidate, held, model, wish, known_as)
    kept = _kept(e, model)
    # All that the sums depend on: where cards are of one size, hosts share what was found.
    key = (fraction, candidate.layers, *[card.size for card in held])
    if key not in kept:
        if len(kept) >= KEPT_SUMS:
            kept.clear()
        kept[key] = _tried(candidate, held, e, model, wish, fraction)
    found = kept[key]
    if found is None:
        return candidate
    rows, sums = found
    return changed(candidate, memory=_on(held, rows), **sums)


Row = tuple[float, float, float, float, float, float]
"""The fields of a `Memory` but for the last, what others hold of the card."""
Sums = dict[str, float | None]
"""Fields of a candidate, beside its memory."""
Sized = tuple[tuple[Row, ...], Sums]
"""What a candidate holds of each card, whatever others hold of them.

Numbers in tuples and no objects: of those the garbage collector has nothing to follow, which would
stop planning to walk through all that is kept.
"""


def _kept(e: Engine, model: ModelSpec) -> dict[object, Sized | None]:
    """What engines of these settings hold of a model, with the engine; None: stages add not up."""
    known = memo(e)
    if known.get("sized-model") is not model:
        known["sized-model"], known["sized"] = model, {}
    found: dict[object, Sized | None] = known["sized"]
    return found


def _on(held: Sequence[Card], rows: Sequence[Row]) -> tuple[Memory, ...]:
    """Memory with what others hold of the cards; like neighbours are one object."""
    found: list[Memory] = []
    card = row = None
    for own_card, own_row in zip(held, rows, strict=True):
        if own_card is card and own_row is row:
            found.append(found[-1])
        else:
            card, row = own_card, own_row
            found.append(Memory(*row, card.other_mib))
    return tuple(found)


def _tried(
    candidate: Candidate,
    held: list[Card],
    e: Engine,
    model: ModelSpec,
    wish: Wish,
    fraction: float,
) -> Sized | None:
    """With the first settings that hold a request; None where the stages do not add up."""
    spans = stages(candidate, model)
    if spans is None:
        return None
    team = _team(candidate, held, spans, e.world)
    context = workload(model, wish).context
    for tried in settings(e, wish):
        found = _filled_in(team, tried, model, context, fraction)
        if found[1]["kv_sequences"]:
            break
    return found


def _filled_in(team: Team, e: Engine, model: ModelSpec, context: int, fraction: float) -> Sized:
    """The memory of engines that are started so; the smallest one's tokens."""
    held = _held(team.ranks, e, model, fraction)
    parts = [held[i : i + team.world] for i in range(0, len(held), team.world)]
    rooms = [_blocks(part) for part in parts]
    blocks, sure = min(rooms)
    null = 1 if e.release.null_block else 0
    request, longest = _request(held, context, sure - null, e)
    needed = request + null
    concurrency = blocks / request if request else float(e.max_num_seqs)
    rows: list[Row] = []
    for part, (mine, enough) in zip(parts, rooms, strict=True):
        rows += _rows(part, mine if enough >= needed else None, needed)
    sums: Sums = {
        "kv_tokens": floor(concurrency * context),
        "kv_sequences": floor(concurrency) if sure >= needed else 0,
        "max_model_len": context,
        "context_limit": min(longest, model.max_position_embeddings or longest),
        "max_num_seqs": e.max_num_seqs,
        "max_num_batched_tokens": e.batched if e.told else None,
        "gpu_memory_utilization": fraction,
        "cpu_offload_mib": _offloaded(held) * team.times if e.offload_mib else 0.0,
    }
    return tuple(rows * team.times), sums


def _offloaded(held: Iterable[Held]) -> float:
    """Weights of all ranks in the host's memory; a rank has no more to give than it holds."""
    return sum(rank.fixed.offloaded_mib for rank in held)


def _blocks(ranks: Iterable[Held]) -> tuple[int, int]:
    """Blocks of the rank with the fewest, and those of it that are sure: less the margin."""
    found, sure = inf, inf
    for _, fixed, capacity_mib in ranks:
        size = fixed.block_mib
        if size:
            spare = capacity_mib - fixed.total_mib
            if spare / size < found:
                found = spare / size
            if (spare - FIT_MARGIN_MIB) / size < sure:
                sure = (spare - FIT_MARGIN_MIB) / size
    if found is inf:
        return 0, 0
    return max(0, floor(found)), max(0, floor(sure))


def _request(held: Iterable[Held], context: int, blocks: int, e: Engine) -> tuple[int, int]:
    """(blocks of one request of `context` tokens, the longest request that `blocks` hold)."""
    for _, fixed, _ in held:
        if fixed.layout is not None:
            longest = fixed.layout.longest(blocks, e.in_flight)
            return fixed.layout.blocks(context, e.in_flight), longest
    return 0, UNBOUNDED


def _rows(ranks: Sequence[Held], blocks: int | None, needed: int) -> list[Row]:
    """The cards of one engine, like ones as one object.

    vLLM takes what is left as KV cache, cut to the blocks of the rank that has the fewest. Where
    not even one request fits (None) the cache is what that request needs, and the margin is seen.
    """
    made: dict[int, Row] = {}
    rows = []
    for rank in ranks:
        row = made.get(id(rank))
        if row is None:
            row = made[id(rank)] = _row(rank, blocks, needed)
        rows.append(row)
    return rows


def _row(rank: Held, blocks: int | None, needed: int) -> Row:
    _, fixed, capacity_mib = rank
    size = fixed.block_mib
    return (
        fixed.weights_mib,
        float(ceil(needed * size) if blocks is None else floor(blocks * size)),
        fixed.activations_mib,
        fixed.overhead_mib + (FIT_MARGIN_MIB if size and blocks is None else 0.0),
        capacity_mib,
        fixed.graphs_mib,
    )


def stages(candidate: Candidate, model: ModelSpec) -> list[tuple[int, int]] | None:
    """The blocks [start, end) of every rank, aligned with `gpus`; None when they do not add up."""
    if candidate.pipeline_parallel_size == 1:
        return [(0, model.num_hidden_layers)] * len(candidate.gpus)
    layers = candidate.layers or ()
    if sum(layers) != model.num_hidden_layers or min(layers, default=0) < 1:
        return None
    ends = [sum(layers[: i + 1]) for i in range(len(layers))]
    spans = zip([0, *ends], ends, strict=False)
    return [span for span in spans for _ in range(candidate.tensor_parallel_size)]
