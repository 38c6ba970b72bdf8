"""What brings the files and processes of one generation into service, in the order that keeps
clients served: files, removed units, engines behind their endpoints, endpoints, checks.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List

from multigpu.host import transaction_endpoints as endpoints
from multigpu.host import transaction_units as units
from multigpu.host.transaction_store import Failed, Manifest, Store, remove

Say = Callable[[str], None]
Unit = Dict[str, Any]
UNITS = "/etc/systemd/system/"
SERVES_AGAIN = "the previous generation serves again"


def bring(
    store: Store,
    number: int,
    wanted: Manifest,
    others: List[Manifest],
    say: Say,
    reload: bool = False,
) -> None:
    """All of a generation: its files, and none of `others`; its processes, ready and checked.

    `reload` where an earlier attempt may have ended before systemd read what it wrote. Raises
    Failed, with everything as far as it came.
    """
    told = wanted.get("told") or {}
    swap(store, number, wanted, others, reload)
    units.enable(wanted["enable"])
    wishes = [u for u in wanted["units"] if u["name"] in (told.get("restart") or ())]
    starting = [u for u in wanted["units"] if u in wishes or not units.carries(u)]
    running = [unit for other in others for unit in other["units"]]
    if units.together(starting, running):
        start_together(starting, say)
    else:
        for unit in starting:
            say(f"{unit['name']} starts")
            units.restart(unit, say)
            back(wanted, unit)
    for unit in wanted["units"]:
        if unit not in starting:
            units.wait(unit, say)
    renew_endpoints(wanted, told.get("renew") or {})
    check(wanted)


def start_together(starting: List[Unit], say: Say) -> None:
    """Stop all, then start all: none may find its card or port taken by another."""
    say(f"{', '.join(unit['name'] for unit in starting)} stop, then start")
    units.stop([unit["name"] for unit in starting])
    units.start_all(starting)
    for unit in starting:
        units.wait(unit, say)


def swap(store: Store, number: int, wanted: Manifest, others: List[Manifest], reload: bool) -> None:
    """Files of the generation in place, files of the others gone, systemd has read them.

    Units that are gone stop first: they may hold cards that are needed. Environment files come
    before the units that read them.
    """
    paths = {file["path"] for file in wanted["files"]}
    old = {file["path"] for other in others for file in other["files"]}
    told = (wanted.get("told") or {}).get("obsolete") or ()
    gone = sorted((old | set(told)) - paths)
    names = [path[len(UNITS) :] for path in gone if path.startswith(UNITS)]
    units.remove_all([name for name in names if units.leftover(store.root, name)])
    changed = [file for file in wanted["files"] if store.differs(file)]
    for file in sorted(changed, key=lambda each: each["path"].startswith(UNITS)):
        store.put(number, file)
    for path in gone:
        remove(store.at(path))
    if reload or changed or gone or told_to_reload(wanted):
        units.systemctl("daemon-reload")
    if names:
        units.systemctl("reset-failed", *names)


def told_to_reload(wanted: Manifest) -> bool:
    """True when systemd has not read a unit that is on disk as it should be."""
    names = [file["path"][len(UNITS) :] for file in wanted["files"] if UNITS in file["path"]]
    return any(
        units.show(name, "NeedDaemonReload").get("NeedDaemonReload") == "yes" for name in names
    )


def back(wanted: Manifest, unit: Unit) -> None:
    """Requests reach this engine again, where an endpoint that runs knows it."""
    for endpoint in wanted["endpoints"]:
        if unit["server"] in endpoint["servers"]:
            endpoints.wait_until_back(endpoint, unit["server"])


def renew_endpoints(wanted: Manifest, told: Dict[str, str]) -> None:
    """Each endpoint has read the planned files; `told` names those with a newer secret."""
    for endpoint in wanted["endpoints"]:
        verb = endpoints.needed(endpoint) or told.get(endpoint["name"])
        if verb is not None:
            endpoints.renew(endpoint, verb)


def check(wanted: Manifest) -> None:
    """Every process is the planned one and ready, every endpoint uses its engines."""
    for unit in wanted["units"]:
        if not units.serves(unit):
            raise Failed(f"{unit['name']} is not ready as planned a moment after it was")
    for endpoint in wanted["endpoints"]:
        endpoints.check(endpoint)


def put_back(
    store: Store, number: int, old: Manifest, others: List[Manifest], say: Say, boot: bool = False
) -> str:
    """Files and processes of the generation before. Returns what was done, in words."""
    try:
        swap_back(store, number, old, others)
        if boot:
            # They are ordered after this program: it must not wait for them.
            names = [each["name"] for each in (*old["units"], *old["endpoints"])]
            units.systemctl("--no-block", "start", *names)
            return "the previous generation's files are back, systemd starts it"
        starting = [unit for unit in old["units"] if not units.serves(unit)]
        running = [unit for other in others for unit in other["units"]]
        if units.together(starting, running, ports=True):
            start_together(starting, say)
        else:
            for unit in starting:
                units.restart(unit, say)
                back(old, unit)
        renew_endpoints(old, {})
        check(old)
    except Failed as error:
        return f"the previous generation is back, but does not serve: {error}"
    return SERVES_AGAIN


def swap_back(store: Store, number: int, old: Manifest, others: List[Manifest]) -> None:
    """As `swap`; what was true of the host when this generation came is not told again."""
    swap(store, number, {**old, "told": None}, others, reload=True)
    units.enable(old["enable"])
