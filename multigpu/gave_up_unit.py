"""The unit that says aloud that a service stays down: multigpu-gave-up@.service (OnFailure=)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from multigpu.sandbox import Sandbox
from multigpu.unit_text import environment
from multigpu.units import GAVE_UP, UNIT_DIRECTORY, TextFile

TEMPLATE = "multigpu-gave-up@.service.j2"
SANDBOX = Sandbox(
    capabilities=("CAP_SETUID", "CAP_SETGID"),
    system_calls=("@setuid",),
    system_calls_why="It becomes the user whose state file it marks.",
)


@dataclass(frozen=True)
class GaveUpUnit:
    """The unit as text."""

    files: tuple[TextFile, ...]
    name: str = GAVE_UP


def render(host: str, *, host_program: str, templates: Mapping[str, str]) -> GaveUpUnit:
    """The unit for all services of a host."""
    values = {
        "plan_file": f"plans/{host}.yaml",
        "argv": ("/usr/bin/python3", host_program, "gave-up"),
        "sandbox": SANDBOX,
    }
    text = environment(templates).get_template(TEMPLATE).render(values)
    return GaveUpUnit((TextFile(f"{UNIT_DIRECTORY}/{GAVE_UP}", text),))
