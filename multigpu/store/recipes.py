"""The controller's files that a runtime's recipe is made from."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from multigpu import install
from multigpu.errors import MultigpuError
from multigpu.hardware import Host
from multigpu.install import Recipe, Source, Upload, locks, source
from multigpu.plan import Plan
from multigpu.runtimes import runtime
from multigpu.store import texts

VERSION = re.compile(r"\d[\w.+!]*", re.ASCII)


@dataclass(frozen=True)
class Files:
    """Reads locks, the identity of wheels, and the cache of built wheels.

    `own` is a folder of the operator's locks, which come before those of the templates.
    """

    templates: Path
    own: Path | None = None

    def requirements(self, name: str) -> str:
        """The text of a hashed lock."""
        mine = None if self.own is None else texts.read_if_there(self.own / f"{name}.txt")
        return texts.requirements(self.templates, name) if mine is None else mine

    def versions(self, name: str) -> tuple[str, ...]:
        """Versions of a runtime that have a lock, oldest first."""
        folders = (self.templates / "requirements", *((self.own,) if self.own else ()))
        found = {path.stem for folder in folders for path in folder.glob(f"{name}-*.txt")}
        known = (stem.removeprefix(f"{name}-") for stem in found)
        return tuple(sorted(filter(VERSION.fullmatch, known), key=_order))

    def identity(self, path: str) -> tuple[str, int]:
        """SHA-256 and size of a file."""
        return texts.file_identity(path)

    def built(self, kind: str) -> str | None:
        """The cached wheel of a kind of host."""
        found = sorted(built_directory(kind).glob("*.whl"))
        return str(found[0]) if found else None


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def cache_directory() -> Path:
    """`$MULTIGPU_CACHE`, else `~/.cache/multigpu`."""
    chosen = os.environ.get("MULTIGPU_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "multigpu"


def built_directory(kind: str) -> Path:
    """Where the wheel lies that one host of this kind built."""
    return cache_directory() / "wheels" / kind


def recipe(
    machine: Host,
    plan: Plan,
    templates: Path,
    packages: Source | None = None,
    own: Path | None = None,
) -> Recipe:
    """How the planned runtime gets onto this machine. Raises MultigpuError when it cannot."""
    if plan.wish.executable is not None:
        return install.already_there(plan.wish.executable)
    gpus = tuple(gpu for gpu in machine.gpus if gpu.index in plan.chosen.gpus)
    used = replace(machine, gpus=gpus)
    made = runtime(plan.chosen.runtime).recipe(used, plan.wish, Files(templates, own))
    if packages is None:
        return made
    there = made.stamp is not None and machine.file(made.stamp) is not None
    return install.sourced(made, packages, () if there else wheels(made, packages))


def wheels(made: Recipe, packages: Source) -> tuple[Upload, ...]:
    """Files of a controller's folder that the lock allows. Raises MultigpuError when none is."""
    folder = packages.wheel_directory
    if folder is None or folder.startswith(source.ON_HOST) or not made.lock:
        return ()
    allowed = locks.hashes(made.lock)
    files = sorted(p for p in Path(folder).expanduser().glob("*") if p.is_file())
    known = ((path, *texts.file_identity(str(path))) for path in files)
    found = [each for each in known if each[1] in allowed]
    if not found:
        raise MultigpuError(
            f"wheel_directory {folder} holds {len(files)} files and none that the lock of "
            f"{made.what} allows: fill it with `pip download --require-hashes -r` of that lock"
        )
    where = install.sourced(made, packages).job
    assert where is not None and where.find_links is not None
    return tuple(
        Upload(f"{where.find_links}/{path.name}", str(path), None, sha256, size)
        for path, sha256, size in found
    )
