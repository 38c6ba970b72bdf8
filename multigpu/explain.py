"""The plan screen: what was chosen, how full each card gets, why, and what lost to it.

Plain text of at most 80 columns. Speeds are not predicted and not shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import wrap

from multigpu.errors import NoPlan
from multigpu.labels import cards, label, of, runtime_name, size, split
from multigpu.plan import Candidate, Memory, Plan, Reason, Rejected
from multigpu.planner import COMPARED
from multigpu.rules import parts

WIDTH = 80
INDENT = 12
MOST_REJECTED = 8
IN_HEADLINE = ("CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
"""Settings that repeat the cards of the headline; they stand in the plan file."""


def explain(plan: Plan) -> str:
    """The screen of one plan, ending with a newline."""
    return "\n".join(_screen(plan)) + "\n"


def headline(plan: Plan) -> str:
    """What was chosen, in one line."""
    chosen = plan.chosen
    return (
        f"{plan.wish.name} on {plan.host}: {runtime_name(chosen.runtime)}, {split(chosen)}, "
        f"{cards(chosen.gpus)}"
    )


def _screen(plan: Plan) -> Iterator[str]:
    chosen = plan.chosen
    yield from wrap(headline(plan), WIDTH, subsequent_indent="  ")
    if plan.simulated:
        yield from _row("simulated", "the GPUs of this host are simulated")
    yield from _row("model", _model(plan))
    yield from _row(
        "wish",
        f"{plan.workload.objective}, context {plan.workload.context:,}, "
        f"{plan.workload.concurrency} request(s)",
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
    settings = (s for s in plan.environment if s.name not in IN_HEADLINE)
    yield from _lines("set", (f"{s.name}={s.value}: {s.why}" for s in settings))


def _model(plan: Plan) -> str:
    model = plan.model
    kind = model.quantization or model.dtype
    return (
        f"{model.name}: {model.model_type}, {kind}, {model.num_hidden_layers} blocks, "
        f"{size(model.weights_mib)} of weights"
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
            f"{cards(indices)}: {of(memory.total_mib, memory.capacity_mib)} ({parts(memory)})"
            for memory, indices in alike.items()
        ),
    )


def _rejections(title: str, rejected: Iterable[Rejected]) -> Iterator[str]:
    """Losers of the ranking first, then those with objections; equal reasons share a line."""
    groups: dict[tuple[str, str], list[Rejected]] = {}
    for item in rejected:
        first = item.reasons[0]
        key = (item.candidate.runtime, first.rule + first.found)
        groups.setdefault(("", first.rule) if first.rule == "pinned" else key, []).append(item)
    ruled_out = groups.pop(("", "pinned"), [])
    shown = list(groups.values())
    lines = [_rejection(group) for group in shown[:MOST_REJECTED]]
    left = sum(len(group) for group in shown[MOST_REJECTED:])
    if left:
        lines.append(f"and {left} more, each with its reason in the plan file")
    if ruled_out:
        lines.append(f"{_ways(len(ruled_out))} that the pins rule out [pinned]")
    yield from _lines(title, lines)


def _ways(count: int) -> str:
    return "1 way" if count == 1 else f"{count} ways"


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
    needed = f"; needs {reason.needed}" if reason.needed and reason.rule not in COMPARED else ""
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


def explain_refusal(error: NoPlan, host_name: str) -> str:
    """What was tried and why it fell, to stand above the line of `error`; empty if nothing was."""
    if not error.rejected:
        return ""
    lines = wrap(f"{error.service} on {host_name}: no plan", WIDTH)
    lines += _rejections("tried", error.rejected)
    return "\n".join(lines) + "\n"
