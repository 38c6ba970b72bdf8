"""What a model is: the values that its configuration or its GGUF header is read into.

Hugging Face configuration names are kept. Memory is in MiB.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Source(StrEnum):
    """Where the model's files lie."""

    HUB = "hub"
    URL = "url"
    HOST = "host"
    CONTROLLER = "controller"


@dataclass(frozen=True)
class ModelFile:
    """A file that the host fetches: path in the repository (or file name), size, and its hash.

    `sha256` is that of the content; of hub files that are not in LFS only `blob_id` is known, the
    SHA-1 that git gives the file (names of huggingface_hub's RepoFile and BlobLfsInfo).
    """

    path: str
    size_bytes: int
    sha256: str | None = None
    blob_id: str | None = None


@dataclass(frozen=True)
class LayerCache:
    """What one transformer block keeps per token or per sequence.

    `kind`: full | sliding | mla | state | none. For full and sliding, one token takes
    `2 * num_key_value_heads * head_dim` elements; for mla `elements` (kv_lora_rank +
    qk_rope_head_dim, not divided by tensor parallel); for state `elements` per sequence.
    `element_bytes` is None where the cache has the type of the KV cache (2 unless it is quantized).
    `sequence_bytes` is kept once per sequence beside what grows with its tokens: the state of a
    layer that runs a recurrence and attention (Falcon-H1, Zamba2; divided by tensor parallel), the
    window and compressor of DeepSeek V4 (kind mla; not divided).
    """

    kind: str = "full"
    num_key_value_heads: int = 0
    head_dim: int = 0
    window: int | None = None
    elements: int = 0
    element_bytes: int | None = None
    sequence_bytes: int = 0


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


@dataclass(frozen=True)
class ModelSpec:
    """Facts of one model, from config.json or a GGUF header.

    `layers_mib` holds the weights of each block in order; `embedding_mib` the input embedding,
    `output_mib` the final norm and lm_head (0 when tied), `vision_mib` towers and projectors of
    other modalities. Their sum is `weights_mib`. `draft_mib` (layers of multi-token prediction,
    loaded for speculative decoding only) is not part of it. Of each block, `experts_mib` is what
    its routed experts take and `replicated_mib` what every tensor parallel rank keeps whole (norms,
    routers, latent projections of MLA); both are parts of `layers_mib`, empty where unknown.
    `num_parameters` counts what `weights_mib` holds. `weights_exact` says that sizes come from
    tensor headers or file sizes and not from shapes; `lower_bound` names what is known to be
    missing from the counts, one phrase each. `active_parameters` are those that one token is
    multiplied with (routed experts by their share, the output matrix, no input embedding).
    `kv_cache_dtype` is the type the checkpoint asks for (fp8, nvfp4), None where it says nothing.
    `gguf` is what llama.cpp's buffers depend on, None for what is no GGUF. `path` is a repository
    of the hub, an address, or a path; `files` are those that the host fetches from the hub's
    `revision` (a commit) or from the address, none where nothing is fetched.
    """

    name: str
    source: Source
    path: str
    format: str
    model_type: str
    quantization: str | None
    dtype: str
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    hidden_size: int
    intermediate_size: int | None
    vocab_size: int
    max_position_embeddings: int | None
    layers: tuple[LayerCache, ...]
    layers_mib: tuple[float, ...]
    embedding_mib: float
    output_mib: float
    experts_mib: tuple[float, ...] = ()
    replicated_mib: tuple[float, ...] = ()
    vision_mib: float = 0.0
    draft_mib: float = 0.0
    num_parameters: int | None = None
    num_experts: int | None = None
    num_experts_per_tok: int | None = None
    moe_intermediate_size: int | None = None
    group_size: int | None = None
    tie_word_embeddings: bool = False
    revision: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    weights_exact: bool = False
    lower_bound: tuple[str, ...] = ()
    gguf: GgufFacts | None = None
    active_parameters: int | None = None
    kv_cache_dtype: str | None = None
    files: tuple[ModelFile, ...] = ()

    @property
    def weights_mib(self) -> float:
        """All weights that serving loads, in MiB."""
        return sum(self.layers_mib) + self.embedding_mib + self.output_mib + self.vision_mib
