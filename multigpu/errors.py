"""What can go wrong in a way the operator can act on.

Anything else is a bug and keeps its traceback.

    MultigpuError
     +-- CaptureError      what a host printed cannot be read as a captured machine
     +-- ModelError        the model reference or its configuration cannot be used
     +-- WishError         the service description in the inventory contradicts itself or is unknown
     +-- PlanFileError     plans/<host>.yaml cannot be read back
     +-- NoPlan            no candidate survives; carries every rejected one
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multigpu.plan import ModelSpec, Reason, Rejected, Wish


class MultigpuError(Exception):
    """One sentence for the operator: what was found, what was needed, what to do."""


class CaptureError(MultigpuError):
    """The text of a probe is not a whole captured machine."""


class ModelError(MultigpuError):
    """The model cannot be found or its configuration does not say what planning needs."""


class WishError(MultigpuError):
    """A key of the service description is unknown, malformed or contradicts another."""


class PlanFileError(MultigpuError):
    """A plan file is not YAML, not a plan, or was edited into something that does not hold."""


class NoPlan(MultigpuError):
    """Every candidate was rejected. `rejected` keeps them all, in the order they were tried.

    `service` is the name of the wish that found no plan. `changes` are the smallest changes of the
    wish, the model or the cards that would make a way fit, the smallest first: `found` is the
    change, `needed` what it gives, `hint` how to write it.
    """

    def __init__(
        self,
        message: str,
        rejected: tuple[Rejected, ...] = (),
        service: str = "",
        *,
        model: ModelSpec | None = None,
        wish: Wish | None = None,
        changes: tuple[Reason, ...] = (),
    ) -> None:
        super().__init__(message)
        self.rejected = rejected
        self.service = service
        self.model = model
        self.wish = wish
        self.changes = changes
