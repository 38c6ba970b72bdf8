"""Runtimes: built where one host of a kind has to, copied to its twins, installed.

What takes long runs on the host as a unit of its own, which outlives the SSH connection.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from pyinfra import host, state
from pyinfra.api import (
    FileDownloadCommand,
    FileUploadCommand,
    FunctionCommand,
    QuoteString,
    StringCommand,
    operation,
)

from multigpu import generation
from multigpu.hardware import Host
from multigpu.install import Build, Job, Recipe, Source, Upload
from multigpu.install.progress import status_path, watched
from multigpu.install.source import NETRC
from multigpu.store import texts
from multigpu.store.recipes import Files, built_directory
from operations.common import fail
from operations.uploads import bring
from operations.waiting import connector_arguments, watch

Command = StringCommand | FileUploadCommand | FileDownloadCommand | FunctionCommand
Commands = Generator[Command, None, None]
CACHE = Files(Path())

# An installation that an earlier run began is joined, not begun again. Its status goes first, so
# that its reason is not taken for that of this one.
_START = """\
set -u
unit=$1 stamp=$2 status=$3 proxy=$4 netrc=$5
shift 5
busy() { systemctl show -p ActiveState -p Job "$unit" | grep -Eq '=(.*activating|[1-9])'; }
if [ -e "$stamp" ] || busy; then exit 0; fi
rm -f "$status"
systemctl reset-failed "$unit" 2>/dev/null
[ -e "$netrc" ] && set -- --property="LoadCredential=netrc:$netrc" "$@"
[ -n "$proxy" ] && set -- --setenv="https_proxy=$proxy" --setenv="http_proxy=$proxy" "$@"
systemd-run --quiet --unit="$unit" --property=RemainAfterExit=no --property=Nice=5 \\
  --property=TimeoutStartSec=infinity --service-type=oneshot --no-block "$@" || busy
"""


class Installer(NamedTuple):
    """What installs: the archive of host programs (its path there), and where packages are from."""

    program: str
    packages: Source


class Work(NamedTuple):
    """One job for a unit: a title for screens, the unit's name, and the file that ends it."""

    title: str
    unit: str
    stamp: str
    what: str
    job: Job | Build


def _done(work: Work, by: Installer) -> Iterator[Command]:
    """Begin it, or join it, and wait for its end."""
    status = status_path(work.unit)
    # systemd replaces $NAME in command lines; JSON can write the sign in another way.
    text = json.dumps(asdict(work.job)).replace("$", "\\u0024")
    names = (work.unit, work.stamp, status, by.packages.https_proxy or "", NETRC)
    program = ("/usr/bin/python3", by.program, "install", work.what, text, status)
    quoted = (QuoteString(word) for word in (*names, *program))
    yield StringCommand("sh", "-c", QuoteString(_START), "multigpu-install", *quoted)
    arguments = connector_arguments(host.current_op_global_arguments)
    yield watch(
        work.unit,
        stamp=work.stamp,
        status=status,
        title=work.title,
        reader=watched,
        arguments=arguments,
    )


class Builders:
    """Which host of each kind builds in this run: the first that comes to it."""

    def __init__(self) -> None:
        self.of: dict[str, str] = {}

    def mine(self, kind: str) -> bool:
        """True on the builder. While preparing, nobody is it yet, and everybody may be."""
        return not state.is_executing or self.of.setdefault(kind, host.name) == host.name


BUILDERS = Builders()


def _missing(machine: Host, recipes: tuple[Recipe, ...]) -> list[Recipe]:
    return [recipe for recipe in recipes if generation.runtime_missing(machine, recipe)]


def _builds(machine: Host, recipes: tuple[Recipe, ...]) -> Iterator[tuple[Recipe, Build]]:
    for recipe in _missing(machine, recipes):
        if recipe.build is not None and CACHE.built(recipe.build.kind) is None:
            yield recipe, recipe.build


@operation()
def build_wheels(*, machine: Host, recipes: tuple[Recipe, ...], by: Installer) -> Commands:
    """On one host of each kind that needs a wheel nobody has built yet."""
    idle = "no wheel is to be built"
    for recipe, build in _builds(machine, recipes):
        if BUILDERS.mine(build.kind):
            idle = ""
            unit = f"{generation.INSTALLATION}build-{recipe.name}.service"
            yield from _done(Work(f"building {recipe.what}", unit, build.wheel, "wheel", build), by)
        else:
            idle = f"{BUILDERS.of[build.kind]} builds for this host"
    if idle:
        host.noop(idle)


@operation()
def fetch_wheels(*, machine: Host, recipes: tuple[Recipe, ...]) -> Commands:
    """What this host built comes into the controller's cache, for its twins of now and later."""
    idle = True
    for _, build in _builds(machine, recipes):
        if BUILDERS.mine(build.kind):
            idle = False
            directory = built_directory(build.kind)
            partial = directory / f"{str(host.name).rpartition('/')[2]}.partial"
            yield FunctionCommand(_make, [str(directory)], {})
            yield FileDownloadCommand(build.wheel, str(partial), _sudo=False)
            yield FunctionCommand(_keep, [str(partial), build.wheel], {})
    if idle:
        host.noop("no wheel is to be fetched")


def _make(directory: str) -> None:
    Path(directory).mkdir(parents=True, exist_ok=True)


def _keep(partial: str, wheel: str) -> bool:
    """Only what arrived whole gets its name."""
    found, _ = texts.file_identity(partial)
    command = StringCommand("sha256sum", QuoteString(wheel))
    _, said = host.run_shell_command(command)
    if not said.stdout.startswith(found):
        Path(partial).unlink()
        host.log(f"{wheel} arrived damaged: run it again")
        return False
    Path(partial).rename(Path(partial).with_name(wheel.rpartition("/")[2]))
    return True


@operation()
def runtimes(*, machine: Host, recipes: tuple[Recipe, ...], by: Installer) -> Commands:
    """Make each recipe's directory; nothing when its stamp is there or nothing is to install."""
    missing = _missing(machine, recipes)
    for recipe in missing:
        yield from _install(recipe, by)
    if not missing:
        host.noop(", ".join(recipe.executable for recipe in recipes) + " is installed")


def _install(recipe: Recipe, by: Installer) -> Iterator[Command]:
    job, build = recipe.job, recipe.build
    assert job is not None, f"{recipe.what} has a directory and no job"
    if build is not None and state.is_executing:
        cached = CACHE.built(build.kind)
        if cached is None:
            yield fail(
                f"{recipe.what} is not built: {BUILDERS.of.get(build.kind, 'its builder')}, which "
                "builds for hosts like this one, failed: see its lines and run it again"
            )
            return
        sha256, size_bytes = CACHE.identity(cached)
        job = replace(job, wheel_sha256=sha256)
        if BUILDERS.of.get(build.kind) != host.name:
            yield from bring([Upload(build.wheel, cached, None, sha256, size_bytes)])
    unit = f"{generation.INSTALLATION}{recipe.name}.service"
    yield from _done(Work(recipe.what, unit, recipe.stamp or "", "runtime", job), by)
