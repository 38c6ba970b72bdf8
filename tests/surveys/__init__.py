"""Screens of captured machines that a person looked at; `python -m tests.surveys` writes them."""

from __future__ import annotations

from pathlib import Path

from multigpu.parse.capture import read
from multigpu.survey import survey
from tests.hosts import captured

HERE = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in HERE.glob("*.txt")))


def screen(name: str) -> str:
    """The screen of that machine as it is now."""
    return survey(read(captured(name), name))
