"""What llama.cpp keeps per token and per sequence of each block of a GGUF.

Facts of llama.cpp 0.5.0-dev (0c1e57098): `src/llama-hparams.cpp` for windows and recurrent state,
`src/llama-kv-cache.cpp` for what an MLA layer keeps (K only), `llama_model::create_memory` in
src/llama-model.cpp for the blocks that keep anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from multigpu.model.gguf_header import GgufHeader
from multigpu.plan import LayerCache

# Sliding-window period and whether the first block of a period is the full one, where the file does
# not say it (`load_swa_pattern` in src/models/*.cpp).
SWA_PATTERNS = {
    "afmoe": (4, False),
    "cohere2": (4, False),
    "cohere2moe": (4, True),
    "exaone-moe": (4, False),
    "exaone4": (4, False),
    "gemma2": (2, False),
    "gemma3": (6, False),
    "gemma3n": (5, False),
    "gpt-oss": (2, False),
    "laguna": (4, True),
    "llama4": (4, False),
    "mellum": (4, False),
    "muse-glimmer": (4, False),
    "olmo2": (4, False),
    "plamo3": (8, False),
    "smallthinker": (4, True),
}
# Windows that llama.cpp takes where the file names none, and those it takes whatever the file says.
DEFAULT_WINDOW = {"gemma2": 4096, "llama4": 8192}
FIXED_WINDOW = {"llama4": 8192, "smallthinker": 4096}
# Their graphs know no window although files name one.
WITHOUT_WINDOW = {"phi3"}
# Every attention block attends over the window.
ALL_SLIDING = {"lfm2", "lfm2moe"}
# The blocks of gemma3n that have a cache of their own (`n_layer_kv_from_start`).
OWN_CACHE = {"gemma3n": 20}


@dataclass(frozen=True)
class Rows:
    """Elements per token in the K and the V cache, window in tokens, state per sequence."""

    k: int = 0
    v: int = 0
    window: int = 0
    state: int = 0


def rows(h: GgufHeader) -> tuple[Rows, ...]:
    """What every block keeps."""
    sliding, window = _sliding(h), _window(h)
    own = min(h.trunk, OWN_CACHE.get(h.architecture, h.block_count))
    own -= h.optional("attention.shared_kv_layers") or 0 if h.architecture not in OWN_CACHE else 0
    return tuple(
        _rows(h, i, window if sliding[i] else 0) if i < own else Rows()
        for i in range(h.block_count)
    )


def _rows(h: GgufHeader, index: int, window: int) -> Rows:
    state = _state(h, index)
    heads = h.kv_heads()[index]
    if heads == 0 or not h.has_any(index, "attn_") or (state and h.architecture not in PARALLEL):
        return Rows(state=state)
    suffix = "_swa" if window else ""
    k = h.optional(f"attention.key_length{suffix}") or h.head_dim()
    v = h.optional(f"attention.value_length{suffix}") or _value_dim(h)
    if h.optional("attention.key_length_mla"):
        indexer = h.optional("attention.indexer.key_length") or 0
        return Rows(k * heads + indexer, 0, window, state)
    return Rows(k * heads, v * heads, window, state)


# Attention and a recurrence side by side in every block.
PARALLEL = {"falcon-h1"}


def _value_dim(h: GgufHeader) -> int:
    return h.optional("attention.value_length") or h.head_dim()


def _state(h: GgufHeader, index: int) -> int:
    """Recurrent state of one sequence in float32 elements: `n_embd_r` + `n_embd_s`."""
    width = h.integer("embedding_length")
    if h.has_any(index, "time_mix"):
        shifts = h.optional("token_shift_count") or 2
        return width * (shifts + h.integer("wkv.head_size"))
    if h.has_any(index, "shortconv"):
        return width * (h.integer("shortconv.l_cache") - 1)
    if not h.has_any(index, "ssm_"):
        return 0
    kernel = h.optional("ssm.conv_kernel") or 1
    delta = h.optional("kda.head_dim")
    if delta:
        inner = max(h.heads()) * delta
        return inner * (delta + 3 * (kernel - 1))
    inner, size = h.integer("ssm.inner_size"), h.integer("ssm.state_size")
    groups = h.optional("ssm.group_count") or 0
    return size * inner + (kernel - 1) * (inner + 2 * groups * size)


def _window(h: GgufHeader) -> int:
    """Tokens of the window, 0 when nothing slides. A window of 0 in the file turns it off."""
    stated = h.optional("attention.sliding_window")
    if stated == 0 or h.architecture in WITHOUT_WINDOW:
        return 0
    default = DEFAULT_WINDOW.get(h.architecture, 0)
    if h.architecture == "exaone4" and h.block_count == 64:
        default = 4096
    return FIXED_WINDOW.get(h.architecture) or stated or default


def _sliding(h: GgufHeader) -> tuple[bool, ...]:
    """Which blocks attend over a window; unknown patterns count as full, an upper bound."""
    if not _window(h):
        return (False,) * h.block_count
    if h.architecture in ALL_SLIDING:
        return (True,) * h.block_count
    stated = h.fields.get(f"{h.architecture}.attention.sliding_window_pattern")
    if isinstance(stated, list | tuple) and len(stated) >= h.trunk:
        listed = tuple(bool(item) for item in stated[: h.block_count])
        return listed + (False,) * (h.block_count - len(listed))
    period, dense_first = SWA_PATTERNS.get(h.architecture, (1, False))
    if isinstance(stated, int) and not isinstance(stated, bool) and stated > 0:
        period = stated
    full = 0 if dense_first else period - 1
    return tuple(i < h.trunk and i % period != full for i in range(h.block_count))


def caches(h: GgufHeader) -> tuple[LayerCache, ...]:
    """The same in the words that all runtimes share; keys and values count at their mean width."""
    heads = h.kv_heads()
    return tuple(_cache(row, heads[i]) for i, row in enumerate(rows(h)))


def _cache(row: Rows, heads: int) -> LayerCache:
    if row.state and not row.k:
        return LayerCache("state", elements=row.state, element_bytes=4)
    if not row.k:
        return LayerCache("none")
    if not row.v:
        return LayerCache("mla", elements=row.k)
    dim = -(-(row.k + row.v) // (2 * heads))
    cache = LayerCache("full", heads, dim, sequence_bytes=4 * row.state)
    return replace(cache, kind="sliding", window=row.window) if row.window else cache
