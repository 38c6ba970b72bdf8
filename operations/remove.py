"""Undo what `serve` did."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from multigpu import generation, switching
from multigpu.credentials import DIRECTORY
from multigpu.devices_unit import READY
from multigpu.fetching import UNIT
from multigpu.hardware import Host
from multigpu.react_unit import FILES
from multigpu.transaction import DIRECTORY as GENERATIONS
from multigpu.units import USER
from operations.common import STAGING
from operations.reactions import remove_reactions
from operations.units import remove_unit

# The group of all services goes with the last user that it is the first group of.
_ACCOUNTS = (
    f'getent passwd | awk -F: \'$1 ~ /^{USER}(-|$)/ && index($6, "{generation.HOME}") == 1 '
    '{ print $1 }\' | sort -r | while read -r user; do userdel "$user" 2>/dev/null; done; '
    f"groupdel {USER} 2>/dev/null; true"
)


@operation()
def remove(*, machine: Host, purge: bool = False) -> Generator[StringCommand, None, None]:
    """Remove all units of ours; with `purge` also everything else that `serve` made."""
    names = sorted(generation.our_units(machine))
    for name in names:
        yield remove_unit(name)
    reacts = any(file.path in FILES for file in machine.files)
    if reacts:
        yield remove_reactions()
    left = [file.path for file in machine.files if file.path.startswith(f"{DIRECTORY}/")]
    left += switching.unwanted(machine, ())
    if left:
        yield StringCommand("rm", "-f", *(QuoteString(path) for path in left))
    if any(file.path.startswith(f"{GENERATIONS}/") for file in machine.files):
        yield StringCommand("rm", "-rf", GENERATIONS)
    there = [path.path for path in machine.paths if path.path in generation.DIRECTORIES]
    if purge and there:
        ours = (f"{generation.INSTALLATION}*", f"{UNIT}*")
        yield StringCommand("systemctl", "stop", *(QuoteString(each) for each in ours))
        rest = StringCommand(generation.CACHE, READY, f"{STAGING}*")
        yield StringCommand("rm", "-rf", *(QuoteString(path) for path in there), rest)
        yield StringCommand("sh", "-c", QuoteString(_ACCOUNTS))
    if not names and not reacts and not left and not (purge and there):
        host.noop("nothing of ours is here")
