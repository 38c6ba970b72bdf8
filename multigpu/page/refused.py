"""The page of a wish that found no plan: the nearest way, what would help, all that was tried."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from multigpu import labels
from multigpu.choice.nearest import nearest
from multigpu.errors import NoPlan
from multigpu.page import asked, memory, refusals
from multigpu.page.text import WIDTH, bullets, hanging, heading, labelled, sentence
from multigpu.pins import pinned_keys
from multigpu.plan import Reason
from multigpu.screen.text import printable
from multigpu.workload import workload


def lines(error: NoPlan, host_name: str) -> Iterator[str]:
    """Nothing where nothing was tried: the line of the error says it all."""
    if not error.rejected:
        return
    yield from wrap(printable(f"{error.service} on {host_name}: no plan"), WIDTH)
    if error.model is not None:
        yield from labelled("model", asked.model(error.model))
        if error.wish is not None:
            load = workload(error.model, error.wish)
            yield from labelled("wish", asked.wish(error.wish, load))
            yield from labelled("pinned", asked.pins(error.wish, pinned_keys(error.wish)))
    yield from _nearest(error)
    if error.changes:
        yield from heading("The smallest change that would make it fit")
        yield from bullets(map(_change, error.changes))
    yield from refusals.section(error.rejected, "Tried")


def _nearest(error: NoPlan) -> Iterator[str]:
    item = nearest(error.rejected)
    yield from heading(f"Nearest: {labels.label(item.candidate)}")
    yield from bullets(map(sentence, item.reasons))
    if item.candidate.memory:
        yield from memory.per_card(item.candidate)
        yield from hanging("  ", f"in {memory.unit(item.candidate.memory)}; {memory.LEGEND}")


def _change(change: Reason) -> str:
    gives = f": {change.needed}" if change.needed else ""
    return f"{change.found}{gives}{f'; {change.hint}' if change.hint else ''} [{change.rule}]"
