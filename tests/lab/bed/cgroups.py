"""Where a host's processes live, so that its systemd finds a cgroup tree of its own.

systemd-nspawn with --keep-unit makes its payload's cgroup below the one it was started in. Where
systemd runs this machine, a transient unit gives that cgroup; elsewhere one is made by hand, in
every tree that systemd uses (version 2, and the named version 1 tree of a hybrid machine).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from .settings import Settings


def systemd_runs_here() -> bool:
    """As sd_booted(3) decides it."""
    return Path("/run/systemd/system").is_dir()


def trees() -> list[Path]:
    """Mount points of the version 2 tree and of systemd's named version 1 tree."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options = line.split()[:4]
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            found.append(Path(where))
    return found


def groups(settings: Settings, host: str) -> list[Path]:
    """The cgroups of one host, made when they are not there."""
    paths = [tree / settings.prefix / host for tree in trees()]
    for path in paths:
        path.mkdir(parents=True, exist_ok=True)
    return paths


def of_host(settings: Settings, host: str) -> list[Path]:
    """Existing cgroups of one host; empty where systemd keeps them."""
    return [path for tree in trees() if (path := tree / settings.prefix / host).is_dir()]


def hosts(settings: Settings) -> set[str]:
    """Names of the hosts that have a cgroup here, alive or left over."""
    return {
        entry.name
        for tree in trees()
        if (parent := tree / settings.prefix).is_dir()
        for entry in parent.iterdir()
        if entry.is_dir()
    }


def processes(path: Path) -> Iterator[int]:
    """Every process in a cgroup and below."""
    for file in path.rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            yield from (int(word) for word in file.read_text().split())


def kill(settings: Settings, host: str, timeout_s: float = 5.0) -> None:
    """End whatever a host left running, then remove its cgroups."""
    deadline = time.monotonic() + timeout_s
    for path in of_host(settings, host):
        while (alive := set(processes(path))) and time.monotonic() < deadline:
            for pid in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        remove(path)


def remove(path: Path) -> None:
    """Remove a cgroup and those below it; directories only, deepest first."""
    for below in sorted((entry for entry in path.rglob("*") if entry.is_dir()), reverse=True):
        with contextlib.suppress(OSError):
            below.rmdir()
    with contextlib.suppress(OSError):
        path.rmdir()


def remove_parents(settings: Settings) -> None:
    for tree in trees():
        remove(tree / settings.prefix)
