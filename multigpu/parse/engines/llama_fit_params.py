"""What `llama-fit-params --fit-print on` prints: estimated memory of every device in MiB.

One line a device: its name, then model, context and compute; the last one is the host's
(`common_fit_print` in common/fit.cpp, 0c1e57098). With `--split-mode tensor` one line, `Meta()`,
stands for all cards: its figures are those of the largest share (H200 standing for several cards).
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class FitDevice:
    """Memory of one device in MiB, rounded down."""

    name: str
    model_mib: int
    context_mib: int
    compute_mib: int


LINE = re.compile(r"^(\S{1,80}) (\d{1,9}) (\d{1,9}) (\d{1,9}) ?$", re.ASCII | re.MULTILINE)


def read_fit_print(printed: str) -> tuple[FitDevice, ...]:
    """The devices in order; empty where nothing was printed. Never raises."""
    return tuple(
        FitDevice(name, int(model), int(context), int(compute))
        for name, model, context, compute in LINE.findall(printed)
    )
