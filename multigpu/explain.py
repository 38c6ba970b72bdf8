"""The page of a plan or of a refusal, and the first part of it that fits a screen.

Plain text of at most 80 columns; the sections are in `multigpu/page/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import wrap

from multigpu.errors import NoPlan
from multigpu.labels import cards, runtime_name, split
from multigpu.page import alternatives, asked, flags, memory, overturn, refusals, refused, speed
from multigpu.page.text import WIDTH, bullets, hanging, heading, sentence
from multigpu.plan import Plan, Reason
from multigpu.screen.text import printable


def explain(plan: Plan) -> str:
    """The whole page, ending with a newline."""
    return _text([*_first(plan), *_rest(plan)])


def short(plan: Plan, path: str) -> str:
    """The page up to the alternatives and the warnings; `path` is the file that holds the plan."""
    more = hanging("  ", "Flags with reasons, what to measure, and every refusal:")
    command = hanging("    ", f"python -m multigpu page {path} {plan.wish.name}")
    return _text([*_first(plan), "", *more, *command])


def headline(plan: Plan) -> str:
    """What was chosen, in one line."""
    chosen = plan.chosen
    return printable(
        f"{plan.wish.name} on {plan.host}: {runtime_name(chosen.runtime)}, {split(chosen)}, "
        f"{cards(chosen.gpus)}"
    )


def explain_refusal(error: NoPlan, host_name: str) -> str:
    """What was tried and why it fell, to stand above the line of `error`; empty if nothing was."""
    return _text(refused.lines(error, host_name))


def _first(plan: Plan) -> Iterator[str]:
    yield from wrap(headline(plan), WIDTH, subsequent_indent="  ")
    yield from asked.asked(plan)
    yield from memory.section(plan)
    yield from speed.section(plan)
    yield from _reasons("Why", plan.reasons)
    yield from alternatives.section(plan)
    yield from _reasons("Warnings", plan.warnings)


def _rest(plan: Plan) -> Iterator[str]:
    yield from _justification(plan)
    yield from overturn.section(plan)
    if plan.assumptions:
        yield from heading("The numbers assume")
        yield from bullets(plan.assumptions)
    yield from flags.section(plan)
    yield from refusals.section(refusals.of(plan.rejected))


def _justification(plan: Plan) -> Iterator[str]:
    found = plan.justification
    if found is not None and found.sentences:
        cards_beyond = "the second card" if found.usable == 2 else "more than one card"
        yield from heading(f"Does this model justify {cards_beyond}?")
        yield from bullets(found.sentences)


def _reasons(title: str, reasons: Iterable[Reason]) -> Iterator[str]:
    texts = [sentence(reason) for reason in reasons]
    if texts:
        yield from heading(title)
        yield from bullets(texts)


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
