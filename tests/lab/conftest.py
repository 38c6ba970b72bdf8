"""For the whole test session: `lab`, four hosts with simulated GPUs; `library`, their NVML alone.

A lab that is up already is used and left up; otherwise the last session that uses it takes it down.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from bed import cluster, gpus
from bed.client import Lab
from bed.settings import LabNotPossible, Settings

MACHINES = ["matched", "mixed", "third=matched", "fourth=mixed"]


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The hosts of MACHINES, up. Skips with the reason where the lab is not possible."""
    settings = Settings()
    settings.cache.mkdir(parents=True, exist_ok=True)
    with (settings.cache / f".{settings.prefix}.users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield bring_up(settings)
        except LabNotPossible as error:
            pytest.skip(f"lab not possible here: {error}")
        finally:
            take_down_when_last(settings, users)


def bring_up(settings: Settings) -> Lab:
    running = {row.name for row in cluster.read_hosts(settings)}
    if not running >= {word.partition("=")[0] for word in MACHINES}:
        cluster.up(settings, MACHINES)
        (settings.state / "for-tests").touch()
    return Lab.running(settings)


def take_down_when_last(settings: Settings, users: TextIO) -> None:
    """Only a lab that tests brought up, and only when no other session holds it."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    if (settings.state / "for-tests").exists():
        cluster.down(settings)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated NVML, compiled; in a directory of its own."""
    if not shutil.which("gcc"):
        pytest.skip("no C compiler")
    path = tmp_path_factory.mktemp("nvml") / gpus.LIBRARY
    gpus.compile_library(path)
    return path
