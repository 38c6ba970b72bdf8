"""What changed between two tables of flags, first what concerns the command lines that we render.

    python scripts/flags_diff.py vllm_0_32_0 vllm_0_33_0

Prints Markdown. "For us" are the flags that have a reason in multigpu/page/flag_reasons.py, which
are all that we render, and those that are written from keys of a wish. Exit status 1 when a flag
that we render vanished or does not take what it took.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator, Mapping

from multigpu.flags.table import Flag
from multigpu.page.flag_reasons import REASONS
from multigpu.pins import WRITTEN

Table = Mapping[str, Flag]


def load(name: str) -> Table:
    """Spelling -> option of `multigpu/flags/<name>.py`."""
    flags = importlib.import_module(f"multigpu.flags.{name}").FLAGS
    return {spelling: flag for flag in flags for spelling in flag.spellings}


def changes(old: Table, new: Table) -> Iterator[tuple[str, str, bool]]:
    """Spelling, what happened to it, and whether a word that was accepted is refused now."""
    for spelling in sorted({*old, *new}):
        if spelling not in new:
            yield spelling, "is gone" + _kept(old[spelling], new), True
        elif spelling not in old:
            yield spelling, "is new", False
        else:
            for text, breaks in _differences(old[spelling], new[spelling]):
                yield spelling, text, breaks


def _kept(flag: Flag, new: Table) -> str:
    others = [spelling for spelling in flag.spellings if spelling in new]
    return f", {others[0]} is still there" if others else ""


def _differences(old: Flag, new: Flag) -> Iterator[tuple[str, bool]]:
    if old.arity != new.arity:
        yield f"takes {new.arity} values, took {old.arity}", True
    if old.kind != new.kind:
        yield f"takes {new.kind or 'any word'}, took {old.kind or 'any word'}", new.kind is not None
    if set(old.choices or ()) != set(new.choices or ()):
        yield from _choices(old.choices, new.choices)


def _choices(
    old: tuple[str, ...] | None, new: tuple[str, ...] | None
) -> Iterator[tuple[str, bool]]:
    if old is None:
        yield f"takes only {', '.join(new or ())} now", True
    elif new is None:
        yield "takes any word now", False
    else:
        gone, come = set(old) - set(new), set(new) - set(old)
        if gone:
            yield f"does not take {', '.join(sorted(gone))} any more", True
        if come:
            yield f"also takes {', '.join(sorted(come))}", False


def report(old_name: str, new_name: str) -> tuple[str, bool]:
    """The text, and whether something that we render breaks."""
    found = list(changes(load(old_name), load(new_name)))
    ours = [row for row in found if row[0] in REASONS or row[0] in WRITTEN]
    rest = [row for row in found if row not in ours]
    lines = [f"# {old_name} to {new_name}", "", "## For us", "", *_rows(ours), ""]
    lines += ["## Others that accept less or are gone", "", *_rows([r for r in rest if r[2]]), ""]
    lines += ["## Others that accept more or are new", "", *_rows([r for r in rest if not r[2]])]
    return "\n".join(lines), any(breaks for _, _, breaks in ours)


def _rows(rows: list[tuple[str, str, bool]]) -> list[str]:
    return [
        f"- `{flag}` {text}{' **(refused now)**' if breaks else ''}" for flag, text, breaks in rows
    ] or ["nothing"]


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", help="a module of multigpu/flags, such as vllm_0_32_0")
    parser.add_argument("new")
    options = parser.parse_args()
    text, breaks = report(options.old, options.new)
    print(text)
    return int(breaks)


if __name__ == "__main__":
    raise SystemExit(main())
