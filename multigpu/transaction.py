"""Generations of a host's services, for the controller: what a deploy hands over, what a host says.

A generation is the text of all units of a host with what they read, and what its processes carry.
`multigpu.host.transaction` brings one into service; values only here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from multigpu import endpoint_seen, generation
from multigpu.endpoint import RenderedEndpoint
from multigpu.endpoint_seen import EndpointsSeen
from multigpu.generation import Deployment, Unit
from multigpu.hardware import Host
from multigpu.units import CONFIG_DIRECTORY, UNIT_DIRECTORY, RenderedUnit

UNIT = "multigpu-transaction.service"
STATUS, DONE = "/run/multigpu-transaction.json", "/run/multigpu-transaction.done"
DIRECTORY = f"{CONFIG_DIRECTORY}/generations"
READY, GOOD = "ready", "good"


@dataclass(frozen=True)
class Seen:
    """What a host says of its generations.

    `current` is in place, `previous` is what rollback returns to; `status` of the current one is
    `ready` on trial, `good` when verified. `busy`: a transaction works just now, and `line` says
    how far it is; `unfinished`: one was cut short. `runtimes` are those that kept generations
    need; `lock` the mark of the last deploy. `plan` is the plan file of `previous`.
    """

    current: int | None = None
    previous: int | None = None
    status: str | None = None
    rolled_back_from: int | None = None
    busy: bool = False
    line: str | None = None
    unfinished: bool = False
    runtimes: Mapping[int, tuple[str, ...]] | None = None
    lock: str = ""
    plan: str | None = None
    plan_of_current: str | None = None

    @property
    def on_trial(self) -> bool:
        """True when the generation in place answers and was not verified yet."""
        return self.status == READY


def read(text: str) -> Seen | None:
    """The fact's JSON as a value, None when it is none."""
    try:
        found = json.loads(text)
        state = found["state"]
        current, rows = state.get("current"), state.get("generations") or {}
        row = rows.get(str(current)) or {}
        kept = {int(n): tuple(map(str, names)) for n, names in found["runtimes"].items()}
        plans = found["plans"]
        return Seen(
            current,
            row.get("previous"),
            row.get("status"),
            state.get("rolled_back_from"),
            bool(found["busy"]),
            found.get("line"),
            bool(state.get("unfinished")),
            kept,
            str(found["lock"]),
            plans.get(str(row.get("previous"))),
            plans.get(str(current)),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


@dataclass(frozen=True)
class Wanted:
    """All that one host is to hold: engines in the order in which they start, endpoints, and units
    that no process of a service runs in. `enabled` are those of `others` that boot starts."""

    deployments: tuple[Deployment, ...]
    others: tuple[Unit, ...]
    enabled: tuple[str, ...]
    program: str
    plan_text: str

    @property
    def units(self) -> tuple[RenderedUnit, ...]:
        """Processes of all services."""
        return tuple(unit for deployment in self.deployments for unit in deployment.units)

    @property
    def endpoints(self) -> tuple[RenderedEndpoint, ...]:
        """Those that serve."""
        return tuple(d.endpoint for d in self.deployments if d.endpoint is not None)

    @property
    def all(self) -> tuple[Unit, ...]:
        """Every unit, with all that they read."""
        return (*self.others, *self.endpoints, *self.units)


@dataclass(frozen=True)
class Change:
    """Why a transaction is needed, for people; what only the controller knows, for the host.

    `restart` names units of engines, `renew` endpoints and how, `obsolete` files of units that no
    service has any more.
    """

    reasons: tuple[str, ...]
    restart: tuple[str, ...]
    renew: Mapping[str, str]
    obsolete: tuple[str, ...]


def change(machine: Host, endpoints: EndpointsSeen, seen: Seen, wanted: Wanted) -> Change | None:
    """What differs between a host and what is wanted; None when nothing does.

    What decides is what the host holds and runs now, not what an earlier run did.
    """
    files = generation.files_to_install(machine, wanted.all)
    reasons = [f"{file.path} is to be written" for file in files]
    names = generation.obsolete_units(machine, wanted.all)
    reasons += [f"{name} goes" for name in names]
    if generation.needs_reload(machine, wanted.all):
        reasons.append("systemd has not read a unit file")
    enabled: list[Unit] = [*wanted.units, *wanted.endpoints]
    enabled += [unit for unit in wanted.others if unit.name in wanted.enabled]
    for unit in enabled:
        if generation.needs_enable(machine, unit):
            reasons.append(f"{unit.name} is not started at boot")
    restart = {u.name: why for u in wanted.units if (why := generation.restart_reason(machine, u))}
    reasons += [f"{name}: {why}" for name, why in restart.items()]
    waits = [u.name for u in wanted.units if u.name not in restart and generation.waits(machine, u)]
    reasons += [f"{name} is loading" for name in waits]
    renew, whys = _renew(machine, endpoints, wanted.endpoints)
    reasons += whys
    if seen.unfinished:
        reasons.append("a transaction was cut short")
    obsolete = tuple(path for name in names for path in files_of(name))
    return Change(tuple(reasons), tuple(restart), renew, obsolete) if reasons else None


def _renew(
    machine: Host, seen: EndpointsSeen, endpoints: Iterable[RenderedEndpoint]
) -> tuple[dict[str, str], list[str]]:
    verbs, whys = {}, []
    for endpoint in endpoints:
        why, verb = endpoint_seen.restart_reason(machine, endpoint), "restart"
        if why is None:
            why, verb = endpoint_seen.reload_reason(machine, seen, endpoint), "reload"
        if why is not None:
            verbs[endpoint.name] = verb
            whys.append(f"{endpoint.name}: {why}")
    return verbs, whys


def files_of(unit: str) -> tuple[str, ...]:
    """What goes with a unit of a service that is gone."""
    service = unit.removeprefix("multigpu-").removesuffix(".service")
    texts = (f"{CONFIG_DIRECTORY}/{service}.env", f"{CONFIG_DIRECTORY}/{service}.cfg")
    return (f"{UNIT_DIRECTORY}/{unit}", *texts)


def in_order(machine: Host, wanted: Wanted) -> tuple[RenderedUnit, ...]:
    """The last first where a new endpoint takes the port of the first, and all move up by one."""
    moving = {
        unit.wish
        for unit in wanted.units
        if endpoint_seen.is_new(machine, wanted.endpoints, unit.wish)
    }
    last = [unit for unit in reversed(wanted.units) if unit.wish in moving]
    return (*(unit for unit in wanted.units if unit.wish not in moving), *last)


def document(machine: Host, wanted: Wanted, changed: Change) -> str:
    """The generation as JSON, as `multigpu.host.transaction` takes it."""
    files = [
        {"path": file.path, "mode": file.mode, "content": file.content}
        for unit in wanted.all
        for file in unit.files
    ]
    names = [*(unit.name for unit in wanted.units), *(e.name for e in wanted.endpoints)]
    text = json.dumps(files, sort_keys=True)
    return json.dumps(
        {
            "digest": hashlib.sha256(text.encode()).hexdigest(),
            "plan_digest": hashlib.sha256(wanted.plan_text.encode()).hexdigest(),
            "plan": wanted.plan_text,
            "files": files,
            "units": [_unit(unit) for unit in in_order(machine, wanted)],
            "endpoints": [_endpoint(endpoint) for endpoint in wanted.endpoints],
            "enable": [*names, *wanted.enabled],
            "requires": requires(wanted),
            "runtimes": sorted(runtimes(wanted)),
            "told": {
                "restart": changed.restart,
                "renew": changed.renew,
                "obsolete": changed.obsolete,
            },
        }
    )


def _unit(unit: RenderedUnit) -> dict[str, Any]:
    return {
        "name": unit.name,
        "wish": unit.wish,
        "revision": unit.revision,
        "command_sha256": unit.command_sha256 if unit.argv else None,
        "start_s": unit.start_s,
        "gpus": unit.service.gpus,
        "port": unit.service.port,
        "server": unit.service.name,
    }


def _endpoint(endpoint: RenderedEndpoint) -> dict[str, Any]:
    return {
        "name": endpoint.name,
        "wish": endpoint.wish,
        "revision": endpoint.revision,
        "config_revision": endpoint.config_revision,
        "socket": endpoint.socket,
        "servers": endpoint.servers,
    }


def requires(wanted: Wanted) -> list[str]:
    """Paths without which the generation cannot start: programs, secrets, models."""
    secrets = [path for unit in wanted.units for path in unit.credentials]
    secrets += [path for endpoint in wanted.endpoints for path in endpoint.secrets]
    programs = [deployment.recipe.executable for deployment in wanted.deployments]
    models = [upload.path for deployment in wanted.deployments for upload in deployment.models]
    models += [d.fetch.stamp for d in wanted.deployments if d.fetch is not None]
    return list(dict.fromkeys((wanted.program, *programs, *secrets, *models)))


def runtimes(wanted: Wanted) -> set[str]:
    """Names of the runtime directories of ours that the generation runs from."""
    return {d.recipe.name for d in wanted.deployments if d.recipe.directory is not None}


def kept_runtimes(seen: Seen, wanted: Wanted, changed: Change | None) -> tuple[str, ...]:
    """Runtimes that generations need once this run is through: they are not pruned."""
    kept = seen.runtimes or {}
    if changed is None:
        return tuple(sorted({name for names in kept.values() for name in names}))
    before = {name for n in (seen.current, seen.previous) for name in kept.get(n or 0, ())}
    return tuple(sorted(before | runtimes(wanted)))


def patience_s(units: Sequence[RenderedUnit], extra_s: int) -> int:
    """The longest that a transaction may take: each unit twice, there and back."""
    return sum(2 * (unit.start_s + extra_s) for unit in units) + extra_s
