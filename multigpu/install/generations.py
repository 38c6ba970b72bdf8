"""Which runtime directories a host keeps: those that serve, and of each service the one before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from multigpu.hardware import Host
from multigpu.install.recipe import Recipe
from multigpu.managed import Generation

Wanted = Mapping[str, Recipe]
"""Name of each service -> the recipe that it runs from."""


def record_of(machine: Host, wanted: Wanted) -> tuple[Generation, ...]:
    """What the host's records should say once these recipes serve, by service.

    The directory before is the one that served until now, as the host's record has it. A service
    whose runtime the operator installed has no record.
    """
    return tuple(_next(machine, service, wanted[service]) for service in sorted(_ours(wanted)))


def _ours(wanted: Wanted) -> Iterable[str]:
    return (service for service, recipe in wanted.items() if recipe.directory is not None)


def _next(machine: Host, service: str, recipe: Recipe) -> Generation:
    found = next((g for g in machine.generations if g.service == service), None)
    if found is None or found.current is None:
        return Generation(service, recipe.name, None)
    if found.current == recipe.name:
        return found
    return Generation(service, recipe.name, found.current)


def keep(records: Iterable[Generation]) -> tuple[str, ...]:
    """Names of the directories that stay, sorted."""
    names = {name for record in records for name in (record.current, record.previous)}
    return tuple(sorted(name for name in names if name is not None))


def obsolete(machine: Host, kept: Iterable[str]) -> tuple[str, ...]:
    """Runtime directories of the host that no record keeps, but those that are just installed."""
    stay = set(kept)
    gone = [name for name in machine.runtimes or () if name not in stay]
    return tuple(name for name in gone if not _installing(machine, name))


def _installing(machine: Host, name: str) -> bool:
    unit = machine.unit(f"multigpu-install-{name}.service")
    return unit is not None and unit.active_state in ("active", "activating")


def prune_needed(machine: Host, wanted: Wanted, stay: Iterable[str] = ()) -> bool:
    """True when this run installs something, or the host's records or directories are others.

    `stay` are directories that something else needs.
    """
    records = record_of(machine, wanted)
    installs = any(r.stamp and machine.file(r.stamp) is None for r in wanted.values())
    differ = set(records) != set(machine.generations)
    return (
        installs
        or differ
        or bool(obsolete(machine, (*keep(records), *stay)))
        or _leftovers(machine)
    )


def _leftovers(machine: Host) -> bool:
    """Locks and wheels of runtimes whose installation is complete."""
    complete = {name for name in machine.runtimes or () if _stamped(machine, name)}
    parts = (file.path.split("/") for file in machine.files)
    return any(p[:4] == ["", "opt", "multigpu", "wheels"] and p[4] in complete for p in parts)


def _stamped(machine: Host, name: str) -> bool:
    return machine.file(f"/opt/multigpu/runtimes/{name}/installed") is not None
