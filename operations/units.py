"""Unit and environment files, and the processes that run them."""

from __future__ import annotations

import io
import json
from collections.abc import Generator, Iterator

from pyinfra import host
from pyinfra.api import FileUploadCommand, QuoteString, StringCommand, operation

from multigpu import generation
from multigpu.endpoint import RenderedEndpoint
from multigpu.endpoint_seen import is_new
from multigpu.hardware import Host
from multigpu.install import PREFIX
from multigpu.listening import DRAIN_S
from multigpu.units import UNIT_DIRECTORY, RenderedUnit, TextFile
from operations.common import Staging, script
from operations.endpoint import wait_until_back

# Unit files are verified before anything is swapped in: an unknown key is only a warning to
# systemd-analyze (rc 0), so any line on stderr refuses. Verified under their final names, in a
# directory of their own; environment files come first, so that a unit never sees half of them.
# Another run waits its turn; the staging directory goes, however this ends.
_SWAP = """\
import fcntl, json, os, shutil, subprocess, sys, tempfile
staging, lock = sys.argv[1], os.open(sys.argv[2], os.O_RDONLY)
def verify(units):
    with tempfile.TemporaryDirectory() as directory:
        names = []
        for unit in units:
            names.append(os.path.join(directory, os.path.basename(unit["path"])))
            shutil.copyfile(os.path.join(staging, unit["staged"]), names[-1])
        for name in names:
            done = subprocess.run(
                ["systemd-analyze", "verify", "--recursive-errors=no", name],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            if done.returncode or done.stderr.strip():
                sys.exit("multigpu: systemd-analyze verify refuses %s: %s" % (
                    os.path.basename(name), done.stderr.decode("utf-8", "replace").strip()))
def check(files):
    secrets = dict(os.environ, SECRETS="/etc/multigpu/credentials")
    for file in files:
        path = os.path.join(staging, file["staged"])
        done = subprocess.run(["/usr/sbin/haproxy", "-c", "-f", path], env=secrets,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            sys.exit("multigpu: haproxy -c refuses %s: %s" % (
                os.path.basename(file["path"]), done.stdout.decode("utf-8", "replace").strip()))
def swap(manifest):
    for file in manifest:
        new = file["path"] + ".multigpu-new"
        os.makedirs(os.path.dirname(new), exist_ok=True)
        with open(os.path.join(staging, file["staged"]), "rb") as source, open(new, "wb") as target:
            os.fchmod(target.fileno(), int(file["mode"], 8))
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
    for file in manifest:
        os.replace(file["path"] + ".multigpu-new", file["path"])
fcntl.flock(lock, fcntl.LOCK_EX)
try:
    manifest = json.load(open(os.path.join(staging, "manifest")))
    units = [file for file in manifest if file["path"].endswith(".service")]
    verify(units)
    check([file for file in manifest if file["path"].endswith(".cfg")])
    swap(manifest)
    if units:
        subprocess.run(["systemctl", "daemon-reload"], check=True)
finally:
    shutil.rmtree(staging, ignore_errors=True)
"""


@operation()
def install_text(
    *, machine: Host, units: tuple[generation.Unit, ...]
) -> Generator[StringCommand | FileUploadCommand, None, None]:
    """Install several files as one step: staged, verified, swapped; nothing when all are equal."""
    files = generation.files_to_install(machine, units)
    if not files:
        host.noop("unit and environment files are as rendered")
        return
    staging = Staging()
    yield staging.create()
    for number, file in enumerate(files):
        yield staging.put(io.BytesIO(file.content.encode()), str(number))
    yield staging.put(io.BytesIO(_manifest(files).encode()), "manifest")
    yield StringCommand("python3", "-c", QuoteString(_SWAP), staging.path, PREFIX)


def _manifest(files: tuple[TextFile, ...]) -> str:
    return json.dumps(
        [
            {"path": file.path, "staged": str(number), "mode": file.mode}
            for number, file in enumerate(files)
        ]
    )


# Waits for READY=1 of the supervisor; a failed start shows the engine's last words. A job that
# systemd has queued leaves the old process active for a moment: only another invocation counts.
_START = """\
unit=$1 verb=$2 limit=$3
show() { systemctl show -p "$1" --value "$unit"; }
before=
if [ "$verb" != wait ]; then
  before=$(show InvocationID)
  systemctl reset-failed "$unit" 2>/dev/null
  systemctl --no-block "$verb" "$unit" || exit 1
fi
waited=0
while :; do
  status=$(show StatusText) state=$(show ActiveState) restarts=$(show NRestarts)
  if [ "$(show InvocationID)" != "$before" ]; then
    [ "$state" = active ] && [ "$status" = serving ] && exit 0
    if [ "$state" = failed ] || [ "$restarts" -ge 2 ]; then break; fi
  fi
  # Where its cards are not there (AssertPathExists=) nothing is started.
  [ "$(show AssertResult)" = no ] && [ -z "$(show Job | grep -v '^0$')" ] && break
  [ "$waited" -gt "$limit" ] && break
  sleep 0.5; waited=$((waited + 1))
  [ $((waited % 40)) -eq 0 ] && echo "$unit: $status ($((waited / 2)) s)"
done
echo "multigpu: $unit did not become ready: $state, $status; its last words:" >&2
devices=$([ "$(show AssertResult)" = no ] && echo multigpu-devices)
[ -z "$devices" ] || journalctl -q -u "$devices" _TRANSPORT=stdout -n 5 -o cat --no-pager >&2
journalctl -q -u "$unit" _TRANSPORT=stdout -n 20 -o cat --no-pager >&2
exit 1
"""
PATIENCE_S = 10
"""How much longer than the supervisor we wait, so that its verdict can be read."""


@operation()
def converge(
    *, machine: Host, units: tuple[RenderedUnit, ...], others: tuple[generation.Unit, ...] = ()
) -> Generator[StringCommand, None, None]:
    """Enabled, loaded as on disk, and running the rendered revision; obsolete units are removed.

    `others` are units of ours that no process of a service runs in: they stay.
    """
    changed = False
    for command in _commands(machine, units, others):
        changed = True
        yield command
    if not changed:
        host.noop("the running processes carry the rendered revision")


def _commands(
    machine: Host, units: tuple[RenderedUnit, ...], others: tuple[generation.Unit, ...]
) -> Iterator[StringCommand]:
    for name in generation.obsolete_units(machine, (*units, *others)):
        yield remove_unit(name)
    if generation.needs_reload(machine, (*units, *others)):
        yield StringCommand("systemctl", "daemon-reload")
    for unit in units:
        if generation.needs_enable(machine, unit):
            yield StringCommand("systemctl", "enable", "--quiet", QuoteString(unit.name))
    together = generation.restarted_together(machine, units)
    if together:
        yield _restart_all(together)
    for unit in _in_order(machine, units, others):
        reason = generation.restart_reason(machine, unit)
        if reason is not None:
            host.log(f"{unit.name}: {reason}")
            yield _start(unit, "wait" if unit in together else "restart")
            yield from _back(unit, others)
    for unit in units:
        if generation.restart_reason(machine, unit) is None and generation.waits(machine, unit):
            yield _start(unit, "wait")


def _in_order(
    machine: Host, units: tuple[RenderedUnit, ...], others: tuple[generation.Unit, ...]
) -> tuple[RenderedUnit, ...]:
    """The last first where a new endpoint takes the port of the first, and all move up by one."""
    endpoints = [other for other in others if isinstance(other, RenderedEndpoint)]
    moving = {unit.wish for unit in units if is_new(machine, endpoints, unit.wish)}
    last = [unit for unit in reversed(units) if unit.wish in moving]
    return (*(unit for unit in units if unit.wish not in moving), *last)


def _back(unit: RenderedUnit, others: tuple[generation.Unit, ...]) -> Iterator[StringCommand]:
    for other in others:
        if isinstance(other, RenderedEndpoint) and other.wish == unit.wish:
            yield wait_until_back(other, unit.service.name)


def _restart_all(units: tuple[RenderedUnit, ...]) -> StringCommand:
    """Stop all, then start all without waiting for any."""
    names = [QuoteString(unit.name) for unit in units]
    return script(
        StringCommand("systemctl", "stop", *names),
        StringCommand("{", "systemctl", "reset-failed", *names, "2>/dev/null;", "true;", "}"),
        StringCommand("systemctl", "--no-block", "start", *names),
    )


def _start(unit: RenderedUnit, verb: str) -> StringCommand:
    half_seconds = 2 * (int(unit.start_s) + PATIENCE_S + DRAIN_S)
    name = QuoteString(unit.name)
    return StringCommand(
        "sh", "-c", QuoteString(_START), "multigpu-start", name, verb, half_seconds
    )


def remove_unit(name: str) -> StringCommand:
    """Stop, disable and delete one unit of ours with its environment file."""
    service = name.removeprefix("multigpu-").removesuffix(".service")
    return StringCommand(
        StringCommand("systemctl", "disable", "--now", "--quiet", QuoteString(name)),
        ";",
        StringCommand("rm", "-f", QuoteString(f"{UNIT_DIRECTORY}/{name}")),
        StringCommand("&&", "rm", "-f", QuoteString(f"/etc/multigpu/{service}.env")),
        StringCommand("&&", "rm", "-f", QuoteString(f"/etc/multigpu/{service}.cfg")),
        StringCommand("&&", "rm", "-f", QuoteString(f"/etc/multigpu/{service}.plan.json")),
        StringCommand("&&", "systemctl", "daemon-reload"),
        StringCommand(";", "systemctl", "reset-failed", QuoteString(name), "2>/dev/null;", "true"),
    )
