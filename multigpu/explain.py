"""The plan screen: what was chosen, how full each card gets, why, and what lost to it.

Plain text of at most 80 columns. Speeds are not predicted and not shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import wrap

from multigpu.errors import NoPlan
from multigpu.labels import cards, gib, label, runtime_name, split
from multigpu.plan import Candidate, Memory, Plan, Reason, Rejected
from multigpu.rules import parts

WIDTH = 80
INDENT = 12
MOST_REJECTED = 8
SAID = {"memory-fit", "ranked-lower"}
"""Rules whose `found` already compares with what is needed."""


def explain(plan: Plan) -> str:
    """The screen of one plan, ending with a newline."""
    return "\n".join(_screen(plan)) + "\n"


def _screen(plan: Plan) -> Iterator[str]:
    chosen = plan.chosen
    yield from wrap(
        f"{plan.wish.name} on {plan.host}: {runtime_name(chosen.runtime)}, {split(chosen)}, "
        f"{cards(chosen.gpus)}",
        WIDTH,
        subsequent_indent="  ",
    )
    if plan.simulated:
        yield from _row("simulated", "the GPUs of this host are simulated")
    yield from _row("model", _model(plan))
    yield from _row(
        "wish",
        f"{plan.wish.objective}, context {plan.wish.context:,}, {plan.wish.concurrency} requests",
    )
    yield from _memory(chosen)
    if chosen.kv_tokens is not None:
        of = " per engine" if chosen.replicas > 1 else ""
        yield from _row("predicted", f"KV cache for {chosen.kv_tokens:,} tokens{of}")
    if plan.pinned:
        yield from _row("pinned", ", ".join(_pin(plan, key) for key in plan.pinned))
    yield from _rows("why", plan.reasons)
    yield from _rejections("instead", plan.rejected)
    yield from _rows("warning", plan.warnings)
    yield from _lines("set", (f"{s.name}={s.value}: {s.why}" for s in plan.environment))


def _model(plan: Plan) -> str:
    model = plan.model
    kind = model.quantization or model.dtype
    return (
        f"{model.name}: {model.model_type}, {kind}, {model.num_hidden_layers} blocks, "
        f"{gib(model.weights_mib)} GiB of weights"
    )


def _pin(plan: Plan, key: str) -> str:
    value = getattr(plan.wish, key)
    if hasattr(value, "items"):
        return f"{key} {' '.join(value)}"
    if isinstance(value, tuple):
        return f"{key} {','.join(str(item) for item in value)}"
    return f"{key} {value}"


def _memory(chosen: Candidate) -> Iterator[str]:
    """A line per card; cards that are filled alike share one."""
    alike: dict[Memory, list[int]] = {}
    for index, memory in zip(chosen.gpus, chosen.memory, strict=True):
        alike.setdefault(memory, []).append(index)
    yield from _lines(
        "memory",
        (
            f"{cards(indices)}: {gib(memory.total_mib)} of {gib(memory.capacity_mib)} GiB "
            f"({parts(memory)})"
            for memory, indices in alike.items()
        ),
    )


def _rejections(title: str, rejected: Iterable[Rejected]) -> Iterator[str]:
    """Losers of the ranking first, then those with objections; equal reasons share a line."""
    groups: dict[tuple[str, str], list[Rejected]] = {}
    for item in rejected:
        first = item.reasons[0]
        groups.setdefault((item.candidate.runtime, first.rule + first.found), []).append(item)
    shown = list(groups.values())
    lines = [_rejection(group) for group in shown[:MOST_REJECTED]]
    left = sum(len(group) for group in shown[MOST_REJECTED:])
    if left:
        lines.append(f"and {left} more, each with its reason in the plan file")
    yield from _lines(title, lines)


def _rejection(group: list[Rejected]) -> str:
    """One candidate, or the runtime and how many of its candidates, with the first reason."""
    first = group[0]
    name = label(first.candidate)
    if len(group) > 1:
        name = f"{name} and {len(group) - 1} more"
    reason = first.reasons[0]
    more = len(first.reasons) - 1
    also = f" (and {more} more objection{'s' if more > 1 else ''})" if more else ""
    return f"{name}: {_sentence(reason)}{also}"


def _sentence(reason: Reason) -> str:
    """Found, needed and the rule; the hint where there is one."""
    needed = f"; needs {reason.needed}" if reason.needed and reason.rule not in SAID else ""
    hint = f"; {reason.hint}" if reason.hint else ""
    return f"{reason.found}{needed}{hint} [{reason.rule}]"


def _rows(title: str, reasons: Iterable[Reason]) -> Iterator[str]:
    yield from _lines(title, (_sentence(reason) for reason in reasons))


def _lines(title: str, texts: Iterable[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        yield from _row(title if number == 0 else "", text)


def _row(title: str, text: str) -> Iterator[str]:
    lead = f"  {title}".ljust(INDENT)
    yield from wrap(
        text,
        WIDTH,
        initial_indent=lead,
        subsequent_indent=" " * (INDENT + 2),
        break_on_hyphens=False,
    )


def explain_refusal(error: NoPlan, host_name: str, service: str) -> str:
    """The screen of a host without a plan: every way that was tried and why it fell."""
    lines = wrap(f"{service} on {host_name}: no plan", WIDTH)
    lines += _row("why", str(error).removeprefix(f"{host_name}: "))
    lines += _rejections("tried", error.rejected)
    hints = dict.fromkeys(
        reason.hint for item in error.rejected for reason in item.reasons if reason.hint is not None
    )
    lines += _lines("do", list(hints)[:4])
    return "\n".join(lines) + "\n"
