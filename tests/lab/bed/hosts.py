"""One host: its disk (an overlay over the shared image), its boot, its end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from . import cgroups, gpus, machines, network
from .cache import discard
from .settings import SUBNET, USER, LabError, Settings
from .shell import environment, run

BOOT_SECONDS = 60.0
STOP_SECONDS = 4.0  # a host that shuts down at all needs a tenth of it; its disk is thrown away
REBOOT_STATUS = 133  # systemd-nspawn --keep-unit ends with it and leaves the restart to us


@dataclass(frozen=True)
class LabHost:
    """A row of hosts.json."""

    name: str
    ip: str
    port: int
    user: str
    key: str
    machine: str


def row(settings: Settings, number: int, name: str, machine: str) -> LabHost:
    """The host with that number, counted from 1."""
    return LabHost(name, f"{SUBNET}.{number}", 22, USER, str(settings.key), machine)


def folder(work: Path, host: str) -> Path:
    return work / "hosts" / host


def root(work: Path, host: str) -> Path:
    """The running host's file system, seen from here."""
    return folder(work, host) / "root"


def create_disk(settings: Settings, work: Path, host: LabHost) -> None:
    """Mount an empty overlay and write what is particular to this host."""
    own = folder(work, host.name)
    for name in ("upper", "work", "root"):
        (own / name).mkdir(parents=True)
    lower = f"{work / 'layer'}:{work / 'image'}"
    options = f"lowerdir={lower},upperdir={own / 'upper'},workdir={own / 'work'}"
    target = own / "root"
    run("mount", "-t", "overlay", settings.prefix, "-o", options, target)
    (target / "etc/hostname").write_text(f"{host.name}\n")
    (target / "etc/hosts").write_text(f"127.0.0.1 localhost\n{host.ip} {host.name}\n")
    host_key = target / "etc/ssh/ssh_host_ed25519_key"
    shutil.copy(host_key_file(settings, host.name), host_key)
    host_key.chmod(0o600)
    authorized = target / f"home/{USER}/.ssh/authorized_keys"
    shutil.copy(settings.key.with_suffix(".pub"), authorized)
    authorized.chmod(0o644)
    gpus.equip(machines.load(host.machine), target)


def host_key_file(settings: Settings, host: str) -> Path:
    """Private host key; kept beside the disk, so that a fresh disk is still a known host."""
    return settings.state / "host_keys" / host


def remove_disk(work: Path, host: str) -> None:
    target = root(work, host)
    if os.path.ismount(target):
        run("umount", "--lazy", target)
    discard(folder(work, host))


def nspawn(settings: Settings, work: Path, host: str) -> list[str]:
    """The command that boots a host in its own network namespace."""
    return [
        "systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit",
        f"--directory={root(work, host)}",
        f"--machine={settings.prefix}-{host}",
        f"--hostname={host}",
        f"--network-namespace-path={network.path(settings, host)}",
        "--kill-signal=SIGRTMIN+3", "--resolv-conf=off", "--timezone=off",
        "--link-journal=no", "--console=pipe", "systemd.show_status=0",
    ]  # fmt: skip


def boot(settings: Settings, work: Path, host: str) -> None:
    """Start a host and return at once; its console goes to console.log beside its disk."""
    if cgroups.systemd_runs_here():
        boot_as_unit(settings, work, host)
    else:
        boot_by_hand(settings, work, host)


def boot_as_unit(settings: Settings, work: Path, host: str) -> None:
    log = folder(work, host) / "console.log"
    run("systemd-run", "--quiet", "--collect", f"--unit={unit(settings, host)}",
        "-p", "Delegate=yes", "-p", "KillMode=mixed", "-p", f"TimeoutStopSec={STOP_SECONDS}",
        "-p", f"RestartForceExitStatus={REBOOT_STATUS}",
        "-p", f"SuccessExitStatus={REBOOT_STATUS}",
        "-p", f"StandardOutput=append:{log}", "-p", f"StandardError=append:{log}",
        "--setenv=SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1",
        *nspawn(settings, work, host))  # fmt: skip


def unit(settings: Settings, host: str) -> str:
    return f"{settings.prefix}-{host}.service"


def units(settings: Settings) -> set[str]:
    """Hosts that this machine's systemd runs for this lab."""
    if not cgroups.systemd_runs_here():
        return set()
    pattern = unit(settings, "*")
    listed = run("systemctl", "list-units", "--all", "--plain", "--no-legend", pattern)
    names = (line.split()[0] for line in listed.splitlines())
    return {name.removeprefix(f"{settings.prefix}-").removesuffix(".service") for name in names}


# Enters the cgroups named before "--", then runs nspawn again for every reboot.
SUPERVISOR = f"""
while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs"; shift; done; shift
while :; do
  systemd-nspawn "$@" & echo $! > "$PID_FILE"; wait $!
  [ $? = {REBOOT_STATUS} ] || break
done
"""


def boot_by_hand(settings: Settings, work: Path, host: str) -> None:
    groups = [str(group) for group in cgroups.groups(settings, host)]
    with (folder(work, host) / "console.log").open("ab") as console:
        subprocess.run(  # setsid forks, so the supervisor outlives this program
            ["setsid", "--fork", "sh", "-c", SUPERVISOR, unit(settings, host), *groups, "--",
             *nspawn(settings, work, host)[1:]],
            stdin=subprocess.DEVNULL, stdout=console, stderr=console, check=True,
            env={**environment(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                 "PID_FILE": str(pid_file(work, host))},
        )  # fmt: skip


def pid_file(work: Path, host: str) -> Path:
    return folder(work, host) / "nspawn.pid"


def ssh(settings: Settings, host: str, *command: str) -> list[str]:
    """The command line that reaches a host, from the controller's side."""
    inside = network.inside(settings)
    return [*inside, "ssh", "-F", str(settings.ssh_config), host, *command]


def wait_ready(settings: Settings, work: Path, host: str) -> None:
    """Return when the host's systemd says it is up. Raises LabError with what failed."""
    deadline = time.monotonic() + BOOT_SECONDS
    probe = ssh(settings, host, "systemctl is-system-running --wait")
    while time.monotonic() < deadline:
        done = subprocess.run(probe, capture_output=True, text=True, env=environment())
        state = done.stdout.strip()
        if state == "running":
            return
        if state == "degraded":
            units = run(*ssh(settings, host, "systemctl --failed --plain --no-legend"))
            raise LabError(f"{host} came up degraded: {units.strip()}")
        time.sleep(0.05)
    console = (folder(work, host) / "console.log").read_text(errors="replace")
    raise LabError(f"{host} did not come up in {BOOT_SECONDS:.0f} s: {console.strip()[-300:]}")


def stop(settings: Settings, work: Path, host: str) -> None:
    """Shut a host down, by force when it does not answer; nothing of it runs afterwards."""
    if cgroups.systemd_runs_here():
        run("systemctl", "stop", unit(settings, host), check=False)
    else:
        stop_by_hand(work, host)
        cgroups.kill(settings, host)


def stop_by_hand(work: Path, host: str) -> None:
    try:
        pid = int(pid_file(work, host).read_text())
        if b"systemd-nspawn" not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return
        os.kill(pid, signal.SIGTERM)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return
    deadline = time.monotonic() + STOP_SECONDS
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
