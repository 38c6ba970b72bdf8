"""docs/fault-matrix.md, from what was measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from .bench import SHORT
from .measuring import Result

PAGE = Path(__file__).resolve().parents[3] / "docs" / "fault-matrix.md"
HEAD = """# Fault matrix

Written by `make faults` on {day}: {count} cases on four lab hosts (systemd {systemd}) at the same
time on one machine with {cores} cores. The cards are simulated. `llama` is the real llama-server
with two ggml-rpc-server devices; `vllm` and `sglang` are our simulated engine
([tests/engine](../tests/engine/control.py)), which behaves and fails as they do.

Clocks `default` are those that a deployment has. Clocks `short`: {clocks}; the bound of a stall is
shortened with them. Detected and serving again: seconds after the fault. Every case also holds: no
orphans, exactly one restart record (none for what is harmless), managed files as they were, one
engine.

"""
COLUMNS = ("fault", "engine", "clocks", "detected", "bound", "serves again", "orphans", "reason",
           "reported in", "false verdicts", "")  # fmt: skip


def cell(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def row(result: Result) -> str:
    cells = (
        result.fault, result.shape, "short" if result.short else "default",
        cell(result.detect_s), cell(result.bound_s), cell(result.serve_s), str(result.orphans),
        result.reason, result.reported, str(result.false_verdicts),
        f"**broken**: {'; '.join(result.broken)}" if result.broken else "holds",
    )  # fmt: skip
    return f"| {' | '.join(text.replace('|', '/') for text in cells)} |"


def page(results: Sequence[Result], systemd: str, cores: int) -> str:
    """The whole page."""
    clocks = ", ".join(f"{name} {value:g} s" for name, value in SHORT.items())
    head = HEAD.format(
        day=time.strftime("%Y-%m-%d"), count=len(results), systemd=systemd, cores=cores,
        clocks=clocks,
    )  # fmt: skip
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    return head + "\n".join([*lines, *(row(result) for result in results)]) + "\n"


def write(results: Sequence[Result], systemd: str, cores: int) -> None:
    PAGE.write_text(page(results, systemd, cores))
