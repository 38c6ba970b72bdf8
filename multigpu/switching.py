"""Which runtime a service is in use with, since when, and whether it may go over to another one.

The host keeps the answer in `/etc/multigpu/<service>.runtime.json`, which is written once the
service answers. A new version of the same runtime is no switch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from multigpu.hardware import Host
from multigpu.labels import runtime_name
from multigpu.plan import Plan
from multigpu.units import CONFIG_DIRECTORY, TextFile

SETTLED_S = 7 * 24 * 3600
"""For so long a runtime is in use before it is given up unasked: a fault or a figure that shows
under one week's load is not traded for one that nobody has seen yet."""
SUFFIX = ".runtime.json"


@dataclass(frozen=True)
class Use:
    """A service of a host, its runtime, and since when in Unix seconds."""

    service: str
    runtime: str
    since: float


def record_path(service: str) -> str:
    """The file on the host."""
    return f"{CONFIG_DIRECTORY}/{service}{SUFFIX}"


def uses(machine: Host) -> dict[str, Use]:
    """What the host keeps, by service; a record that cannot be read is none."""
    found = {}
    for file in machine.files:
        directory, _, name = file.path.rpartition("/")
        if directory == CONFIG_DIRECTORY and name.endswith(SUFFIX):
            use = _use(name.removesuffix(SUFFIX), file.content)
            if use is not None:
                found[use.service] = use
    return found


def _use(service: str, content: str | None) -> Use | None:
    try:
        value = json.loads(content or "")
        runtime, since = value["runtime"], value["since"]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(runtime, str) or isinstance(since, bool):
        return None
    return Use(service, runtime, float(since)) if isinstance(since, int | float) else None


def refusal(
    machine: Host, plans: Iterable[Plan], now: float, allowed: Collection[str] = ()
) -> str | None:
    """Why a service keeps its runtime, in one line; None where none is to be switched.

    `now` is Unix time, `allowed` names services that may be switched whatever their wish says. A
    service that does not run is in nobody's use.
    """
    known = uses(machine)
    for plan in plans:
        use = known.get(plan.wish.name)
        told = plan.wish.switch_runtime or plan.wish.name in allowed
        if use is None or told or use.runtime == plan.chosen.runtime:
            continue
        # A clock that was ahead when the record was made adds no more than the whole time.
        left = min(SETTLED_S, use.since + SETTLED_S - now)
        if left > 0 and running(machine, use.service):
            return _line(machine, plan, use, left)
    return None


def running(machine: Host, service: str) -> bool:
    """True where a process of the service answers: systemd calls it active once it does."""
    name = re.compile(rf"multigpu-{re.escape(service)}(-\d+)?\.service")
    return any(
        unit.active_state == "active" and name.fullmatch(unit.name) for unit in machine.units
    )


def _line(machine: Host, plan: Plan, use: Use, left: float) -> str:
    since = datetime.fromtimestamp(use.since, UTC).strftime("%Y-%m-%d %H:%M UTC")
    old, new = runtime_name(use.runtime), runtime_name(plan.chosen.runtime)
    why = f"{use.service} is in use with {old} since {since}, less than a week, and {new} is "
    why += "pinned" if plan.wish.runtime else "planned for its wish now"
    keep = "" if plan.wish.runtime else f"pin runtime = '{use.runtime}' to keep it, "
    return (
        f"{machine.name}: {why}: {keep}wait {_duration(left)}, or set switch_runtime = True "
        f"(once: --data switch_runtime={use.service})"
    )


def _duration(seconds: float) -> str:
    """`3 d 4 h`, at least an hour."""
    days, hours = divmod(max(1, -(-int(seconds) // 3600)), 24)
    return " ".join(f"{n} {unit}" for n, unit in ((days, "d"), (hours, "h")) if n)


def records(machine: Host, plans: Iterable[Plan], now: float) -> tuple[TextFile, ...]:
    """Files to write once the services answer: of those that the host has with another runtime."""
    known = uses(machine)
    return tuple(
        TextFile(record_path(plan.wish.name), _text(plan.chosen.runtime, now))
        for plan in plans
        if plan.wish.name not in known or known[plan.wish.name].runtime != plan.chosen.runtime
    )


def _text(runtime: str, now: float) -> str:
    return json.dumps({"runtime": runtime, "since": int(now)}) + "\n"


def unwanted(machine: Host, services: Collection[str]) -> tuple[str, ...]:
    """Records of services that are no longer served."""
    wanted = {record_path(service) for service in services}
    ours = (file.path for file in machine.files if file.path.endswith(SUFFIX))
    return tuple(path for path in ours if path not in wanted)
