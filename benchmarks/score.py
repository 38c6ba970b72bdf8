"""Every goal of the planner with its figure: `make score`.

    python -m benchmarks.score [NAME ...]

Runs the benchmarks one after the other. Each has `score() -> list[Figure]` (figure.py), or at least
`main() -> int`, of which the exit status counts. Ends with 1 where a goal is missed. Benchmarks
that need the published measurements are skipped where ../shared is not beside the repository.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from benchmarks.figure import Figure

SHARED = Path(__file__).resolve().parents[2] / "shared"
BENCHMARKS = {
    "kv_cache": True,
    "llama_cpp_memory": True,
    "choice": True,
    "decode_speed": True,
    "planning_time": False,
}
"""Name of a benchmark, and whether it reads ../shared."""


def figures(name: str) -> list[Figure]:
    """The figures of one benchmark; its exit status where it gives none."""
    module = import_module(f"benchmarks.{name}")
    if hasattr(module, "score"):
        return [Figure(*row) for row in module.score()]
    return [_status(name, module)]


def _status(name: str, module: ModuleType) -> Figure:
    status = module.main([]) or 0
    return Figure(f"{name}: exit status", float(status), "", "== 0", status == 0)


def run(names: Sequence[str]) -> Iterator[tuple[str, list[Figure] | str]]:
    """Each benchmark with its figures, or why it was skipped."""
    for name in names:
        if find_spec(f"benchmarks.{name}") is None:
            yield name, "skipped: there is no such benchmark"
        elif BENCHMARKS.get(name) and not SHARED.is_dir():
            yield name, "skipped: the published measurements (../shared) are not here"
        else:
            started = time.monotonic()
            found = figures(name)
            print(f"{name}: {time.monotonic() - started:.0f} s\n", flush=True)
            yield name, found


def line(figure: Figure) -> str:
    """`ok    choice: mean regret             3.1 %    goal <= 5`."""
    state = "ok" if figure.ok else "MISSED"
    value = f"{figure.value:,.4g} {figure.unit}".rstrip()
    goal = f"goal {figure.goal}" if figure.goal else ""
    return f"{state:7} {figure.name:58} {value:>14}   {goal}".rstrip()


def main(names: Sequence[str]) -> int:
    """Print the table; 1 where a goal is missed."""
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
