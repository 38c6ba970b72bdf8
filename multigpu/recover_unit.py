"""The unit that completes at boot what a power cut left unfinished: multigpu-recover.service."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from multigpu.generation import Unit
from multigpu.transaction import DIRECTORY
from multigpu.unit_text import environment
from multigpu.units import UNIT_DIRECTORY, TextFile

NAME = "multigpu-recover.service"
TEMPLATE = "multigpu-recover.service.j2"


@dataclass(frozen=True)
class RecoverUnit:
    """The unit as text."""

    files: tuple[TextFile, ...]
    name: str = NAME


def render(
    host: str, units: Iterable[Unit], *, host_program: str, templates: Mapping[str, str]
) -> RecoverUnit:
    """The unit of a host, which systemd starts before any of `units`."""
    values = {
        "plan_file": f"plans/{host}.yaml",
        "before": tuple(unit.name for unit in units),
        "state_file": f"{DIRECTORY}/state.json",
        "argv": ("/usr/bin/python3", host_program, "transact", "recover", "--boot"),
    }
    text = environment(templates).get_template(TEMPLATE).render(values)
    return RecoverUnit((TextFile(f"{UNIT_DIRECTORY}/{NAME}", text),))
