"""Every way to serve in one table: what it gives, or why it does not hold."""

from __future__ import annotations

from collections.abc import Sequence

from multigpu import labels
from multigpu.page.alternatives import kind
from multigpu.page.plan_json import holds
from multigpu.plan import Candidate, Estimate, Prediction, Rejected
from multigpu.screen.text import printable, shortened

HEADS = ("KV tokens", "decode", "prefill", "TTFT")
UNITS = ("an engine", "tokens/s", "tokens/s", "ms")
NO_NUMBERS = ("",) * len(HEADS)
LEAST_NAME = 20

Row = tuple[str, Sequence[str], str]
"""Name, numbers, and why it was not chosen."""


def candidates_screen(ways: Sequence[Rejected], columns: int) -> list[str]:
    """A line a way: those that hold in rank order, the chosen one first, then what does not hold.

    A name too long to stand before its numbers has a line of its own: cut short, splits of the
    same kind would look alike. Sentences are cut to the width, rule ids and numbers never.
    """
    standing = [item for item in ways if holds(item)]
    fallen = [item for item in ways if not holds(item)]
    rows: list[Row] = [("", HEADS, ""), ("", UNITS, ""), *map(_row, standing)]
    if fallen:
        rows += [("do not hold:", NO_NUMBERS, ""), *map(_row, fallen)]
    heading = f"{labels.counted(len(ways), 'way')} to serve it, {len(standing)} of them hold"
    return [heading, *_table(rows, columns)] if ways else []


def _table(rows: Sequence[Row], columns: int) -> list[str]:
    widths = [max(map(len, cells)) for cells in zip(*(row[1] for row in rows), strict=True)]
    room = columns - sum(widths) - 2 * (len(widths) + 1)
    rule = max(len(_rule(row[2])) for row in rows)
    name = max(LEAST_NAME, min(room - rule, max(len(row[0]) for row in rows)))
    lines = []
    for text, cells, why in rows:
        alone = len(text) > name
        if alone:
            lines.append(shortened(text, columns))
        numbers = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        first = "" if alone else text
        lines.append(
            "  ".join([first.ljust(name), *numbers, _cut(why, max(room - name, rule))]).rstrip()
        )
    return lines


def _rule(why: str) -> str:
    rule, bracket, _ = why.partition("]")
    return rule + bracket


def _cut(why: str, width: int) -> str:
    """The rule alone where fewer than two words of the sentence would fit."""
    rule = _rule(why)
    return shortened(why, width) if width >= len(rule) + 12 else rule


def _row(item: Rejected) -> Row:
    return printable(_name(item.candidate)), _numbers(item.candidate), printable(_why(item))


def _name(candidate: Candidate) -> str:
    return f"{kind(candidate)} on {labels.cards(candidate.gpus).removeprefix('GPU ')}"


def _numbers(candidate: Candidate) -> tuple[str, ...]:
    found = candidate.predicted or Prediction()
    speeds = (found.decode_tokens_per_s, found.prefill_tokens_per_s, found.ttft_ms)
    tokens = "?" if candidate.kv_tokens is None else f"{candidate.kv_tokens:,}"
    return tokens, *map(_value, speeds)


def _value(estimate: Estimate | None) -> str:
    return "?" if estimate is None else labels.rounded(estimate.value)


def _why(item: Rejected) -> str:
    """The rule first, it is what one searches for; the sentence only where a way does not hold."""
    if not item.reasons:
        return "chosen"
    first = item.reasons[0]
    return f"[{first.rule}]" if holds(item) else f"[{first.rule}] {first.found}"
