"""What llama.cpp's memory depends on, block by block, beyond weights and cache layout.

Elements are those of one token unless said otherwise. Read from a GGUF header by `gguf_graph.py`,
used by `runtimes/llama_cpp_memory.py`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GgufBlock:
    """One block of the graph.

    `k` and `v` are the elements that one token adds to the K and the V cache (an MLA block keeps K
    only), `window` the sliding window of that cache in tokens (0: the whole context), `state` the
    float32 elements of recurrent state per sequence. `heads` counts rows of attention scores,
    `attention` the elements that live beside these scores without flash attention, `peak` the
    most elements that live at one time with it. `border` is what one token hands to the next card
    when the block begins there, `passing` when the next card also has a successor.
    """

    k: int = 0
    v: int = 0
    window: int = 0
    state: int = 0
    heads: int = 0
    attention: int = 0
    peak: int = 0
    border: int = 0
    passing: int = 0


@dataclass(frozen=True)
class GgufFacts:
    """Blocks in order, and the tensor that a tied output layer is a second copy of.

    `token_embedding_mib` is `token_embd.weight`, which may be less than a model's `embedding_mib`
    (embeddings per layer, norms). With `shared_cache` the last blocks read what earlier ones cached
    (`attention.shared_kv_layers`). `head_sizes` are the different (key elements, value elements,
    query heads per KV head) of the blocks that attend; none where they are not known.
    """

    blocks: tuple[GgufBlock, ...]
    token_embedding_mib: float
    shared_cache: bool = False
    head_sizes: tuple[tuple[int, int, int], ...] = ()
