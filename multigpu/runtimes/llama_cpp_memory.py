"""What llama.cpp holds of each card: model, KV cache and compute buffers, and its unit counts.

llama.cpp counts the blocks and the output layer as units. Facts of 0.5.0-dev (0c1e57098).
"""

from __future__ import annotations

from dataclasses import replace

from multigpu import memory as m
from multigpu.errors import WishError
from multigpu.hardware import Gpu, Host
from multigpu.placement import partition
from multigpu.plan import Candidate, Memory, ModelSpec, Strategy, Wish
from multigpu.workload import workload

# llama.cpp: CUDA context and cuBLAS of one process on one card, outside of its own buffers.
CONTEXT_MIB = 512
UBATCH = 512
# `pipeline parallelism enabled (n_copies=4)`: inputs of a step are kept once per copy.
COPIES = 4
KV_PAD = 256

CACHE_TYPE_BYTES = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}


def kv_bytes(wish: Wish) -> float:
    """Bytes per cached element, the mean of `--cache-type-k` and `--cache-type-v` (f16: 2)."""
    usual = wish.kv_cache_dtype or "f16"
    k, v = (wish.flags.get(f"--cache-type-{x}") or usual for x in "kv")
    return (CACHE_TYPE_BYTES.get(k, 2.0) + CACHE_TYPE_BYTES.get(v, 2.0)) / 2


def _units(candidate: Candidate, model: ModelSpec, wish: Wish) -> list[float]:
    """Size of each block with its KV cache, then of the output layer."""
    blocks = [
        weights + _kv(model, (i, i + 1), candidate, wish)
        for i, weights in enumerate(model.layers_mib)
    ]
    return [*blocks, output_mib(model)]


def output_mib(model: ModelSpec) -> float:
    """The output layer; a tied model keeps a second copy of the embedding on the last card."""
    return model.output_mib + (model.embedding_mib if model.tie_word_embeddings else 0.0)


def layers(
    candidate: Candidate, host: Host, model: ModelSpec, wish: Wish
) -> tuple[int, ...] | None:
    """Unit counts that keep the worst share of a card's budget smallest."""
    n = len(candidate.gpus)
    budgets = [
        _capacity(host.gpu(index), wish) - CONTEXT_MIB - _compute(model, wish, n, i == n - 1)
        for i, index in enumerate(candidate.gpus)
    ]
    return partition(_units(candidate, model, wish), budgets)


def _capacity(gpu: Gpu, wish: Wish) -> float:
    return m.free_mib(gpu, wish) - m.FREE_MARGIN_MIB


def _kv(model: ModelSpec, blocks: tuple[int, int], candidate: Candidate, wish: Wish) -> float:
    """llama-server gives every slot its own cache of `context` tokens, padded to 256."""
    load = workload(model, wish)
    one = m.request_mib(
        model.layers[blocks[0] : blocks[1]],
        load.context,
        kv_bytes=kv_bytes(wish),
        in_flight=UBATCH,
        pad=KV_PAD,
    )
    return one * m.engine_concurrency(candidate, load)


def _compute(model: ModelSpec, wish: Wish, cards: int, last: bool) -> float:
    """Compute buffer of one card at --ubatch-size 512 with flash attention.

    The larger of a block's vectors and, on the last card, the logits; the attention mask once per
    copy of pipeline parallelism.
    """
    ubatch = _ubatch(wish)
    block = 6 * model.hidden_size + 3 * m.ffn_size(model)
    logits = model.vocab_size + model.hidden_size if last else 0
    copies = COPIES if cards > 1 else 1
    return ubatch * 4 * (max(block, logits) + workload(model, wish).context * copies) / m.MIB


def _ubatch(wish: Wish) -> int:
    """Tokens per physical batch. Raises WishError when the wished one is no number."""
    text = wish.flags.get("--ubatch-size") or str(UBATCH)
    if not text.isdecimal() or int(text) < 1:
        raise WishError(f"{wish.name}: flags: --ubatch-size {text}, needs a whole number above 0")
    return int(text)


def sized(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> Candidate:
    """The candidate with memory per card and the KV tokens that it is started with."""
    units = spans(candidate, model)
    if units is None:
        return candidate
    load = workload(model, wish)
    per_engine = len(candidate.gpus) // candidate.replicas
    memory = tuple(
        _memory(candidate, host.gpu(index), model, wish, span, per_engine)
        for index, span in zip(candidate.gpus, units, strict=True)
    )
    slots = m.engine_concurrency(candidate, load)
    return replace(
        candidate,
        memory=memory,
        kv_tokens=load.context * slots,
        kv_sequences=slots,
        max_model_len=load.context,
        max_num_seqs=slots,
    )


def spans(candidate: Candidate, model: ModelSpec) -> list[tuple[int, int]] | None:
    """The units [start, end) of every card, aligned with `gpus`; None when they do not add up."""
    n = model.num_hidden_layers + 1
    if candidate.strategy is not Strategy.LAYER_SPLIT:
        return [(0, n)] * len(candidate.gpus)
    layers = candidate.layers or ()
    if len(layers) != len(candidate.gpus) or sum(layers) != n or min(layers) < 1:
        return None
    ends = [sum(layers[: i + 1]) for i in range(len(layers))]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _memory(
    candidate: Candidate, gpu: Gpu, model: ModelSpec, wish: Wish, span: tuple[int, int], cards: int
) -> Memory:
    last = span[1] == model.num_hidden_layers + 1
    held = sum(model.layers_mib[span[0] : span[1]]) + (output_mib(model) if last else 0.0)
    return m.memory(
        held,
        _kv(model, span, candidate, wish),
        _compute(model, wish, cards, last),
        CONTEXT_MIB,
        _capacity(gpu, wish),
        other=m.other_mib(gpu, wish),
    )
