"""The units that react beyond a restart, and root's file of what they may do; only where wished.

`reactions = {"gpu_reset": True, "reboot": False}` in the inventory. The file names each service's
account, units and cards, so that nothing of it has to be believed to a request.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from multigpu import devices, devices_unit
from multigpu.errors import MultigpuError
from multigpu.hardware import Host
from multigpu.plan import Plan
from multigpu.sandbox import Sandbox
from multigpu.unit_text import environment
from multigpu.units import CONFIG_DIRECTORY, UNIT_DIRECTORY, RenderedUnit, TextFile, account

SERVICE, PATH = "multigpu-react.service", "multigpu-react.path"
TEMPLATES = {SERVICE: "multigpu-react.service.j2", PATH: "multigpu-react.path.j2"}
TRUTH = f"{CONFIG_DIRECTORY}/reactions.json"
FLAG = "/run/multigpu/reactions"
FILES = (TRUTH, *(f"{UNIT_DIRECTORY}/{name}" for name in TEMPLATES))
ACTIONS = ("gpu_reset", "reboot")
SCHEMA = 1
LIMIT_S = 900
"""Above 120 s each for stopping and for resetting a card, with several of them."""
OFF = (
    "reactions beyond a restart are off: a card that needs a reset, or a host that needs a reboot, "
    "waits for a person (docs/reactions.md)"
)
SANDBOX = Sandbox(
    devices=tuple(dict.fromkeys((*devices.CUDA_DEVICES, *devices.HIP_DEVICES))),
    # nvidia's driver resets for CAP_SYS_ADMIN alone; requests lie in directories of other users;
    # who holds a card is seen in /proc; what a service left on it is killed.
    capabilities=("CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE", "CAP_KILL"),
    write_execute="whether nvidia-smi does without is not known",
)


@dataclass(frozen=True)
class ReactUnits:
    """Root's file and both units as text."""

    files: tuple[TextFile, ...]


def allowed(given: object) -> frozenset[str]:
    """What `reactions` of the inventory allows; empty where it is off. Raises MultigpuError."""
    if given is None or given is False:
        return frozenset()
    if not isinstance(given, Mapping):
        raise MultigpuError(f"reactions is {given!r}: write {{'gpu_reset': True, 'reboot': False}}")
    for key, value in given.items():
        if key not in ACTIONS:
            raise MultigpuError(f"reactions: {key!r} is none of {', '.join(ACTIONS)}")
        if not isinstance(value, bool):
            raise MultigpuError(f"reactions: {key} is {value!r}: True or False is needed")
    return frozenset(key for key, value in given.items() if value)


def line(allow: frozenset[str]) -> str:
    """What screens say about it."""
    if not allow:
        return OFF
    on = " and ".join(action for action in ACTIONS if action in allow)
    return f"reactions beyond a restart are on: {on} (2 resets, 1 reboot a day, then a fence)"


def render(
    machine: Host,
    plans: Iterable[Plan],
    units: Iterable[RenderedUnit],
    *,
    allow: frozenset[str],
    host_program: str,
    templates: Mapping[str, str],
) -> ReactUnits:
    """Both units and root's file for the services of a host."""
    names = tuple(plan.wish.name for plan in plans)
    truth = TextFile(TRUTH, _truth(machine, names, tuple(units), allow))
    values = {
        "plan_file": f"plans/{machine.name}.yaml",
        "services": names,
        "argv": ("/usr/bin/python3", host_program, "react"),
        "limit_s": LIMIT_S,
        "sandbox": SANDBOX,
    }
    jinja = environment(templates)
    texts = (
        TextFile(f"{UNIT_DIRECTORY}/{name}", jinja.get_template(template).render(values))
        for name, template in TEMPLATES.items()
    )
    return ReactUnits((truth, *texts))


def _truth(
    machine: Host, names: tuple[str, ...], units: tuple[RenderedUnit, ...], allow: frozenset[str]
) -> str:
    services = {name: _service(machine, name, units) for name in names}
    found = {"schema": SCHEMA, "allow": sorted(allow), "services": services}
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


def _service(machine: Host, name: str, units: tuple[RenderedUnit, ...]) -> dict[str, object]:
    """Cards that have no name of their own cannot be asked for."""
    own = [unit for unit in units if unit.wish == name]
    indices = dict.fromkeys(index for unit in own for index in unit.service.gpus)
    pci = {devices_unit.card(machine, i): machine.gpu(i).pci_bus_id for i in indices}
    return {
        "user": account(name),
        "units": {
            unit.name: [
                card
                for card in dict.fromkeys(devices_unit.card(machine, i) for i in unit.service.gpus)
                if card[0] != "#"
            ]
            for unit in own
        },
        "gpus": {card: address for card, address in pci.items() if card[0] != "#"},
    }
