"""The unit that looks for the cards before any service starts: multigpu-devices.service."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from multigpu import devices
from multigpu.hardware import Host, Vendor
from multigpu.plan import Plan
from multigpu.sandbox import Sandbox
from multigpu.unit_text import environment
from multigpu.units import UNIT_DIRECTORY, TextFile

NAME = "multigpu-devices.service"
TEMPLATE = "multigpu-devices.service.j2"
READY = "/run/multigpu-devices"
"""Below it lies a file for each service whose cards are there (multigpu.host.devices)."""
LIMIT_S = 150
"""Above what the program takes at most: 30 s of waiting and four commands of 20 s."""
SANDBOX = Sandbox(
    devices=None,
    capabilities=("CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_MKNOD", "CAP_CHOWN", "CAP_FOWNER"),
    loads_modules=True,
    write_execute="whether nvidia-smi does without is not known",
    system_calls=("@module", "mknod", "mknodat", "@chown", "@setuid"),
    system_calls_why="A driver is loaded and its device files are made.",
)


@dataclass(frozen=True)
class DevicesUnit:
    """The unit as text; `services` are those that it looks for cards for."""

    files: tuple[TextFile, ...]
    services: tuple[str, ...]
    name: str = NAME


def render(
    machine: Host, plans: Iterable[Plan], *, host_program: str, templates: Mapping[str, str]
) -> DevicesUnit:
    """The unit for all services of a host."""
    each = {plan.wish.name: wanted(machine, plan) for plan in plans}
    argv = ("/usr/bin/python3", host_program, "devices")
    values = {
        "plan_file": f"plans/{machine.name}.yaml",
        "services": tuple(each),
        "argv": (*argv, *(f"{name}={','.join(words)}" for name, words in each.items())),
        "limit_s": LIMIT_S,
        "sandbox": SANDBOX,
    }
    text = environment(templates).get_template(TEMPLATE).render(values)
    return DevicesUnit((TextFile(f"{UNIT_DIRECTORY}/{NAME}", text),), tuple(each))


def wanted(machine: Host, plan: Plan) -> tuple[str, ...]:
    """What must be there for a plan: its cards, and device files where they are no simulated ones.

    An NVIDIA card is named by its UUID (by its index where that is unknown), another one by its PCI
    address.
    """
    cards = tuple(card(machine, index) for index in dict.fromkeys(plan.chosen.gpus))
    return (*cards, *(() if plan.simulated else devices.nodes(plan)))


def card(machine: Host, index: int) -> str:
    """How a card is named in units: by UUID, by `#index` where that is unknown, AMD by address."""
    gpu = machine.gpu(index)
    if gpu.vendor is not Vendor.NVIDIA and gpu.pci_bus_id is not None:
        return gpu.pci_bus_id.lower()
    return gpu.uuid or f"#{index}"
