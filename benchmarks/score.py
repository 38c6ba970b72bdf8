"""Every goal of the planner with its figure: `make score`.

    python -m benchmarks.score [NAME ...]

Runs the benchmarks one after the other. Each has `score() -> list[Figure]` (figure.py), and
`missing()` where it needs something that a machine may lack. Ends with 1 where a goal is missed.
Benchmarks that need the published measurements are skipped where ../shared is not beside the
repository.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from benchmarks.figure import Figure

SHARED = Path(__file__).resolve().parents[2] / "shared"
BENCHMARKS = {
    "planning_time": False,
    "kv_cache": True,
    "choice": True,
    "decode_speed": True,
    "llama_cpp_memory": False,
}
"""Name of a benchmark, and whether it reads ../shared. Time is taken first, before there is much in
memory for Python to look through for garbage."""


def why_not(name: str) -> str | None:
    """Why a benchmark cannot be run here, None where it can."""
    if BENCHMARKS[name] and not SHARED.is_dir():
        return "the published measurements (../shared) are not here"
    missing: Callable[[], str | None] | None = getattr(_module(name), "missing", None)
    return None if missing is None else missing()


def _module(name: str) -> ModuleType:
    return import_module(f"benchmarks.{name}")


def run(names: Sequence[str]) -> Iterator[tuple[str, list[Figure] | str]]:
    """Each benchmark with its figures, or why it was skipped."""
    for name in names:
        lacking = why_not(name)
        if lacking is not None:
            yield name, f"skipped: {lacking}"
            continue
        started = time.monotonic()
        found: list[Figure] = _module(name).score()
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        yield name, found


def line(figure: Figure) -> str:
    """`ok    choice: mean regret             3.1 %    goal <= 5`; without a goal neither."""
    state = "MISSED" if not figure.ok else "ok" if figure.goal else ""
    value = f"{figure.value:,.4g} {figure.unit}".rstrip()
    goal = f"goal {figure.goal}" if figure.goal else ""
    return f"{state:7} {figure.name:58} {value:>14}   {goal}".rstrip()


def main(names: Sequence[str]) -> int:
    """Print the table; 1 where a goal is missed, 2 for a name that is no benchmark."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"{unknown[0]} is no benchmark: name {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    results = list(run(names or list(BENCHMARKS)))
    missed = False
    for name, found in results:
        if isinstance(found, str):
            print(f"{'':7} {name}: {found}")
            continue
        for figure in found:
            print(line(figure))
            missed |= not figure.ok
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
