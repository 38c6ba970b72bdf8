"""What SGLang 0.5.23 holds of each card, by its own rule.

A fraction of the memory is static: weights and the cache. What it leaves free for activations and
CUDA graphs follows from the smallest card that nvidia-smi lists, used or not
(`arg_groups/memory_hook.py`); the cache is what the weights leave of that fraction of the memory
that was free before loading, cut to the rank with the least (`mem_cache/kv_cache_configurator.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

from multigpu import memory as m
from multigpu.hardware import Gpu, Host
from multigpu.memo import changed, memo
from multigpu.plan import Candidate, LayerCache, Memory, ModelSpec, Wish
from multigpu.runtimes.vllm_memory import stages
from multigpu.runtimes.vllm_release import CONTEXT_MIB, MIN_MAX_NUM_SEQS, NCCL_MIB
from multigpu.runtimes.vllm_weights import weights_mib
from multigpu.workload import workload

GIB = 1024
# Cards below a size take chunks of that many prompt tokens, and decode graphs up to that many
# requests (below TP=4, from TP=4 on): (GiB, chunk, graphs, graphs of many ranks).
TIERS = (
    (20, 2048, 8, 8),
    (35, 4096, 48, 160),
    (60, 4096, 32, 160),
    (160, 8192, 256, 512),
    (10**6, 16384, 512, 512),
)
RESERVED_MIB, PER_TOKEN_MIB, PER_RANK_MIB, PER_GRAPH_MIB = 512, 1.5, 1024 / 8, 2
# Graphs of the prefill, one size of tokens each; MLA keeps more whatever their number.
PREFILL_GRAPH_MIB, MLA_PREFILL_MIB = 8, 1536
LARGE_GIB, LARGE_RESERVED_MIB = 60, 10 * GIB
# A model with a vision tower gets 0.95 of the fraction (less for a tower larger than ViT-L).
VISION_FACTOR = 0.95
# Sliding layers keep 0.8 tokens for one of the full layers (--swa-full-tokens-ratio); recurrent
# states get 0.9 of what the tokens get (--mamba-full-memory-ratio).
SLIDING_RATIO, STATE_RATIO = 0.8, 0.9
KV_BYTES = {"fp8": 1.0, "mxfp8": 1.03, "nvfp4": 0.5625, "fp4": 0.53}


@dataclass(frozen=True)
class Reserved:
    """What SGLang leaves free beside weights and cache, in MiB, and the sizes it follows from."""

    chunked_prefill_size: int
    cuda_graph_max_bs: int
    activations_mib: float
    graphs_mib: float

    @property
    def total_mib(self) -> float:
        """Both together."""
        return self.activations_mib + self.graphs_mib


def reserved(smallest_mib: float, world: int, tp: int, wish: Wish, *, mla: bool) -> Reserved:
    """By the smallest card of the host; `world` ranks of one engine, `tp` of them in a team."""
    _, chunk, few, many = next(tier for tier in TIERS if smallest_mib < tier[0] * GIB)
    given = wish.flags.get("--chunked-prefill-size")
    if given is not None and given.isdigit():
        chunk = int(given)
    graphs_bs = few if tp < 4 else many
    if wish.concurrency is not None:
        graphs_bs = min(graphs_bs, max(MIN_MAX_NUM_SEQS, wish.concurrency))
    graphs = graphs_bs * PER_GRAPH_MIB
    graphs += MLA_PREFILL_MIB if mla else PREFILL_GRAPH_MIB * prefill_graphs(chunk)
    activations = RESERVED_MIB + PER_TOKEN_MIB * max(chunk, 2048) + PER_RANK_MIB * world
    if smallest_mib > LARGE_GIB * GIB:
        activations = max(activations, LARGE_RESERVED_MIB - graphs)
    return Reserved(chunk, graphs_bs, activations, graphs)


def prefill_graphs(largest: int) -> int:
    """Prefill graphs up to that many tokens (`generate_prefill_cuda_graph_batch_sizes`)."""
    steps = ((4, 32, 4), (48, 256, 16), (288, 512, 32), (576, 1024, 64), (1280, 4096, 256))
    sizes = sum(len(range(start, min(end, largest) + 1, by)) for start, end, by in steps)
    return sizes + len(range(4608, largest + 1, 512))


def fraction(host: Host, candidate: Candidate, model: ModelSpec, wish: Wish) -> float:
    """`--mem-fraction-static`: the pin, else SGLang's own rule, over all cards of the host."""
    if wish.gpu_memory_utilization is not None:
        return wish.gpu_memory_utilization
    smallest = min(float(gpu.memory_mib or 0) for gpu in host.gpus)
    held = _reserved(candidate, model, wish, smallest)
    found = round((smallest - held.total_mib) / smallest, 3)
    return max(0.05, found * (VISION_FACTOR if model.vision_mib else 1.0))


def _reserved(candidate: Candidate, model: ModelSpec, wish: Wish, smallest: float) -> Reserved:
    world = len(candidate.gpus) // candidate.replicas
    mla = any(layer.kind == "mla" for layer in model.layers)
    return reserved(smallest, world, candidate.tensor_parallel_size, wish, mla=mla)


def kv_bytes(wish: Wish, model: ModelSpec) -> float:
    """Bytes per cached element under `--kv-cache-dtype`; auto is what the checkpoint asks for."""
    dtype = wish.kv_cache_dtype or wish.flags.get("--kv-cache-dtype") or "auto"
    if dtype == "auto":
        dtype = model.kv_cache_dtype or "auto"
    return next((size for start, size in KV_BYTES.items() if dtype.startswith(start)), 2.0)


@dataclass(frozen=True)
class PerToken:
    """What one rank's cache takes: bytes per token in full and sliding layers, and states."""

    full: float
    sliding: float
    states: bool

    def tokens(self, pool_mib: float) -> int:
        """Tokens that a pool holds, those of the full layers (without any: of the sliding)."""
        room = pool_mib / (1 + STATE_RATIO) if self.states else pool_mib
        one = self.full + SLIDING_RATIO * self.sliding if self.full else self.sliding
        return max(0, floor(room * m.MIB / one)) if one else 1 << 40

    def mib(self, tokens: int) -> float:
        """The pool that holds so many tokens."""
        one = self.full + SLIDING_RATIO * self.sliding if self.full else self.sliding
        return tokens * one / m.MIB * (1 + STATE_RATIO if self.states else 1.0)


def per_token(model: ModelSpec, stage: tuple[int, int], tp: int, width: float) -> PerToken:
    """Summed once per model, stage and width."""
    kept = memo(model)
    key = ("sglang-per-token", stage, tp, width)
    if key not in kept:
        layers = model.layers[stage[0] : stage[1]]
        kept[key] = PerToken(
            full=sum(_bytes(x, tp, width) for x in layers if x.kind in ("full", "mla")),
            sliding=sum(_bytes(x, tp, width) for x in layers if x.kind == "sliding"),
            states=any(x.kind == "state" or x.sequence_bytes for x in layers),
        )
    return kept[key]  # type: ignore[no-any-return]


def _bytes(layer: LayerCache, tp: int, width: float) -> float:
    size = layer.element_bytes or width
    if layer.kind == "mla":
        return layer.elements * size
    return 2 * max(1, ceil(layer.num_key_value_heads / tp)) * layer.head_dim * size


def sized(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> Candidate:
    """The candidate with memory per card, KV tokens of one engine and mem-fraction-static."""
    spans = stages(candidate, model)
    if spans is None:
        return candidate
    gpus = [host.gpu(index) for index in candidate.gpus]
    static = fraction(host, candidate, model, wish)
    smallest = min(float(gpu.memory_mib or 0) for gpu in host.gpus)
    graphs = _reserved(candidate, model, wish, smallest).graphs_mib
    # Every rank takes the least that any of its engine has free.
    free = min(_before_loading(gpu, candidate, wish) for gpu in gpus)
    tp = candidate.tensor_parallel_size
    width = kv_bytes(wish, model)
    shapes = [per_token(model, span, tp, width) for span in spans]
    held = [
        weights_mib(model, span, tp, gpu, expert_parallel=candidate.expert_parallel)
        for gpu, span in zip(gpus, spans, strict=True)
    ]
    tokens = min(s.tokens(free * static - w) for s, w in zip(shapes, held, strict=True))
    context = workload(model, wish).context
    rows = _rows(gpus, held, shapes, max(tokens, context), free, static, graphs, wish)
    if tokens >= context:
        rows = [changed(row, kv_cache_mib=min(row.kv_cache_mib, _room(row))) for row in rows]
    return changed(
        candidate,
        memory=tuple(rows),
        kv_tokens=tokens,
        kv_sequences=tokens // context,
        max_model_len=context,
        context_limit=min(tokens, model.max_position_embeddings or tokens),
        max_num_seqs=_running(candidate, wish),
        gpu_memory_utilization=static,
    )


def _before_loading(gpu: Gpu, candidate: Candidate, wish: Wish) -> float:
    """Free memory once contexts and communicators stand."""
    spans = len(candidate.gpus) > candidate.replicas
    taken = CONTEXT_MIB[gpu.vendor] + (NCCL_MIB[gpu.vendor] if spans else 0.0)
    return max(1.0, m.free_mib(gpu, wish) - taken)


def _running(candidate: Candidate, wish: Wish) -> int | None:
    """`--max-running-requests`: an engine's share of what is wished, else SGLang's own number."""
    if wish.concurrency is None:
        return None
    return max(MIN_MAX_NUM_SEQS, -(-wish.concurrency // candidate.replicas))


def _rows(
    gpus: Sequence[Gpu],
    held: Sequence[float],
    shapes: Sequence[PerToken],
    tokens: int,
    free: float,
    static: float,
    graphs: float,
    wish: Wish,
) -> list[Memory]:
    """Capacity is what is free of a card; the part that is not static is activations and graphs.

    The cache is that of `tokens`, rounded up: where they are more than there is room for, the card
    does not fit.
    """
    rows = []
    for gpu, weights, shape in zip(gpus, held, shapes, strict=True):
        slack = free * (1 - static)
        capacity = m.free_mib(gpu, wish)
        row = m.memory(
            weights=weights,
            kv=0.0,
            activations=max(0.0, slack - graphs),
            overhead=capacity - free,
            capacity=capacity,
            graphs=min(graphs, slack),
            other=m.other_mib(gpu, wish),
        )
        rows.append(changed(row, kv_cache_mib=float(ceil(shape.mib(tokens)))))
    return rows


def _room(row: Memory) -> float:
    """What is left for the cache: it was cut to it, so it lacks nothing but rounding."""
    return max(0.0, row.capacity_mib - (row.total_mib - row.kv_cache_mib))
