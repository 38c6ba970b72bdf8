"""Tensors of a block by shape: what is sharded, kept whole on every rank, or an expert's."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from multigpu.plan import LayerCache


class Share(StrEnum):
    """How tensor parallel divides a tensor: by rank, not at all, or as a routed expert's."""

    SHARDED = "sharded"
    REPLICATED = "replicated"
    EXPERT = "expert"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One matrix, `copies` times (experts). `plain` ones are never quantized (norms, biases).

    `name` is the module's path inside its block as checkpoints write it; ignore lists of
    quantizers are matched with it. `stored_bytes` is the size of an element where a family keeps
    this tensor in a type of its own, else None.
    """

    name: str
    outputs: int
    inputs: int = 1
    copies: int = 1
    share: Share = Share.SHARDED
    plain: bool = False
    stored_bytes: float | None = None

    @property
    def elements(self) -> int:
        """Parameters of all copies."""
        return self.outputs * self.inputs * self.copies


@dataclass(frozen=True)
class Block:
    """One block: what it caches, what it holds."""

    cache: LayerCache
    tensors: tuple[Tensor, ...]


def linear(
    name: str, outputs: int, inputs: int, *, bias: bool = False, share: Share = Share.SHARDED
) -> tuple[Tensor, ...]:
    """A projection, with its bias where it has one."""
    matrix = Tensor(name, outputs, inputs, share=share)
    return (matrix, plain(f"{name}.bias", outputs, share=share)) if bias else (matrix,)


def plain(name: str, outputs: int, inputs: int = 1, *, share: Share = Share.REPLICATED) -> Tensor:
    """A norm, a bias, a short convolution: kept in the model's own type."""
    return Tensor(name, outputs, inputs, share=share, plain=True)
