"""Runtimes: built where one host of a kind has to, copied to its twins, installed, pruned.

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

from multigpu import generation, install
from multigpu.hardware import Host
from multigpu.install import Build, Job, Recipe, Source, Upload
from multigpu.install.generations import Wanted
from multigpu.install.source import NETRC
from multigpu.store import texts
from multigpu.store.recipes import Files, built_directory
from operations.common import fail
from operations.uploads import bring

Commands = Generator[
    StringCommand | FileUploadCommand | FileDownloadCommand | FunctionCommand, None, None
]
CACHE = Files(Path())

# Waits for an installation that an earlier run began, as well as for its own: a job that systemd
# has queued shows no state yet. Prints a line now and then, so that neither the operator nor the
# connection falls asleep. What went wrong stands in the program's last line.
_RUN = """\
set -u
unit=$1 stamp=$2 proxy=$3 netrc=$4
shift 4
busy() { systemctl show -p ActiveState -p Job "$unit" | grep -Eq '=(.*activating|[1-9])'; }
if [ ! -e "$stamp" ] && ! busy; then
  systemctl reset-failed "$unit" 2>/dev/null
  [ -e "$netrc" ] && set -- --property="LoadCredential=netrc:$netrc" "$@"
  [ -n "$proxy" ] && set -- --setenv="https_proxy=$proxy" --setenv="http_proxy=$proxy" "$@"
  systemd-run --quiet --unit="$unit" --property=RemainAfterExit=no \\
    --property=TimeoutStartSec=infinity --property=RuntimeDirectory="${unit%.service}" \\
    --service-type=oneshot --no-block "$@" || busy || exit 1
fi
waited=0
while busy; do
  sleep 0.5; waited=$((waited + 1))
  [ $((waited % 20)) -eq 0 ] && journalctl -q -u "$unit" -n 1 -o cat --no-pager
done
[ -e "$stamp" ] && exit 0
said=$(journalctl -q -u "$unit" _TRANSPORT=stdout -n 15 -o cat --no-pager)
printf '%s\\n' "$said" | grep '^multigpu: ' | tail -n 1 >&2 && exit 1
printf 'multigpu: %s failed, its last words:\\n%s\\n' "$unit" "$said" >&2
exit 1
"""


def _unit(title: str, stamp: str, by: Installer, what: str, job: Job | Build) -> StringCommand:
    # systemd replaces $NAME in command lines; JSON can write the sign in another way.
    text = json.dumps(asdict(job)).replace("$", "\\u0024")
    words = (
        f"{generation.INSTALLATION}{title}.service",
        stamp,
        by.packages.https_proxy or "",
        NETRC,
        *("/usr/bin/python3", by.program, "install", what, text),
    )
    quoted = (QuoteString(word) for word in words)
    return StringCommand("sh", "-c", QuoteString(_RUN), "multigpu-install", *quoted)


class Installer(NamedTuple):
    """What installs: the archive of host programs (its path there), and where packages are from."""

    program: str
    packages: Source


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
            title = f"build-{recipe.name}"
            yield _unit(title, build.wheel, by, "wheel", build)
        else:
            idle = f"{BUILDERS.of[build.kind]} builds for this host"
    if idle:
        host.noop(idle)


@operation()
def fetch_wheels(*, machine: Host, recipes: tuple[Recipe, ...]) -> Commands:
    """What this host built comes into the controller's cache, for its twins of now and later."""
    done = True
    for _, build in _builds(machine, recipes):
        if BUILDERS.mine(build.kind):
            done = False
            directory = built_directory(build.kind)
            partial_file = directory / f"{host.name.rpartition('/')[2]}.partial"
            yield FunctionCommand(_make, [str(directory)], {})
            yield FileDownloadCommand(build.wheel, str(partial_file), _sudo=False)
            yield FunctionCommand(_keep, [str(partial_file), build.wheel], {})
    if done:
        host.noop("no wheel is to be fetched")


def _make(directory: str) -> None:
    Path(directory).mkdir(parents=True, exist_ok=True)


def _keep(partial_file: str, wheel: str) -> bool:
    """Only what arrived whole gets its name."""
    found = texts.file_identity.__wrapped__(partial_file)[0]
    _, said = host.run_shell_command(StringCommand("sha256sum", QuoteString(wheel)))
    if not said.stdout.startswith(found):
        Path(partial_file).unlink()
        host.log(f"{wheel} arrived damaged: run it again")
        return False
    Path(partial_file).rename(Path(partial_file).with_name(wheel.rpartition("/")[2]))
    return True


@operation()
def runtimes(*, machine: Host, recipes: tuple[Recipe, ...], by: Installer) -> Commands:
    """Make each recipe's directory; nothing when its stamp is there or nothing is to install."""
    missing = _missing(machine, recipes)
    for recipe in missing:
        yield from _install(recipe, by)
    if not missing:
        host.noop(", ".join(recipe.executable for recipe in recipes) + " is installed")


def _install(recipe: Recipe, by: Installer) -> Commands:
    job = recipe.job
    assert job is not None, f"{recipe.what} has a directory and no job"
    if recipe.build is not None and state.is_executing:
        cached = CACHE.built(recipe.build.kind)
        if cached is None:
            builder = BUILDERS.of.get(recipe.build.kind, "the host that builds it")
            yield fail(
                f"{recipe.what} is not built: {builder}, which builds for hosts like this one, "
                "failed: see its lines and run it again"
            )
            return
        sha256, size_bytes = CACHE.identity(cached)
        job = replace(job, wheel_sha256=sha256)
        if not BUILDERS.mine(recipe.build.kind):
            yield from bring([Upload(recipe.build.wheel, cached, None, sha256, size_bytes)])
    yield _unit(recipe.name, recipe.stamp or "", by, "runtime", job)


# Links first: a run cut short here prunes less than it might, never more. Only what is complete
# loses its locks and wheels.
_PRUNE = """\
set -eu
prefix=$1
shift
cd "$prefix"
keep=" "
mkdir -p services.new
while [ "$#" -gt 0 ]; do
  service=$1 current=$2 previous=$3
  shift 3
  mkdir -p "services.new/$service"
  ln -sfn "../../runtimes/$current" "services.new/$service/current"
  keep="$keep$current "
  if [ -n "$previous" ]; then
    ln -sfn "../../runtimes/$previous" "services.new/$service/previous"
    keep="$keep$previous "
  fi
done
rm -rf services
mv services.new services
for path in runtimes/* wheels/*; do
  [ -e "$path" ] || continue
  name=${path##*/}
  systemctl is-active --quiet "multigpu-install-$name.service" && continue
  case "$keep" in
  *" $name "*) case $path in wheels/*) [ -e "runtimes/$name/installed" ] || continue ;;
    *) continue ;; esac ;;
  esac
  rm -rf "$path"
done
"""


@operation()
def prune(*, machine: Host, wanted: Wanted) -> Generator[StringCommand, None, None]:
    """Record what serves now and what served before; every other runtime goes."""
    if not install.prune_needed(machine, wanted):
        host.noop("nothing is left over")
        return
    words: list[str] = []
    for record in install.record_of(machine, wanted):
        words += [record.service, record.current or "", record.previous or ""]
    quoted = (QuoteString(word) for word in (install.PREFIX, *words))
    yield StringCommand("sh", "-c", QuoteString(_PRUNE), "multigpu-prune", *quoted)
