"""The smallest single change that would make a candidate fit, tried with the runtime's own sums.

Every change is tried alone and sized anew, so that what is offered does fit. It costs some dozen
sizings: ask for the one or few candidates that a person will read about, not for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import floor
from types import MappingProxyType

from multigpu import memory as m
from multigpu.groups import classes, pool
from multigpu.hardware import Host
from multigpu.plan import Candidate, ModelSpec, Strategy, Wish
from multigpu.runtimes import sharding
from multigpu.runtimes.vllm_memory import sized as vllm_sized
from multigpu.runtimes.vllm_release import MIN_MAX_NUM_SEQS, kv_bytes

# vLLM refuses to start with more of a card than is free; the rest is for what others take.
MOST_UTILIZATION = 0.97
SMALLEST_BATCH = 256
# A context below this serves nobody.
SMALLEST_CONTEXT = 512
MOST_CARDS = 8


@dataclass(frozen=True)
class Change:
    """One change. `key` is the wish's key or the flag, `value` what to set it to, `why` its price.

    Keys: gpu_memory_utilization, max_num_seqs, max_num_batched_tokens, kv_cache_dtype,
    enforce_eager, max_model_len, tensor_parallel_size, bits_per_weight.
    """

    key: str
    value: float | int | str
    why: str


Fits = Callable[[Wish], bool]


def changes(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> tuple[Change, ...]:
    """Changes that each make it fit, the one that costs the operator least first.

    Nothing for a candidate that fits, or whose runtime is not sized as vLLM is.
    """
    if candidate.runtime != "vllm" or not candidate.memory or _holds(candidate):
        return ()

    def fits(changed: Wish) -> bool:
        return _holds(vllm_sized(candidate, host, model, changed))

    return tuple(_changes(candidate, host, model, wish, fits))


def _holds(candidate: Candidate) -> bool:
    return all(card.fits for card in candidate.memory)


def _changes(
    candidate: Candidate, host: Host, model: ModelSpec, wish: Wish, fits: Fits
) -> Iterator[Change]:
    yield from _utilization(candidate, host, wish, fits)
    yield from _fewer(candidate, wish, fits)
    yield from _eager(wish, fits)
    yield from _kv_cache_dtype(model, wish, fits)
    yield from _context(candidate, wish)
    yield from _tensor_parallel(candidate, host, model, wish)
    yield from _bits(candidate, model)


def _utilization(candidate: Candidate, host: Host, wish: Wish, fits: Fits) -> Iterator[Change]:
    """Hundredths above what is planned, as far as every card is free."""
    free = min(
        (m.free_mib(gpu, wish) - m.FREE_MARGIN_MIB) / m.cuda_total_mib(gpu)
        for gpu in (host.gpu(index) for index in candidate.gpus)
    )
    now = round(100 * (candidate.gpu_memory_utilization or 0.0))
    most = min(round(100 * MOST_UTILIZATION), floor(100 * free))
    for percent in range(now + 1, most + 1):
        if fits(replace(wish, gpu_memory_utilization=percent / 100)):
            why = f"leaves {100 - percent} % of each card for everything else"
            yield Change("gpu_memory_utilization", percent / 100, why)
            return


def _fewer(candidate: Candidate, wish: Wish, fits: Fits) -> Iterator[Change]:
    """Fewer requests at a time, fewer tokens in one step."""
    seqs = (candidate.max_num_seqs or MIN_MAX_NUM_SEQS) // 2
    while seqs >= 1:
        if fits(_with_flag(wish, "--max-num-seqs", str(seqs))):
            yield Change("max_num_seqs", seqs, "further requests wait")
            break
        seqs //= 2
    batch = 2048
    while batch >= SMALLEST_BATCH:
        if fits(_with_flag(wish, "--max-num-batched-tokens", str(batch))):
            why = "a long prompt is read in more steps"
            yield Change("max_num_batched_tokens", batch, why)
            break
        batch //= 2


def _eager(wish: Wish, fits: Fits) -> Iterator[Change]:
    if "--enforce-eager" not in wish.flags and fits(_with_flag(wish, "--enforce-eager", None)):
        yield Change("enforce_eager", "on", "no CUDA graphs: slower decoding of few requests")


def _kv_cache_dtype(model: ModelSpec, wish: Wish, fits: Fits) -> Iterator[Change]:
    """Needs a card and an attention backend that have it; the rules of the runtime say so."""
    if kv_bytes(wish, model) > 1.0 and fits(replace(wish, kv_cache_dtype="fp8")):
        yield Change("kv_cache_dtype", "fp8", "half the cache; scores lose some precision")


def _context(candidate: Candidate, wish: Wish) -> Iterator[Change]:
    """The longest request that one engine's cache holds."""
    limit = candidate.context_limit or 0
    if SMALLEST_CONTEXT <= limit < (candidate.max_model_len or 0):
        yield Change("max_model_len", limit, "the longest request that fits")


def _tensor_parallel(
    candidate: Candidate, host: Host, model: ModelSpec, wish: Wish
) -> Iterator[Change]:
    """The next size that divides; cards of the host's own, else more cards like the first."""
    if candidate.pipeline_parallel_size > 1:
        return
    group = next(
        (g for g in classes(pool(host, wish.gpus)) if host.gpu(candidate.gpus[0]) in g), ()
    )
    for tp in range(candidate.tensor_parallel_size + 1, MOST_CARDS + 1):
        if not sharding.valid(model, tp):
            continue
        spare = tuple(gpu.index for gpu in group[:tp])
        cards = spare if len(spare) == tp else (candidate.gpus[0],) * tp
        wider = Candidate(
            candidate.runtime, Strategy.TENSOR_PARALLEL, cards, tensor_parallel_size=tp
        )
        if _holds(vllm_sized(wider, host, model, wish)):
            own = "cards of this host" if len(spare) == tp else "cards like this one are needed"
            yield Change("tensor_parallel_size", tp, f"{tp} {own}")
            return


def _bits(candidate: Candidate, model: ModelSpec) -> Iterator[Change]:
    """Bits per weight at which the fullest card would hold its share; a first approximation."""
    kept = 1.0
    for card in candidate.memory:
        missing = card.total_mib - card.capacity_mib
        if missing > 0 and card.weights_mib:
            kept = min(kept, 1 - missing / card.weights_mib)
    count = model.num_parameters
    if not count or not 0 < kept < 1:
        return
    now = model.weights_mib * m.MIB * 8 / count
    bits = floor(10 * now * kept) / 10
    why = f"the weights have {now:.1f} bits each now"
    yield Change("bits_per_weight", bits, why)


def _with_flag(wish: Wish, name: str, value: str | None) -> Wish:
    return replace(wish, flags=MappingProxyType({**wish.flags, name: value}))
