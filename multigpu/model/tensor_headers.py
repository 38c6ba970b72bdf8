"""Weights by part from the tensors that a checkpoint lists: names and bytes, nothing of shapes.

safetensors: 8 bytes of little-endian length, then a JSON object of that length with `dtype`,
`shape` and `data_offsets` per tensor (format description of the safetensors project).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from multigpu.errors import ModelError
from multigpu.model.weights import MIB, Weights

# Header lengths above this are not of a model: the safetensors project limits them to 100 MB.
HEADER_MAX_BYTES = 100_000_000

LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d{1,5})\.(.+)$")
TOWER = re.compile(
    r"(?:^|\.)(?:visual|vision\w*|image\w*|audio\w*|speech\w*|sound\w*|multi_modal_projector|"
    r"mm_projector|mlp1|patch_merg\w*|vit\w*|embed_vision|embed_audio|connector|resampler|"
    r"aligner|projector|modality_projection|vpm|apm|talker|token2wav|code2wav)(?:\.|$)"
)
DRAFT = re.compile(r"(?:^|\.)(?:mtp\w*|nextn\w*|eagle\w*|medusa\w*)(?:\.|$)")
EXPERT = re.compile(r"(?:^|\.)experts(?:\.|_|$)")
WHOLE = re.compile(
    r"norm|(?:^|\.)(?:gate|router)(?:\.|$)|e_score|kv_a_proj|q_a_proj|wq_a|\.bias$|indexer|"
    r"compressor|A_log|dt_bias|conv1d"
)
EMBEDDING = re.compile(
    r"embed|(?:^|\.)(?:wte|wpe|tok_embeddings|per_layer_model_projection)(?:\.|$)"
)
HEAD = re.compile(r"(?:^|\.)(?:lm_head|embed_out|output|output_layer|head)(?:\.|$)")


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a checkpoint and the bytes it takes there."""

    name: str
    bytes: int


def read_safetensors(head: bytes) -> tuple[StoredTensor, ...]:
    """The tensors that the beginning of a *.safetensors lists. Raises ModelError."""
    length = int.from_bytes(head[:8], "little")
    if len(head) < 8 or not 2 <= length <= HEADER_MAX_BYTES or len(head) < 8 + length:
        raise ModelError("a .safetensors file is cut or is none: its header is not whole")
    try:
        listed = json.loads(head[8 : 8 + length])
    except (ValueError, RecursionError):
        raise ModelError("a .safetensors file has a damaged header") from None
    if not isinstance(listed, Mapping):
        raise ModelError("a .safetensors file has a damaged header")
    return tuple(_tensor(k, v) for k, v in listed.items() if k != "__metadata__")


def _tensor(name: str, entry: object) -> StoredTensor:
    offsets = entry.get("data_offsets") if isinstance(entry, Mapping) else None
    if isinstance(offsets, list) and len(offsets) == 2 and all(type(n) is int for n in offsets):
        return StoredTensor(name, max(0, offsets[1] - offsets[0]))
    raise ModelError(f"a .safetensors header is damaged at {name[:60]!r}")


def by_part(tensors: Iterable[StoredTensor], depth: int, *, tied: bool) -> Weights:
    """The parts of a model of `depth` blocks. Raises ModelError when blocks are missing."""
    layers, experts, whole = ([0.0] * depth for _ in range(3))
    around = dict.fromkeys(("embedding", "output", "vision", "draft"), 0.0)
    for tensor in tensors:
        mib = tensor.bytes / MIB
        block = None if TOWER.search(tensor.name) else LAYER.search(tensor.name)
        if block is None or DRAFT.search(tensor.name) or int(block[1]) >= depth:
            around[_part(tensor.name, block is not None, tied)] += mib
            continue
        index = int(block[1])
        layers[index] += mib
        if EXPERT.search(block[2]):
            experts[index] += mib
        elif WHOLE.search(block[2]):
            whole[index] += mib
    if not all(layers):
        absent = next(i for i, mib in enumerate(layers) if not mib)
        raise ModelError(f"the weight files hold nothing of block {absent}: the download is cut")
    return Weights(
        tuple(layers),
        tuple(experts),
        tuple(whole),
        around["embedding"],
        around["output"],
        around["vision"],
        around["draft"],
        exact=True,
    )


def _part(name: str, in_block: bool, tied: bool) -> str:
    if in_block or DRAFT.search(name):
        return "draft"
    if TOWER.search(name):
        return "vision"
    if EMBEDDING.search(name) and not HEAD.search(name):
        return "embedding"
    # A tied model may ship its output matrix all the same; it is not loaded.
    return "draft" if tied and HEAD.search(name) else "output"
