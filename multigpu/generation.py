"""What a host should hold for its services, compared with what it holds: values only.

`operations/` turn the differences into commands; nothing here knows pyinfra.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import inf
from typing import Protocol

from multigpu.endpoint import RenderedEndpoint
from multigpu.fetching import Fetch
from multigpu.hardware import Host, ManagedFile, UnitState
from multigpu.install import MODELS, PREFIX, Recipe, Upload
from multigpu.plan import Plan
from multigpu.units import (
    CONFIG_DIRECTORY,
    MARK,
    UNIT_DIRECTORY,
    USER,
    RenderedUnit,
    TextFile,
    account,
)

HOME = "/var/lib/multigpu"
CACHE = "/var/cache/multigpu"
"""systemd makes it, as CacheDirectory= of the units."""
OWNER = "root:root"
INSTALLATION = "multigpu-install-"
"""How the names of the transient units begin that install a runtime."""
HOST_UNITS: tuple[str, ...] = ("multigpu-exporter.service", "multigpu-kernel-log.service")
"""Units of ours that belong to the host and not to a service: other deploys make them."""
DIRECTORIES = {PREFIX: OWNER, CONFIG_DIRECTORY: OWNER, HOME: OWNER, MODELS: f"{USER}:{USER}"}
"""Directories that must be there, with their owners; the owner of MODELS shows the account."""


class Unit(Protocol):
    """A unit of ours as text: of a process, or one that processes need."""

    @property
    def name(self) -> str:
        """The unit's name."""

    @property
    def files(self) -> tuple[TextFile, ...]:
        """The unit file, and what it reads."""


@dataclass(frozen=True)
class Deployment:
    """One service on one host: its plan, its runtime, its model files and its processes."""

    plan: Plan
    recipe: Recipe
    models: tuple[Upload, ...]
    units: tuple[RenderedUnit, ...]
    fetch: Fetch | None = None
    endpoint: RenderedEndpoint | None = None


def cannot_change(machine: Host) -> str | None:
    """Why nothing can be installed or removed here, in one line; None when it can."""
    if machine.uid not in (None, 0):
        return (
            f"{machine.name}: root is needed, this is uid {machine.uid}: take _sudo = False out of "
            "the inventory, or set ssh_user = 'root'"
        )
    if machine.systemd is None:
        return f"{machine.name}: systemctl does not answer, and services are systemd units"
    return None


def homes(services: Iterable[str]) -> dict[str, str]:
    """The state directory of each service, with its owner, which shows the service's account."""
    return {f"{HOME}/{service}": f"{account(service)}:{USER}" for service in services}


def layout_missing(machine: Host, services: Iterable[str] = ()) -> bool:
    """True when an account or one of the directories is not as it should be."""
    found = {file.path: file.owner for file in machine.paths}
    wanted = {**DIRECTORIES, **homes(services)}
    return any(found.get(path) != owner for path, owner in wanted.items())


def uploads_missing(machine: Host, uploads: Iterable[Upload]) -> tuple[Upload, ...]:
    """Files whose path, which names the content, is not there in full size."""
    sizes = {file.path: file.size_bytes for file in (*machine.paths, *machine.files)}
    return tuple(
        upload
        for upload in uploads
        if sizes.get(upload.path) is None
        or sizes[upload.path] != (upload.size_bytes or len(upload.content or b""))
    )


def lacks_room(machine: Host, missing: Iterable[Upload]) -> str | None:
    """Why the files do not fit the host's disk, in one line; None when they do or nobody knows.

    Each file lies twice on the host for a moment: staged, and under its final name.
    """
    sizes = [upload.size_bytes or len(upload.content or b"") for upload in missing]
    needed_mib = (sum(sizes) + max(sizes, default=0)) // 2**20
    if machine.disk_free_mib is None or needed_mib < machine.disk_free_mib:
        return None
    return (
        f"{machine.name} has {machine.disk_free_mib / 1024:.1f} GiB free, the files to bring need "
        f"{needed_mib / 1024:.1f} GiB: make room, or give model as a path on the host"
    )


def fetches_missing(machine: Host, fetches: Iterable[Fetch]) -> tuple[Fetch, ...]:
    """Models without a stamp, or of which a file is not there in full size; each once."""
    sizes = {file.path: file.size_bytes for file in machine.files}
    return tuple(
        {
            fetch.directory: fetch
            for fetch in fetches
            if fetch.stamp not in sizes
            or any(sizes.get(path) != size for path, size in fetch.files.items())
        }.values()
    )


def runtime_missing(machine: Host, recipe: Recipe) -> bool:
    """True when the runtime's directory has no stamp of a complete installation."""
    return recipe.stamp is not None and machine.file(recipe.stamp) is None


def files_to_install(machine: Host, units: Iterable[Unit]) -> tuple[TextFile, ...]:
    """Files of ours that are missing or differ in content, mode or owner."""
    return tuple(file for unit in units for file in unit.files if not _same(machine, file))


def _same(machine: Host, file: TextFile) -> bool:
    found = machine.file(file.path)
    return found is not None and (found.sha256, found.mode, found.owner) == (
        file.sha256,
        file.mode,
        OWNER,
    )


def restart_reason(machine: Host, unit: RenderedUnit) -> str | None:
    """Why the unit must be started or restarted; None when the running process is the planned one.

    What decides is what the running process carries, not what this run changed, so that a run cut
    short between writing and restarting converges on the next one.
    """
    state = machine.unit(unit.name)
    if state is None or state.active_state in (None, "inactive", "failed", "deactivating"):
        return "not running"
    if state.main_pid is None:
        return f"keeps ending, {state.sub_state or 'between two starts'}"
    if state.revision != unit.revision:
        return f"runs revision {state.revision or 'unknown'}, planned is {unit.revision}"
    if unit.argv and state.command_sha256 not in (None, unit.command_sha256):
        return "runs another command line than planned"
    if any(_older(state, machine.file(path)) for path in unit.credentials):
        return "was started with another secret"
    if any(_younger(state, machine.file(file.path), file) for file in unit.files):
        return "was started after its files were changed by hand"
    return None


def _older(state: UnitState, credential: ManagedFile | None) -> bool:
    """A process that started before its secret was installed has the one before it."""
    if credential is None or credential.modified_at is None or state.started_at is None:
        return False
    return state.started_at < credential.modified_at


def renewed(machine: Host, paths: Iterable[str]) -> Host:
    """The host once these secrets are installed: every process is older than they are."""
    new = {path: ManagedFile(path, None, modified_at=inf) for path in paths}
    others = (file for file in machine.files if file.path not in new)
    return replace(machine, files=(*others, *new.values()))


def _younger(state: UnitState, found: ManagedFile | None, file: TextFile) -> bool:
    """A process younger than a drifted file of its unit may run the drifted text.

    Only content counts: a mode or an owner is put right without a restart.
    """
    if found is None or found.sha256 == file.sha256:
        return False
    if state.started_at is None or found.modified_at is None:
        return False
    return state.started_at >= found.modified_at


def waits(machine: Host, unit: RenderedUnit) -> bool:
    """True when the unit is loading just now: it is waited for, not started again."""
    state = machine.unit(unit.name)
    return state is not None and state.active_state in ("activating", "reloading")


def needs_enable(machine: Host, unit: Unit) -> bool:
    """True when the unit would not come back after a reboot."""
    state = machine.unit(unit.name)
    return state is None or state.unit_file_state != "enabled"


def needs_reload(machine: Host, units: Iterable[Unit]) -> bool:
    """True when systemd has not read a unit file that is on disk as it should be.

    A unit file that is about to be installed is read by that step.
    """
    return any(
        state is not None
        and state.need_daemon_reload
        and not any(file.path.endswith(unit.name) for file in files_to_install(machine, (unit,)))
        for unit, state in ((unit, machine.unit(unit.name)) for unit in units)
    )


def obsolete_units(machine: Host, units: Iterable[Unit]) -> tuple[str, ...]:
    """Units of ours on the host that no planned service has any more, without those of the host.

    Ours is what begins with our mark or runs a process with a revision: a unit that an operator
    named multigpu-* stays. The transient units of runtime installations are no services; drop-ins
    and leftovers beside the unit files are no units.
    """
    wanted = {unit.name for unit in units}
    return tuple(sorted(our_units(machine) - wanted - {*HOST_UNITS}))


def our_units(machine: Host) -> set[str]:
    """Every unit of ours on the host, by its file or its process."""
    on_disk = {name for file in machine.files if (name := _unit_on_disk(file)) is not None}
    running = {
        unit.name
        for unit in machine.units
        if unit.revision is not None and not unit.name.startswith(INSTALLATION)
    }
    return on_disk | running


def _unit_on_disk(file: ManagedFile) -> str | None:
    directory, _, name = file.path.rpartition("/")
    ours = name.startswith("multigpu-") and name.endswith(".service")
    marked = (file.content or "").startswith(MARK)
    return name if ours and marked and directory == UNIT_DIRECTORY else None


def model_directory(sha256: str) -> str:
    """Where an uploaded model lies: the directory is named by its content."""
    return f"{MODELS}/{sha256[:12]}"
