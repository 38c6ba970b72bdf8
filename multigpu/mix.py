"""Are the cards of a host alike? Matched and three ways of mixed are different answers."""

from __future__ import annotations

from enum import StrEnum

from multigpu.hardware import Gpu


class Mix(StrEnum):
    """How alike the usable cards of a host are; each is a different answer for the planner."""

    SINGLE = "one GPU"
    MATCHED = "matched"
    MEMORY = "mixed by memory"
    ARCHITECTURE = "mixed by architecture"
    VENDOR = "mixed by vendor"


MATCHED_SHARE = 0.9
"""Memory of the smallest card over that of the largest, from which on cards count as matched."""


def mix(gpus: tuple[Gpu, ...]) -> Mix:
    """How alike the cards are: vendor first, then compute capability or gfx, then memory.

    Memory within 10 % counts as matched; a smaller band would part twins that differ by firmware
    (24564 and 24576 MiB). What is unknown of a card is no difference.
    """
    if len(gpus) < 2:
        return Mix.SINGLE
    if len({g.vendor for g in gpus}) > 1:
        return Mix.VENDOR
    if len({g.gfx or g.compute_capability for g in gpus} - {None}) > 1:
        return Mix.ARCHITECTURE
    memory = [g.memory_mib for g in gpus if g.memory_mib is not None]
    even = not memory or min(memory) >= MATCHED_SHARE * max(memory)
    return Mix.MATCHED if even else Mix.MEMORY
