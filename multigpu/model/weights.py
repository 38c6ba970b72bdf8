"""Weights of a model by part, in MiB: from shapes, scaled to file sizes, or from tensor headers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from multigpu.errors import ModelError
from multigpu.model.architecture import Block, Outside, Share, Tensor
from multigpu.model.quantization import Quantization

MIB = 1024 * 1024
# Files and shapes differ by alignment, buffers and biases; a draft layer is more than that.
CLOSE = 0.03


@dataclass(frozen=True)
class Weights:
    """MiB per block and of what stands around the blocks; `exact` when files were measured."""

    layers_mib: tuple[float, ...]
    experts_mib: tuple[float, ...]
    replicated_mib: tuple[float, ...]
    embedding_mib: float
    output_mib: float
    vision_mib: float
    draft_mib: float
    exact: bool = False
    missing: tuple[str, ...] = ()

    @property
    def total_mib(self) -> float:
        """What plain serving loads."""
        return sum(self.layers_mib) + self.embedding_mib + self.output_mib + self.vision_mib


def from_shapes(
    blocks: Sequence[Block], outside: Outside, q: Quantization | None, dtype_bytes: float
) -> Weights:
    """Every tensor in the type that the quantization stores it in."""
    rows = [_block_mib(block, layer, q, dtype_bytes) for layer, block in enumerate(blocks)]
    depth = len(blocks)

    def mib(tensors: Iterable[Tensor], layer: int | None = None) -> float:
        return sum(_bytes(t, layer, q, dtype_bytes) for t in tensors) / MIB

    return Weights(
        layers_mib=tuple(row[0] for row in rows),
        experts_mib=tuple(row[1] for row in rows),
        replicated_mib=tuple(row[2] for row in rows),
        embedding_mib=mib(outside.embedding),
        output_mib=mib(outside.output),
        vision_mib=sum(t.elements for t in outside.vision) * dtype_bytes / MIB,
        draft_mib=mib(outside.draft, depth),
        missing=outside.missing,
    )


def _block_mib(
    block: Block, layer: int, q: Quantization | None, dtype_bytes: float
) -> tuple[float, float, float]:
    """(all, experts, kept whole by every rank) of one block."""
    total = experts = whole = 0.0
    for tensor in block.tensors:
        mib = _bytes(tensor, layer, q, dtype_bytes) / MIB
        total += mib
        experts += mib if tensor.share is Share.EXPERT else 0.0
        whole += mib if tensor.share is Share.REPLICATED else 0.0
    return total, experts, whole


def _bytes(tensor: Tensor, layer: int | None, q: Quantization | None, dtype_bytes: float) -> float:
    stored = None
    if q is not None and not tensor.plain:
        stored = q.stored(layer, tensor.name, expert=tensor.share is Share.EXPERT)
    elif q is not None and tensor.name == "lm_head":
        stored = q.named("lm_head")
    if stored is not None:
        return tensor.copies * stored.bytes(tensor.outputs, tensor.inputs)
    return tensor.elements * dtype_bytes


def scaled(weights: Weights, file_bytes: int) -> Weights:
    """The shapes' proportions with the sum of the files.

    A checkpoint may come without its draft layers: they are counted as absent where the sum fits
    better without them. What shapes could not tell (towers) takes what the files leave. Raises
    ModelError when the files are too small to hold the embeddings.
    """
    known = file_bytes / MIB
    if known <= weights.embedding_mib + weights.output_mib:
        raise ModelError("the weight files are smaller than the embeddings: the download is cut")
    if weights.draft_mib:
        with_draft = abs(known - weights.total_mib - weights.draft_mib)
        if with_draft > abs(known - weights.total_mib):
            weights = replace(weights, draft_mib=0.0)
    rest = known - weights.draft_mib
    if weights.missing and rest > weights.total_mib * (1 + CLOSE):
        tower = rest - weights.total_mib + weights.vision_mib
        return replace(weights, vision_mib=tower, exact=True, missing=())
    around = weights.embedding_mib + weights.output_mib + weights.vision_mib
    if rest <= around:  # far less than the shapes say: towers and drafts are not in these files
        weights, rest = replace(weights, vision_mib=0.0, draft_mib=0.0), known
        around = weights.embedding_mib + weights.output_mib
    factor = (rest - around) / sum(weights.layers_mib)
    return replace(
        weights,
        layers_mib=tuple(mib * factor for mib in weights.layers_mib),
        experts_mib=tuple(mib * factor for mib in weights.experts_mib),
        replicated_mib=tuple(mib * factor for mib in weights.replicated_mib),
        exact=True,
        missing=(),
    )
