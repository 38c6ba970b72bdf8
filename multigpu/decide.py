"""Which plans hold for a host: the reviewed ones, and new ones where the wish changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from multigpu import listening, planfile
from multigpu.errors import MultigpuError
from multigpu.hardware import Host
from multigpu.plan import ModelSpec, Plan, Wish
from multigpu.planner import plan
from multigpu.speed.measured import Measurement
from multigpu.wish import wishes


@dataclass(frozen=True)
class Decision:
    """The plans of one host and the text of its plan file."""

    plans: tuple[Plan, ...]
    text: str


def decide(
    machine: Host,
    services: Mapping[str, Any],
    *,
    existing: str | None,
    path: str,
    load_model: Callable[[Wish], ModelSpec],
    anew: bool = False,
    measured: Sequence[Measurement] = (),
) -> Decision:
    """Plans for all services. `existing` is the plan file's text, `anew` plans even what holds.

    `measured` are results of this host; they replace predictions in plans that are made now.

    A stored plan is kept as long as the wish, pins included, is the one it was made for; then its
    cards must still be there. What is served is what the file says, to the last rounded digit.
    Raises MultigpuError in one line when something does not hold.
    """
    planfile.check(existing, path)
    stored = {} if anew else planfile.read(existing, path)
    plans = []
    for wish in wishes(pinned(services, planfile.pins(existing, path), path)):
        kept = stored.get(wish.name)
        if kept is None or not same_wish(kept.wish, wish):
            kept = plan(machine, load_model(wish), wish, measured=measured)
        elif kept.wish.switch_runtime != wish.switch_runtime:
            kept = replace(kept, wish=replace(kept.wish, switch_runtime=wish.switch_runtime))
        check_cards(machine, kept, path)
        plans.append(kept)
    check_names(plans)
    check_ports(plans)
    if existing is not None and {each.wish.name: each for each in plans} == stored:
        return Decision(tuple(plans), existing)
    text = planfile.write(machine.name, plans, existing, path)
    written = planfile.read(text, path)
    return Decision(tuple(written[each.wish.name] for each in plans), text)


def pinned(
    services: Mapping[str, Any], pins: Mapping[str, Mapping[str, Any]], path: str
) -> dict[str, Any]:
    """The inventory's services with the pins of the plan file on top."""
    unknown = [name for name, values in pins.items() if values and name not in services]
    if unknown:
        raise MultigpuError(
            f"{path}: pins for {', '.join(unknown)}, which the inventory does not ask for: "
            "remove them or add the service"
        )
    return {
        name: {**wished, **pins.get(name, {})} if isinstance(wished, Mapping) else wished
        for name, wished in services.items()
    }


def same_wish(old: Wish, new: Wish) -> bool:
    """Equal but for the Mapping types that a file gives back, and for what no plan follows from."""
    return (dict(old.flags), dict(old.env)) == (dict(new.flags), dict(new.env)) and all(
        getattr(old, name) == getattr(new, name)
        for name in old.__dataclass_fields__
        if name not in ("flags", "env", "switch_runtime")
    )


def check_cards(machine: Host, kept: Plan, path: str) -> None:
    """The planned cards are still there, by UUID, and where the plan has them by address.

    Raises MultigpuError naming the one that is not.
    """
    here = {gpu.index: gpu for gpu in machine.usable}
    for index, uuid in zip(kept.chosen.gpus, kept.gpu_uuids, strict=True):
        gpu = here.get(index)
        if gpu is None or (uuid is not None and gpu.uuid != uuid):
            found = f"{gpu.name} {gpu.uuid}" if gpu else "no usable card"
            raise MultigpuError(
                f"{path} plans GPU {index} as {uuid}, {machine.name} has {found} there: "
                "review with deploys/plan.py"
            )
    for index, address in zip(kept.chosen.gpus, kept.gpu_addresses, strict=False):
        if here[index].pci_bus_id != address:
            raise MultigpuError(
                f"{path} plans GPU {index} at {address}, on {machine.name} it is at "
                f"{here[index].pci_bus_id}: review with deploys/plan.py"
            )


def check_names(plans: Iterable[Plan]) -> None:
    """No two services give their units the same name. Raises MultigpuError."""
    names: dict[str, str] = {}
    for each in plans:
        for name in unit_names(each):
            if names.setdefault(name, each.wish.name) != each.wish.name:
                raise MultigpuError(
                    f"{each.host}: {names[name]} and {each.wish.name} both have a process named "
                    f"{name}: name one of them otherwise"
                )


def unit_names(each: Plan) -> tuple[str, ...]:
    """`chat`, or `chat-0`, `chat-1` for replicas."""
    if each.chosen.replicas == 1:
        return (each.wish.name,)
    return tuple(f"{each.wish.name}-{number}" for number in range(each.chosen.replicas))


def check_ports(plans: Iterable[Plan]) -> None:
    """No two services of a host share a port or a card. Raises MultigpuError."""
    ports: dict[int, str] = {}
    cards: dict[int, str] = {}
    for each in plans:
        name = each.wish.name
        for port in listening.ports(each):
            if port in ports:
                other = "its endpoint" if ports[port] == name else name
                raise MultigpuError(
                    f"{each.host}: {ports[port]} and {other} both use port {port}: set another port"
                )
            ports[port] = name
        for card in each.chosen.gpus:
            if cards.setdefault(card, name) != name:
                raise MultigpuError(
                    f"{each.host}: {cards[card]} and {name} both use GPU {card}: pin gpus of each"
                )
