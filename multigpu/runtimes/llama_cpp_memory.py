"""What llama-server holds of each card: model, KV cache and state, compute buffer, unit counts.

Compared term by term with the breakdown that llama-server 0.5.0-dev (0c1e57098) prints of a trial
load over two and three devices; a term is right within 3 % or 200 MiB. With CUDA devices (an H200
standing for several, driver 580.159.04, ours): 99.2 % of 10,194 terms over 63 architectures, 99.6 %
without gemma3n, whose split is refused. What is left is too little by up to 0.5 GiB: large steps
(`--ubatch-size 2048`) without flash attention in five mixtures and hybrids, and beside a quantized
cache with as many KV as query heads (Command-R, dots.llm1, DeepSeek-MoE), where buffers have holes.
With ggml-rpc-server processes on a CPU (benchmarks/llama_cpp_memory.py, which anybody can run):
99.5 % of 10,200. What CUDA itself takes is outside of that breakdown and is `context_mib` here.
"""

from __future__ import annotations

from dataclasses import replace

from multigpu import memory as m
from multigpu.backend import Backend, wished
from multigpu.errors import WishError
from multigpu.hardware import Host
from multigpu.memo import changed, memo
from multigpu.placement import extremes_of, split_at
from multigpu.plan import Candidate, ModelSpec, Strategy, Wish, Workload
from multigpu.runtimes.llama_cpp_cards import Card, TensorCard, capacity_mib, context_mib
from multigpu.runtimes.llama_cpp_offload import fits, offloaded, on_cards, streamed_mib
from multigpu.runtimes.llama_cpp_profile import COPIES, Profile, Span, profile
from multigpu.runtimes.llama_cpp_settings import Settings, Slots, padded
from multigpu.runtimes.llama_cpp_shares import shares
from multigpu.workload import workload

# llama-server's own number of slots (`--parallel -1`, tools/server/server.cpp).
SLOTS = 4


def settings(wish: Wish) -> Settings:
    """Flags that decide memory. Raises WishError when `--ubatch-size` is no number."""
    known = memo(wish)
    if "llama.cpp" not in known:
        usual = wish.kv_cache_dtype or "f16"
        k, v = (wish.flags.get(f"--cache-type-{x}") or usual for x in "kv")
        known["llama.cpp"] = Settings(
            ubatch=_ubatch(wish),
            flash_attn={"on": True, "off": False}.get(wish.flags.get("--flash-attn") or "auto"),
            k_type=k,
            v_type=v,
            swa_full="--swa-full" in wish.flags,
            device="vulkan" if wished(wish) is Backend.VULKAN else "cuda",
        )
    found: Settings = known["llama.cpp"]
    return found


def _ubatch(wish: Wish) -> int:
    """Tokens per physical batch; a logical batch that is smaller limits it."""
    sizes = []
    for flag, usual in (("--ubatch-size", "512"), ("--batch-size", "2048")):
        text = wish.flags.get(flag) or usual
        if not text.isdecimal() or int(text) < 1:
            raise WishError(f"{wish.name}: flags: {flag} {text}, needs a whole number above 0")
        sizes.append(int(text))
    return min(sizes)


def slots(candidate: Candidate, wish: Wish, load: Workload) -> int:
    """Requests that one engine runs at a time: as wished, else what llama-server would take."""
    share = m.engine_concurrency(candidate, load)
    return share if wish.concurrency is not None else max(SLOTS, share)


def wanted(candidate: Candidate, wish: Wish, load: Workload) -> Slots:
    """Every request of the workload at full length; slots beyond them share the same cache."""
    count, share = slots(candidate, wish, load), m.engine_concurrency(candidate, load)
    return Slots(padded(load.context) * share, count, unified=count > share)


def layers(
    candidate: Candidate, host: Host, model: ModelSpec, wish: Wish
) -> tuple[int, ...] | None:
    """Unit counts that keep the worst share of a card's budget smallest."""
    p, load = _profile(candidate, model, wish), workload(model, wish)
    n, start = len(candidate.gpus), p.n_units - (candidate.gpu_layers or p.n_units)
    if p.n_units - start < n:
        return None
    asked = wanted(candidate, wish, load)
    least = Slots(padded(load.context), asked.count, asked.count > 1)
    cards = [host.gpu(index) for index in candidate.gpus]
    streamed = _streamed(candidate, model, wish)
    for share in (asked, least):
        spent = p.part((start, p.n_units), n, _copies(candidate)).compute(share)
        budgets = [capacity_mib(gpu, wish) - context_mib(gpu) - spent for gpu in cards]
        budgets[0] -= streamed
        sums, extremes = p.sums(share)
        if start:
            sums = [value - sums[start] for value in sums[start:]]
            extremes = extremes_of(sums)
        if min(budgets) > 0 and sums[-1] <= sum(budgets):
            break
    return split_at(sums, budgets, 0.0, 0.0, extremes) if min(budgets) > 0 else None


def _profile(candidate: Candidate, model: ModelSpec, wish: Wish) -> Profile:
    return profile(on_cards(model, candidate.cpu_moe_layers), settings(wish))


def _streamed(candidate: Candidate, model: ModelSpec, wish: Wish) -> float:
    """Weights of the host's memory that a long prompt brings to the first card, in MiB."""
    return 0.0 if "--no-op-offload" in wish.flags else streamed_mib(candidate, model)


def _copies(candidate: Candidate) -> int:
    """Copies of a step's inputs: pipeline parallelism needs everything on the cards."""
    partly = candidate.cpu_moe_layers or candidate.gpu_layers is not None
    return 1 if partly or candidate.strategy is Strategy.TENSOR_SPLIT else COPIES


def spans(candidate: Candidate, model: ModelSpec) -> list[Span] | None:
    """The units [start, end) of every card, aligned with `gpus`; None when they do not add up."""
    n = model.num_hidden_layers + 1
    start = n - (candidate.gpu_layers or n)
    if candidate.strategy is not Strategy.LAYER_SPLIT:
        return [(start, n)] * len(candidate.gpus)
    counts = candidate.layers or ()
    if len(counts) != len(candidate.gpus) or sum(counts) != n - start or min(counts) < 1:
        return None
    found = []
    for count in counts:
        found.append((start, start + count))
        start += count
    return found


def sized(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> Candidate:
    """The candidate with memory per card and the context it is started with.

    Where it does not fit and the wish allows some weights in the host's memory, with as few of them
    there as needed.
    """
    found = _sized(candidate, host, model, wish)
    if wish.cpu_offload_gib is None or fits(found) or candidate.strategy is Strategy.TENSOR_SPLIT:
        return found
    budget = wish.cpu_offload_gib * 1024

    def tried(way: Candidate) -> Candidate:
        if way.strategy is Strategy.LAYER_SPLIT and not wish.layers:
            way = replace(way, layers=layers(way, host, model, wish))
        return _sized(way, host, model, wish)

    return offloaded(candidate, model, budget, tried)


def _sized(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> Candidate:
    """Hard is one request of full context. Where the whole workload does not fit beside it, slots
    share what does (`--kv-unified`), and with recurrent state there are fewer of them.
    """
    found = spans(candidate, model)
    if found is None:
        return candidate
    p, load = _profile(candidate, model, wish), workload(model, wish)
    n, copies = len(candidate.gpus) // candidate.replicas, _copies(candidate)
    parts = [p.part(span, n, copies) for span in found]
    cards: list[Card] = []
    if candidate.strategy is Strategy.TENSOR_SPLIT:
        ratios = candidate.layers or (1,) * n
        for part, index, piece in zip(parts, candidate.gpus, shares(model, ratios), strict=True):
            cards.append(TensorCard(part, host.gpu(index), wish, piece))
    else:
        streamed = _streamed(candidate, model, wish)
        # Like cards with like parts are counted once.
        alike: dict[object, Card] = {}
        for i, (part, index) in enumerate(zip(parts, candidate.gpus, strict=True)):
            gpu, first = host.gpu(index), i % n == 0
            key = (part, m.room(gpu, wish), context_mib(gpu), first)
            if key not in alike:
                alike[key] = Card(part, gpu, wish, streamed if first else 0.0)
            cards.append(alike[key])
    share, distinct = wanted(candidate, wish, load), list(dict.fromkeys(cards))
    if not all([card.fits(share) for card in distinct]):
        share = _shared(distinct, padded(load.context), share)
    limit = min([card.longest(share.count) for card in distinct])
    rows = {card: card.memory(share) for card in distinct}
    return changed(
        candidate,
        memory=tuple([rows[card] for card in cards]),
        kv_tokens=share.tokens,
        kv_sequences=max(1, share.tokens // padded(load.context)),
        max_model_len=load.context,
        context_limit=max(0, min(limit, model.max_position_embeddings or limit)),
        max_num_seqs=share.count,
    )


def _shared(cards: list[Card], context: int, asked: Slots) -> Slots:
    """As many tokens as fit in one cache for all slots, at least one request; else fewer slots."""
    count = asked.count
    while True:
        longest = min(card.longest(count) for card in cards)
        if longest >= context or count == 1:
            tokens = min(asked.tokens, max(context, longest))
            return Slots(tokens, count, unified=count > 1)
        count = max(1, count // 2)


__all__ = ["layers", "settings", "sized", "slots", "spans", "wanted"]
