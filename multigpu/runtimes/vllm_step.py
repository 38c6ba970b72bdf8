"""How an engine of vLLM is started, and what a step of it holds besides weights and cache.

The profiling step runs `max_num_batched_tokens` tokens and samples for `max_num_seqs` requests
(`profile_run` in `v1/worker/gpu/model_runner.py`, 0.33.0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from multigpu.hardware import Vendor
from multigpu.memo import memo
from multigpu.memory import MIB
from multigpu.plan import Candidate, ModelSpec, Wish
from multigpu.runtimes import vllm_release
from multigpu.runtimes.vllm_cards import Card
from multigpu.runtimes.vllm_release import (
    MAX_NUM_SEQS,
    RENDERED,
    SMALL_BATCH,
    Release,
    batched_tokens,
    kv_bytes,
    max_num_seqs,
)

# Vectors per token at the peak of a forward step: residual, normed, query, output and their copies;
# gate, up and their product. With them Mistral-Small-24B peaks at 2.12 GiB with 8192 tokens, as
# measured on H100 (0.11; 1.68 on H200, 0.33), and 30B-A3B at 0.20 with 2048 (0.23 on A100, 0.26).
HIDDEN_VECTORS, FFN_VECTORS = 8, 3
# The profiling step runs the vision encoder on images of the largest size and keeps its output:
# gemma-3-12b took 0.3 to 0.5 GiB more than models without one (four boots of R9700).
ENCODER_MIB = 350.0
# Gated delta nets: states of chunks of 64 tokens per head, and two tensors of half their size
# (96 MiB at 8192 tokens and TP=2 for 24 heads of 128 x 128: club-3090 #838).
GDN_CHUNK = 64
BATCH_FLAG = "--max-num-batched-tokens"


@dataclass(frozen=True, eq=False)
class Engine:
    """What one engine is started with, as far as memory depends on it.

    `told` says that vLLM would take another batch by itself, so that ours is written.
    """

    tp: int
    world: int
    max_num_seqs: int
    batched: int
    kv_bytes: float
    in_flight: int
    eager: bool
    expert_parallel: bool
    offload_mib: float
    release: Release
    told: bool = False


def engine(
    candidate: Candidate,
    cards: Sequence[Card],
    model: ModelSpec,
    wish: Wish,
    release: Release = RENDERED,
) -> Engine:
    """The settings of every engine of a candidate over `cards`.

    vLLM takes its defaults from an engine's first card. Replicas are started alike: where their
    first cards differ, with what vLLM takes for the smaller one. Kept with the wish.
    """
    c = candidate
    world = len(cards) // c.replicas
    first, told = cards[0], False
    if c.replicas > 1:
        firsts = cards[::world]
        first = min(firsts, key=lambda card: card.batch)
        told = first.batch != max(card.batch for card in firsts)
    sizes = (c.tensor_parallel_size, c.pipeline_parallel_size, c.replicas, world)
    kind = (release.version, release.sampler_bytes)
    settled = (first.batch, told, c.expert_parallel, model.kv_cache_dtype, kind)
    known = memo(wish)
    key = ("vllm-engine", sizes, settled)
    found: Engine | None = known.get(key)
    if found is None:
        found = known[key] = _engine(c, first, told, model, wish, release)
    return found


def _engine(
    candidate: Candidate, first: Card, told: bool, model: ModelSpec, wish: Wish, release: Release
) -> Engine:
    batched = batched_tokens(first.gpu, wish.flags)
    pp = candidate.pipeline_parallel_size
    steps = (2 if pp == 1 else pp + 1) if release.windows_in_flight else 1
    return Engine(
        tp=candidate.tensor_parallel_size,
        world=len(candidate.gpus) // candidate.replicas,
        max_num_seqs=max_num_seqs(first.gpu, wish, candidate.replicas),
        batched=batched,
        kv_bytes=kv_bytes(wish, model),
        in_flight=steps * batched,
        eager="--enforce-eager" in wish.flags,
        expert_parallel=candidate.expert_parallel,
        offload_mib=0.0,
        release=release,
        told=told and BATCH_FLAG not in wish.flags,
    )


def settings(e: Engine, wish: Wish) -> Sequence[Engine]:
    """An engine and what needs less of a card, in the order in which they are tried.

    Where vLLM's defaults for a large card leave no room for one request, those of a small card are
    taken: nothing that fits a smaller card is refused on a larger one. Weights go to the host's
    memory where that is wished and nothing else helps.
    """
    known = memo(e)
    if "less" not in known:
        less = small(e, wish)
        tried = [e] if less is e else [e, less]
        if wish.cpu_offload_gib:
            mib = wish.cpu_offload_gib * 1024
            tried += [replace(one, offload_mib=mib) for one in tried]
        # Not `e` itself: what keeps itself is freed by the garbage collector alone.
        known["less"] = tried[1:]
    return [e, *known["less"]]


def activations_mib(model: ModelSpec, e: Engine, *, first: bool = True, last: bool = True) -> float:
    """Peak of the profiling step: the larger of a full forward step and sampling.

    The last pipeline stage samples, the first one has the embedding. What sampling and experts
    keep all the time is added.
    """
    peak = e.batched * _forward_elements(model, e) * 2 + _state_scratch(model, e)
    if first and e.release.embedding_copied and not e.eager:
        peak = max(peak, 2 * model.hidden_size * (model.vocab_size / e.tp + e.batched))
    logits = e.max_num_seqs * model.vocab_size if last else 0
    if logits:
        hidden = 2 * model.hidden_size * e.batched
        peak = max(peak, logits * e.release.sampler_bytes + hidden)
    kept = logits * e.release.sampler_state_bytes + _workspace(model, e)
    return (peak + kept) / MIB + (ENCODER_MIB if model.vision_mib else 0.0)


def _forward_elements(model: ModelSpec, e: Engine) -> float:
    """Elements per token of one forward step on one rank."""
    hidden = HIDDEN_VECTORS * model.hidden_size
    dense = FFN_VECTORS * (model.intermediate_size or 4 * model.hidden_size) / e.tp
    if not model.num_experts or not model.moe_intermediate_size:
        return hidden + dense
    if e.release.workspaces_kept:
        return float(hidden)
    routed = model.num_experts_per_tok or 8
    return hidden + routed * (FFN_VECTORS * model.moe_intermediate_size / e.tp + model.hidden_size)


def _workspace(model: ModelSpec, e: Engine) -> float:
    """Bytes of the two workspaces of experts in Triton, kept from the profiling step on.

    Gate and up of every routed token, or its output; then their product, or its input
    (`TritonExperts.workspace_shapes`): 0.50 and 0.45 GiB, 0.52 and 0.49 in boots of an H200.
    """
    if not e.release.workspaces_kept or not model.num_experts or not model.moe_intermediate_size:
        return 0.0
    width = model.moe_intermediate_size / (1 if e.expert_parallel else e.tp)
    hidden = model.hidden_size
    elements = max(2 * width, hidden) + max(width, hidden)
    return 2 * e.batched * (model.num_experts_per_tok or 8) * elements


def _state_scratch(model: ModelSpec, e: Engine) -> float:
    """Bytes of a prefill over a gated delta net; 0 for models without recurrent states."""
    kept = memo(model)
    largest = kept.get("vllm-largest-state")
    if largest is None:
        largest = max((x.elements for x in model.layers if x.kind == "state"), default=0)
        kept["vllm-largest-state"] = largest
    return 2 * (e.batched / GDN_CHUNK) * largest / e.tp * 2


def graphs_mib(model: ModelSpec, e: Engine) -> float:
    """What captured CUDA graphs take; before 0.21 that is outside of the fraction."""
    if e.eager:
        return 0.0
    latent = model.layers[-1].kind == "mla"
    block = vllm_release.GRAPH_LATENT_BLOCK_MIB if latent else vllm_release.GRAPH_BLOCK_MIB
    graph_mib = vllm_release.GRAPH_MIB + model.num_hidden_layers * block
    return graph_mib * vllm_release.captured_graphs(e.max_num_seqs)


def overhead_mib(vendor: Vendor, e: Engine) -> float:
    """Context, libraries and communicators of one rank."""
    spans = vllm_release.NCCL_MIB[vendor] if e.world > 1 else 0.0
    return vllm_release.CONTEXT_MIB[vendor] + spans


def small(e: Engine, wish: Wish) -> Engine:
    """The same engine with the defaults of a small card; `e` itself where nothing is smaller."""
    if BATCH_FLAG in wish.flags or e.batched <= SMALL_BATCH:
        return e
    free = wish.concurrency is None and "--max-num-seqs" not in wish.flags
    return replace(
        e,
        batched=SMALL_BATCH,
        in_flight=e.in_flight // e.batched * SMALL_BATCH,
        max_num_seqs=MAX_NUM_SEQS if free else e.max_num_seqs,
        told=True,
    )
