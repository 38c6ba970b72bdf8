"""Undo what `serve` did."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from multigpu import generation
from multigpu.hardware import Host
from multigpu.units import USER
from operations.common import STAGING
from operations.units import remove_unit


@operation()
def remove(*, machine: Host, purge: bool = False) -> Generator[StringCommand, None, None]:
    """Remove all units of ours; with `purge` also everything else that `serve` made."""
    names = generation.obsolete_units(machine, ())
    for name in names:
        yield remove_unit(name)
    there = [path.path for path in machine.paths if path.path in generation.DIRECTORIES]
    if purge and there:
        yield StringCommand("systemctl", "stop", QuoteString(f"{generation.INSTALLATION}*"))
        rest = StringCommand(generation.CACHE, f"{STAGING}*")
        yield StringCommand("rm", "-rf", *(QuoteString(path) for path in there), rest)
        yield StringCommand("userdel", USER, "2>/dev/null;", "true")
    if not names and not (purge and there):
        host.noop("nothing of ours is here")
