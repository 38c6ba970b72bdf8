"""One figure of a benchmark against its goal."""

from __future__ import annotations

from typing import NamedTuple


class Figure(NamedTuple):
    """What was measured, and whether it is good enough.

    `goal` is text (`<= 0.4`), empty for a figure that only informs; `ok` is then True.
    """

    name: str
    value: float
    unit: str
    goal: str
    ok: bool
