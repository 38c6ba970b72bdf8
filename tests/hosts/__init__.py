"""Captured machines in the probe's format, written by `python -m tests.hosts.generate`.

A file is what a host answers, so the rehearsal connector prints it as it is.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent

NAMES = tuple(sorted(path.stem for path in HERE.glob("*.json")))


def captured(name: str) -> str:
    """The text that the probe of that machine printed."""
    return (HERE / f"{name}.json").read_text(encoding="ascii")
