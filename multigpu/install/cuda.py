"""Which driver and which cards a release of CUDA works with.

Drivers: NVIDIA "CUDA Compatibility", "Minor Version Compatibility", table 1 (a build of any 13.x
runs on any driver >= 580). Architectures of nvcc: CUDA Toolkit Release Notes of the release that
added or removed each, and the ISA table of "CUDA C++ Programming Guide", compute capabilities.
"""

from __future__ import annotations

OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
"""CUDA's major release -> the oldest branch of the driver that runs it."""
OLDEST_CARD = {11: (3, 5), 12: (5, 0), 13: (7, 5)}
"""CUDA's major release -> the oldest compute capability that its compiler and libraries serve."""
FIRST_NVCC = {
    (7, 5): (10, 0),
    (8, 0): (11, 0),
    (8, 6): (11, 1),
    (8, 9): (11, 8),
    (9, 0): (11, 8),
    (10, 0): (12, 8),
    (10, 3): (12, 9),
    (12, 0): (12, 8),
    (12, 1): (12, 9),
}
"""Compute capability -> the first nvcc that compiles for it."""


def driver_needed(cuda: tuple[int, int]) -> int | None:
    """Oldest driver branch for a release of CUDA; None for releases nobody has entered."""
    return OLDEST_DRIVER.get(cuda[0])


def branch(driver: str | None) -> int | None:
    """`580` of `580.65.06`; None when it is not known."""
    head = (driver or "").partition(".")[0]
    return int(head) if head.isascii() and head.isdecimal() else None


def too_old_for(
    nvcc: tuple[int, int], cards: tuple[tuple[int, int], ...]
) -> tuple[int, int] | None:
    """The nvcc that the cards need, when this one is older than that."""
    needed = max((FIRST_NVCC.get(card, (0, 0)) for card in cards), default=(0, 0))
    return needed if nvcc < needed else None


def dropped(nvcc: tuple[int, int], cards: tuple[tuple[int, int], ...]) -> tuple[int, int] | None:
    """The oldest card that this nvcc no longer compiles for."""
    oldest = min(cards, default=(99, 0))
    return oldest if oldest < OLDEST_CARD.get(nvcc[0], (0, 0)) else None


def text(version: tuple[int, int]) -> str:
    """`13.0`."""
    return f"{version[0]}.{version[1]}"
