"""What a Hugging Face model is made of, from its configuration: blocks, caches, matrices.

`blocks` gives every transformer block with what it caches and the tensors it holds; `outside`
what stands around them. Attention shapes, recurrent layers and feed-forward parts are modules of
their own; `kinds` tells which block is which, `families` holds what families do their own way.
"""

from __future__ import annotations

from multigpu.model.architecture.block import blocks
from multigpu.model.architecture.outside import Outside, outside
from multigpu.model.architecture.tensors import Block, Share, Tensor

__all__ = ["Block", "Outside", "Share", "Tensor", "blocks", "outside"]
