"""Why there is no plan, in one line: what was found, what stands against the nearest way."""

from __future__ import annotations

from multigpu import rules
from multigpu.choice.nearest import nearest
from multigpu.hardware import Host
from multigpu.labels import cards, label
from multigpu.plan import ModelSpec, Rejected, Wish
from multigpu.rule_list import COMPARED


def refusal(host: Host, model: ModelSpec, wish: Wish, rejected: list[Rejected]) -> str:
    """One line: what was found, what stands against the nearest way, what to do."""
    start, broken = f"{host.name}: no plan for {wish.name}", _broken(host)
    if not rejected:
        count = f"{len(host.gpus)} card{'' if len(host.gpus) == 1 else 's'}"
        found = f"{count}, none usable" if host.gpus else "no GPU was found"
        return "; ".join([f"{start}: {found}", *broken, "do: look at it with deploys/survey.py"])
    closest = nearest(rejected)
    reason = closest.reasons[0]
    against = reason.found
    if reason.needed is not None and reason.rule not in COMPARED:
        against += f", needs {reason.needed}"
    ways = f"{len(rejected)} way{'' if len(rejected) == 1 else 's'}"
    parts = [
        f"{start}: none of {ways} to serve {model.name} holds",
        f"nearest is {label(closest.candidate)}: {against}",
        *(f"left out {card}" for card in broken),
        *([f"do: {reason.hint}"] if reason.hint else []),
    ]
    return "; ".join(parts)


def _broken(host: Host) -> list[str]:
    """`GPU 0, 1: cut into MIG slices`, one text per defect."""
    found: dict[str, list[int]] = {}
    for gpu in host.gpus:
        if gpu not in host.usable:
            found.setdefault(rules.defect(gpu), []).append(gpu.index)
    return [f"{cards(indices)}: {defect}" for defect, indices in found.items()]
