"""Breaking a host's tools, from outside, the way real hosts have them broken; and mending them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from . import gpus, hosts, pci
from .cluster import find_work
from .settings import LabError, Settings

PYTHON = "usr/bin/python3"
BROKEN_PYTHON = "#!/bin/sh\necho 'python3: broken by the multigpu lab' >&2\nexit 1\n"
BROKEN_SMI = "etc/simulated-gpu/broken"


def mend(root: Path, work: Path, settings: Settings) -> None:
    """Undo every state; the originals lie in the layers below the host's own."""
    (root / BROKEN_SMI).unlink(missing_ok=True)
    gpus.place(gpus.nvml_library(settings), root / gpus.library_path())
    pci.bind(root / gpus.HOME / "pci")
    (root / PYTHON).unlink(missing_ok=True)
    (root / PYTHON).symlink_to(os.readlink(work / "image" / PYTHON))


def no_driver(root: Path) -> None:
    """The driver is gone: no NVML library, cards without one, and nvidia-smi ends with 9."""
    (root / gpus.library_path()).unlink()
    pci.bind(root / gpus.HOME / "pci", bound=False)


def hang(root: Path) -> None:
    """nvidia-smi never answers."""
    (root / BROKEN_SMI).write_text("hang\n")


def latin1(root: Path) -> None:
    """nvidia-smi prints bytes that are not UTF-8."""
    (root / BROKEN_SMI).write_text("latin1\n")


def python(root: Path) -> None:
    """python3 fails."""
    (root / PYTHON).unlink()
    (root / PYTHON).write_text(BROKEN_PYTHON)
    (root / PYTHON).chmod(0o755)


STATES: dict[str, Callable[[Path], None]] = {
    "no-driver": no_driver,
    "hang": hang,
    "latin1": latin1,
    "python": python,
}


def break_host(settings: Settings, host: str, state: str) -> None:
    """Put a host into one of STATES, or `none`. Raises LabError for an unknown host or state."""
    work = find_work(settings)
    root = hosts.root(work, host)
    if not root.is_dir():
        raise LabError(f"no host called {host} is up")
    if state != "none" and state not in STATES:
        raise LabError(f"no state called {state}; there are {', '.join(STATES)} and none")
    mend(root, work, settings)
    if state != "none":
        STATES[state](root)
