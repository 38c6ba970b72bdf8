"""Every refusal, grouped by the rule that speaks, with its count and an example."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from multigpu import labels
from multigpu.page.alternatives import lost
from multigpu.page.text import against, hanging, heading
from multigpu.plan import Reason, Rejected

MOST_EXAMPLES = 2
LAST = ("model-format", "pinned")
"""Rules that rule out by whole kinds: they are read last."""


def of(rejected: Iterable[Rejected]) -> list[Rejected]:
    """Those that do not hold, without the losers of the ranking."""
    everyone = tuple(rejected)
    holding = {id(item) for item in lost(everyone)}
    return [item for item in everyone if id(item) not in holding]


def section(refused: Collection[Rejected], title: str = "Refused") -> Iterator[str]:
    """The groups, largest first; a way with several objections is counted in each."""
    if not refused:
        return
    groups = _groups(refused)
    several = sum(len(items) for _, items in groups) > len(refused)
    some = "; some fell to several" if several else ""
    yield from heading(f"{title}: {labels.counted(len(refused), 'way')}, by rule{some}")
    said: set[str | None] = {None}
    for rule, items in groups:
        also = " that the pins leave out" if rule == "pinned" else ""
        yield from hanging("  ", f"[{rule}] {labels.counted(len(items), 'way')}{also}")
        yield from _examples(rule, items, said)


def _groups(refused: Iterable[Rejected]) -> list[tuple[str, list[tuple[Rejected, Reason]]]]:
    groups: dict[str, dict[int, tuple[Rejected, Reason]]] = {}
    for item in refused:
        for reason in item.reasons:
            groups.setdefault(reason.rule, {}).setdefault(id(item), (item, reason))
    found = [(rule, list(items.values())) for rule, items in groups.items()]
    return sorted(found, key=lambda group: (group[0] in LAST, -len(group[1])))


def _examples(
    rule: str, items: list[tuple[Rejected, Reason]], said: set[str | None]
) -> Iterator[str]:
    """Of each thing found one way, at most two, and how many others there are.

    What to do is said once; `said` holds the hints above.
    """
    if rule == "pinned":
        return
    kinds: dict[str, list[tuple[Rejected, Reason]]] = {}
    for item, reason in items:
        kinds.setdefault(reason.found, []).append((item, reason))
    for alike in list(kinds.values())[:MOST_EXAMPLES]:
        item, reason = alike[0]
        more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        hint = "" if reason.hint in said else f"; {reason.hint}"
        said.add(reason.hint)
        yield from hanging("    ", f"{labels.label(item.candidate)}{more}: {against(reason)}{hint}")
