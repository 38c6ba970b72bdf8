"""The account that services run as, and the directories that everything else lies in."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation

from multigpu import generation
from multigpu.hardware import Host
from multigpu.units import USER

_ACCOUNT = (
    f"getent group {USER} >/dev/null || groupadd --system {USER}; "
    f"getent passwd {USER} >/dev/null || useradd --system --gid {USER} --no-create-home "
    f"--home-dir {generation.HOME} --shell /usr/sbin/nologin {USER}"
)


@operation()
def layout(*, machine: Host) -> Generator[StringCommand, None, None]:
    """Account and directories as `multigpu.generation.DIRECTORIES` says; nothing when they are."""
    if not generation.layout_missing(machine):
        host.noop("account and directories are there")
        return
    yield StringCommand(_ACCOUNT)
    for path, owner in generation.DIRECTORIES.items():
        user, group = owner.split(":")
        yield StringCommand("install", "-d", "-m", "0755", "-o", user, "-g", group, path)
