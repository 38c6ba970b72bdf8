"""What would be installed, written to a local folder: for machines that are files, not hosts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from multigpu.generation import Unit
from multigpu.store import texts


def write(directory: Path, units: Iterable[Unit]) -> tuple[Path, ...]:
    """Write every file of the units below `directory`, as on the host. Returns the paths.

    Files of an earlier rehearsal that no unit has any more are removed.
    """
    wanted = {directory / file.path.lstrip("/"): file for unit in units for file in unit.files}
    for path, file in wanted.items():
        texts.write(path, file.content)
    stale = [p for p in directory.rglob("*") if p.is_file() and p not in wanted]
    for path in stale:
        path.unlink()
    return tuple(wanted)
