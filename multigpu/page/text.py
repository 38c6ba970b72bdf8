"""Lines of a page: headings, bullets and tables of 80 columns, and sentences of reasons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap

from multigpu.plan import Reason
from multigpu.rule_list import COMPARED
from multigpu.screen.text import printable

WIDTH = 80


def heading(title: str) -> list[str]:
    """A blank line and the title of a section."""
    return ["", *wrap(printable(title), WIDTH)]


def hanging(lead: str, text: str, width: int = WIDTH) -> list[str]:
    """The text behind its lead; lines that follow begin below the text."""
    return wrap(
        printable(text),
        width,
        initial_indent=lead,
        subsequent_indent=" " * len(lead),
        break_on_hyphens=False,
    )


def labelled(label: str, text: str, indent: int = 12) -> list[str]:
    """`  model     Qwen3-32B ...`; nothing where there is no text."""
    lead = f"  {label}"
    return hanging(lead.ljust(indent) if len(lead) < indent else lead + " ", text)


def bullets(texts: Iterable[str]) -> Iterator[str]:
    """One point a text."""
    for text in texts:
        yield from hanging("  - ", text)


def table(rows: Sequence[Sequence[str]], *, heads: int = 1, gap: int = 2) -> list[str]:
    """First cells to the left, the others to the right; columns with a head only are left out."""
    columns = [column for column in zip(*rows, strict=True) if any(column[heads:])]
    widths = [max(map(len, column)) for column in columns]
    return [
        "  "
        + (" " * gap)
        .join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        .rstrip()
        for row in zip(*columns, strict=True)
    ]


def sentence(reason: Reason) -> str:
    """What was found, what is needed, what to do, and the rule."""
    hint = f"; {reason.hint}" if reason.hint else ""
    return f"{against(reason)}{hint} [{reason.rule}]"


def against(reason: Reason) -> str:
    """What was found, and what is needed where that does not say it."""
    needed = f"; needs {reason.needed}" if reason.needed and reason.rule not in COMPARED else ""
    return f"{reason.found}{needed}"
