"""The best ways that hold and were not chosen, their numbers beside those of the plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from multigpu import labels
from multigpu.page.text import WIDTH, hanging, heading, table
from multigpu.plan import Candidate, Estimate, Plan, Prediction, Rejected
from multigpu.rule_list import LOST

MOST = 3
NAMES = ("", "decode", "prefill", "TTFT", "TPOT", "KV tokens")
UNITS = ("", "tokens/s", "tokens/s", "ms", "ms", "per engine")


def lost(rejected: Iterable[Rejected]) -> list[Rejected]:
    """Candidates that hold, in the order of the ranking."""
    return [
        item for item in rejected if all(reason.rule in LOST.meanings for reason in item.reasons)
    ]


def best(plan: Plan) -> list[Rejected]:
    """The three best other ways; the same way over other cards is no other way."""
    kinds: dict[str, Rejected] = {}
    for item in lost(plan.rejected):
        if kind(item.candidate) != kind(plan.chosen):
            kinds.setdefault(kind(item.candidate), item)
    return list(kinds.values())[:MOST]


def kind(candidate: Candidate) -> str:
    """Runtime and split, whatever the cards."""
    return f"{labels.runtime_name(candidate.runtime)} {labels.short_split(candidate)}"


def section(plan: Plan) -> Iterator[str]:
    """A table of the plan and its alternatives, then why each lost."""
    found, everyone = best(plan), lost(plan.rejected)
    if not everyone:
        return
    more = len(everyone) - len(found)
    yield from heading("Instead" if found else "Instead: the same way over other cards")
    if found:
        yield from compared([("this plan", plan.chosen), *_numbered(found)])
    for number, item in enumerate(found, start=1):
        where = labels.cards(item.candidate.gpus)
        why = "; ".join(f"{reason.found} [{reason.rule}]" for reason in item.reasons)
        yield from hanging(f"  {number}  ", f"{where}: {why}")
    if more:
        rules = sorted({f"[{reason.rule}]" for item in everyone for reason in item.reasons})
        verb = "holds and was" if more == 1 else "hold and were"
        others = labels.counted(more, "other way" if found else "way")
        yield from hanging("  ", f"{others} {verb} not chosen {' '.join(rules)}")


def _numbered(found: list[Rejected]) -> Iterator[tuple[str, Candidate]]:
    for number, item in enumerate(found, start=1):
        yield f"{number}  {kind(item.candidate)}", item.candidate


def compared(ways: Iterable[tuple[str, Candidate]]) -> list[str]:
    """Names and numbers; a name that is too long is cut, its cards stand below."""
    rows = [[name, *_numbers(candidate)] for name, candidate in ways]
    lines = table([NAMES, UNITS, *rows], heads=2)
    room = WIDTH - max(map(len, lines))
    if room < 0:
        longest = max(len(row[0]) for row in rows) + room
        rows = [[_cut(row[0], longest), *row[1:]] for row in rows]
        lines = table([NAMES, UNITS, *rows], heads=2)
    return lines


def _cut(name: str, width: int) -> str:
    return name if len(name) <= width else name[: width - 3] + "..."


def _numbers(candidate: Candidate) -> list[str]:
    found = candidate.predicted or Prediction()
    estimates = (
        found.decode_tokens_per_s,
        found.prefill_tokens_per_s,
        found.ttft_ms,
        found.tpot_ms,
    )
    tokens = "" if candidate.kv_tokens is None else f"{candidate.kv_tokens:,}"
    return [*map(_value, estimates), tokens]


def _value(estimate: Estimate | None) -> str:
    return "" if estimate is None else labels.rounded(estimate.value)
