"""DeepSeek V4: latent attention over a window and over history compressed by 4 or 128.

Per layer vLLM 0.33 (`models/deepseek_v4/attention.py`, `compressor.py`) caches: 584 bytes per
compressed token (448 fp8 of the part without position, 128 of rotary in bfloat16, 8 of scales), the
indexer's 132 bytes per compressed token where the ratio is 4, 584 bytes for each token of the
window, and float32 sums of the compressor for the tokens that are not yet compressed. Pages of
these are aligned to 576 bytes, which is not counted here.
"""

from __future__ import annotations

from math import ceil

from multigpu.errors import ModelError
from multigpu.model.architecture.tensors import Block, Share, Tensor, linear, plain
from multigpu.model.config_json import ConfigJson
from multigpu.plan import LayerCache

RATIOS = {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128}
SPARSE, HEAVY = 4, 128
ROPE_BYTES, SCALE_BYTES, SUM_BYTES = 2, 8, 4


def ratio(c: ConfigJson, layer: int) -> int:
    """Tokens per cached entry of a layer: 4, 128, or 0 where only the window is kept."""
    listed = c.get("compress_ratios")
    if isinstance(listed, list) and layer < len(listed):
        found = listed[layer]
    else:
        names = c.get("layer_types")
        named = names[layer] if isinstance(names, list) and layer < len(names) else None
        found = RATIOS.get(named, 0) if isinstance(named, str) else 0
    if type(found) is not int or found not in (0, 1, SPARSE, HEAVY):
        raise ModelError(f"config.json: compress_ratios has {found!r}, only 0, 4 and 128 are known")
    return found if found > 1 else 0


def block(c: ConfigJson, layer: int) -> Block:
    """Cache and projections of one attention layer."""
    return Block(cache(c, layer), _tensors(c, ratio(c, layer)))


def cache(c: ConfigJson, layer: int) -> LayerCache:
    """Bytes per token, and bytes per sequence for the window and the compressor."""
    width, rope, by = c.positive("head_dim"), c.positive("qk_rope_head_dim"), ratio(c, layer)
    entry = max(width - rope, 0) + rope * ROPE_BYTES + SCALE_BYTES
    kept = c.positive("sliding_window") * entry
    if not by:
        return LayerCache("mla", element_bytes=1, sequence_bytes=kept)
    overlap = 2 if by == SPARSE else 1
    kept += overlap * by * 2 * overlap * width * SUM_BYTES
    per_token = entry / by
    if by == SPARSE:
        index = c.positive("index_head_dim")
        per_token += (index + SUM_BYTES) / by
        kept += overlap * by * 2 * overlap * index * SUM_BYTES
    return LayerCache("mla", elements=ceil(per_token), element_bytes=1, sequence_bytes=kept)


def _tensors(c: ConfigJson, by: int) -> tuple[Tensor, ...]:
    hidden, count = c.positive("hidden_size"), c.positive("num_attention_heads")
    width, q_rank = c.positive("head_dim"), c.positive("q_lora_rank")
    groups, o_rank = c.positive("o_groups"), c.positive("o_lora_rank")
    name = "attn"
    found = (
        *linear(f"{name}.wq_a", q_rank, hidden, share=Share.REPLICATED),
        *linear(f"{name}.wq_b", count * width, q_rank),
        *linear(f"{name}.wkv", width, hidden, share=Share.REPLICATED),
        *linear(f"{name}.wo_a", groups * o_rank, count * width // groups),
        *linear(f"{name}.wo_b", hidden, groups * o_rank),
        *_hyper_connections(c, hidden),
    )
    return found + (_compressor(c, by, width, hidden) if by else ())


def _compressor(c: ConfigJson, by: int, width: int, hidden: int) -> tuple[Tensor, ...]:
    """vLLM keeps compressor and indexer whole on every rank."""
    overlap = 2 if by == SPARSE else 1
    found: tuple[Tensor, ...] = (
        plain("attn.compressor.wkv", overlap * width, hidden),
        plain("attn.compressor.wgate", overlap * width, hidden),
        plain("attn.compressor.ape", by, overlap * width),
    )
    if by == SPARSE:
        index, count = c.positive("index_head_dim"), c.positive("index_n_heads")
        share = Share.REPLICATED
        found += (
            *linear("attn.indexer.wq_b", count * index, c.positive("q_lora_rank"), share=share),
            plain("attn.indexer.weights_proj", count, hidden),
            plain("attn.indexer.compressor.wkv", overlap * index, hidden),
            plain("attn.indexer.compressor.wgate", overlap * index, hidden),
        )
    return found


def _hyper_connections(c: ConfigJson, hidden: int) -> tuple[Tensor, ...]:
    """Several residual streams, mixed before attention and before the feed-forward part."""
    streams = c.integer("hc_mult", default=0)
    if not streams:
        return ()
    rows = streams * (streams + 2)
    return tuple(plain(f"hc_{part}_fn", rows, streams * hidden) for part in ("attn", "ffn"))
