"""The accounts that services run as, and the directories that everything else lies in."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation

from multigpu import generation
from multigpu.hardware import Host
from multigpu.units import USER, account

_GROUP = f"getent group {USER} >/dev/null || groupadd --system {USER}"
# A directory of a user that was another one before stays: systemd gives it with all that is in it
# to the new user when the unit starts (systemd.exec(5), StateDirectory=).
_HOME = "[ -d {path} ] || install -d -m 0700 -o {user} -g {group} {path}"


@operation()
def layout(
    *, machine: Host, services: tuple[str, ...] = ()
) -> Generator[StringCommand, None, None]:
    """Accounts and directories as `multigpu.generation` says; nothing when they are."""
    if not generation.layout_missing(machine, services):
        host.noop("accounts and directories are there")
        return
    yield StringCommand(_GROUP)
    yield _user(USER, generation.HOME)
    for path, owner in generation.DIRECTORIES.items():
        user, group = owner.split(":")
        yield StringCommand("install", "-d", "-m", "0755", "-o", user, "-g", group, path)
    for service in services:
        path, user = f"{generation.HOME}/{service}", account(service)
        yield _user(user, path)
        yield StringCommand(_HOME.format(path=path, user=user, group=USER))


def _user(name: str, home: str) -> StringCommand:
    return StringCommand(
        f"getent passwd {name} >/dev/null || useradd --system --gid {USER} --no-create-home "
        f"--home-dir {home} --shell /usr/sbin/nologin {name}"
    )
