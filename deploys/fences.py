"""What deploys say and refuse about fences and reactions beyond a restart."""

from __future__ import annotations

from collections.abc import Iterable

from pyinfra import host

from deploys.assembly import program
from deploys.common import TEMPLATES, privilege
from facts.reactions import TIMEOUT_S, Reactions, ReactionsSeen
from multigpu import react_unit
from multigpu.errors import MultigpuError
from multigpu.hardware import Host
from multigpu.host.unfence import described
from multigpu.plan import Plan
from multigpu.react_unit import ReactUnits
from multigpu.store import texts
from multigpu.units import RenderedUnit

DO = "pyinfra INVENTORY deploys/unfence.py, once that is mended"


def reactions_if_said() -> ReactionsSeen | None:
    """Fences and units of this host; None when it does not say."""
    found: ReactionsSeen | None = host.get_fact(Reactions, _timeout=TIMEOUT_S, **privilege())
    return found


def reactions_seen() -> ReactionsSeen:
    """Fences and units of this host. Raises MultigpuError when it does not say."""
    found = reactions_if_said()
    if found is None:
        raise MultigpuError("the host did not say what is fenced: see that python3 runs there")
    return found


def refuse_fenced(seen: ReactionsSeen, services: Iterable[str]) -> None:
    """Raises MultigpuError on a fenced host, or when one of these services is fenced."""
    if seen.host is not None:
        raise MultigpuError(f"the host is fenced: {described(seen.host)}; do: {DO}")
    for name in services:
        if name in seen.services:
            said = described(seen.services[name])
            raise MultigpuError(f"{name} is fenced: {said}; do: {DO}")


def fence_lines(seen: ReactionsSeen) -> list[str]:
    """A line for each fence, for screens."""
    fences = [] if seen.host is None else [("the host", seen.host)]
    fences += seen.services.items()
    return [f"! {name} is fenced: {described(said)}; do: {DO}" for name, said in fences]


def reactions_line() -> str:
    """Off or on, as the inventory says. Raises MultigpuError when it says neither."""
    return react_unit.line(react_unit.allowed(host.data.get("reactions")))


def reactions_wanted(
    machine: Host, plans: tuple[Plan, ...], units: tuple[RenderedUnit, ...]
) -> ReactUnits | None:
    """Both units and root's file; None where the inventory allows nothing."""
    allow = react_unit.allowed(host.data.get("reactions"))
    if not allow:
        return None
    return react_unit.render(
        machine,
        plans,
        units,
        allow=allow,
        host_program=program().path,
        templates=texts.templates(TEMPLATES),
    )
