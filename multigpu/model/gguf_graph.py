"""The parts of llama.cpp's graph that decide its compute buffer, from a GGUF header.

A compute buffer is as large as the tensors that live at one time, which in all architectures is
the moment between the parts of a gated feed-forward network (`build_ffn`, `build_moe_ffn`), the
rows of attention scores without flash attention (`build_attn_mha`), or a scan over the state
(`build_mamba_layer`); src/llama-graph.cpp and src/models/*.cpp of 0c1e57098. How near the sums come
to `llama-server`'s own breakdown says benchmarks/llama_cpp_memory.py.
"""

from __future__ import annotations

from multigpu.model.gguf_cache import Rows, rows
from multigpu.model.gguf_header import MIB, GgufHeader
from multigpu.model_spec import GgufBlock, GgufFacts

# Scan of a Mamba block: projection (two), convolution, scan and its output, as wide as the inner
# size, some twice while they are made contiguous (`build_mamba_layer`, src/models/mamba-base.cpp).
SCAN_COPIES = 7
# Time mixing of RWKV: five shifted mixes, receptance, key, value, gate and decay, each twice.
RWKV_COPIES = 17
# Rows that leave the experts and their weighted copies.
ROUTED_COPIES = 2
# Architectures whose `ffn_up` holds gate and up together (`LLM_FFN_SWIGLU` of build_ffn).
FUSED_GATE = {"chatglm", "codeshell", "glm4", "phi3", "plamo2", "plamo3"}


def facts(h: GgufHeader) -> GgufFacts:
    """One block per block of the file; those that are alike are the same object."""
    known: dict[GgufBlock, GgufBlock] = {}
    kept = rows(h)
    found = [_block(h, i, row) for i, row in enumerate(kept)]
    embedding = h.other.get("token_embd.weight", 0) / MIB
    shared = any(h.has_any(i, "attn_k.") and not row.k for i, row in enumerate(kept[: h.trunk]))
    blocks = tuple(known.setdefault(block, block) for block in found)
    return GgufFacts(blocks, embedding, shared, _head_sizes(h, kept))


def _head_sizes(h: GgufHeader, kept: tuple[Rows, ...]) -> tuple[tuple[int, int, int], ...]:
    """Key and value elements and query heads per KV head, as the kernels of attention see them."""
    found = set()
    for heads, kv_heads, row in zip(h.heads(), h.kv_heads(), kept, strict=True):
        if row.k and not row.v:
            sizes = h.optional("attention.key_length"), h.optional("attention.value_length")
            found.add((sizes[0] or row.k, sizes[1] or h.integer("attention.kv_lora_rank"), heads))
        elif row.k:
            found.add((row.k // kv_heads, row.v // kv_heads, heads // kv_heads))
    return tuple(sorted(found))


def _block(h: GgufHeader, index: int, row: Rows) -> GgufBlock:
    width = h.integer("embedding_length")
    heads = h.heads()[index]
    attends = heads > 0 and (row.k > 0 or h.has_any(index, "attn_q"))
    queries = heads * h.head_dim() if attends else 0
    attention, mixer = 2 * width + 2 * queries, width + max(width, queries)
    if row.k and not row.v:
        attention = mixer = 2 * width + heads * (2 * h.integer("attention.kv_lora_rank") + row.k)
        queries = 0
    elif _recurrent(h, index):
        mixer = _scan(h, width)
    border, passing = _borders(h, index, width)
    return GgufBlock(
        k=row.k,
        v=row.v,
        window=row.window,
        state=row.state,
        heads=heads if row.k else 0,
        attention=attention,
        peak=max(mixer, _feed_forward(h, index, width, queries)) + _per_layer(h, width),
        border=border,
        passing=passing,
    )


def _per_layer(h: GgufHeader, width: int) -> int:
    """Embeddings that every block gets of its own (gemma3n, small gemma4), all blocks' at once."""
    size = h.optional("embedding_length_per_layer_input") or 0
    return size * h.block_count + (4 * width if size and h.architecture == "gemma3n" else 0)


def _recurrent(h: GgufHeader, index: int) -> bool:
    """A block that is nothing but a recurrence."""
    return h.has_any(index, "time_mix") or (
        h.has_any(index, "ssm_") and not h.has_any(index, "ffn_") and not h.has_any(index, "attn_q")
    )


def _scan(h: GgufHeader, width: int) -> int:
    inner = h.optional("ssm.inner_size")
    if inner is None:
        return RWKV_COPIES * width
    groups, size = h.optional("ssm.group_count") or 0, h.optional("ssm.state_size") or 0
    return SCAN_COPIES * inner + 3 * groups * size


def _borders(h: GgufHeader, index: int, width: int) -> tuple[int, int]:
    """What crosses to the card of this block: the stream, and the sum that is not yet made.

    Behind a block that is nothing but a recurrence its projections cross as well.
    """
    if index and _recurrent(h, index - 1):
        inner = h.optional("ssm.inner_size")
        if inner is None:
            return 3 * width, 4 * width
        groups, size = h.optional("ssm.group_count") or 0, h.optional("ssm.state_size") or 0
        border = width + 2 * inner + 2 * groups * size
        return border, border + (3 * width if _recurrent(h, index) else 0)
    normed_after = h.has(index, "post_attention_norm.weight")
    before = h.has_any(index, "attn_norm") or not normed_after
    both = 2 * width if before else width
    return both, both


def _feed_forward(h: GgufHeader, index: int, width: int, queries: int) -> int:
    """Gate, up and their product beside the stream and its norm; rows of every expert in use."""
    beside = 2 * width + max(width, queries)
    found = beside
    dense = h.per_layer("feed_forward_length", default=0)[index]
    if h.has_any(index, "ffn_up."):
        gated = h.has_any(index, "ffn_gate.") or h.architecture in FUSED_GATE
        found = 3 * dense + beside if gated else dense + 3 * width
    if h.has_any(index, "ffn_down_exps"):
        used = h.per_layer("expert_used_count", default=0)[index]
        size = h.per_layer("expert_feed_forward_length", default=0)[index] or dense
        routed = max(3 * used * size, ROUTED_COPIES * used * width)
        found = max(found, routed + beside)
    return found
