"""Artefacts that are built once: a name carries the hash of everything that decides the content."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def key(*parts: str | bytes) -> str:
    """Twelve hex digits over the parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()[:12]


def cached(path: Path, build: Callable[[Path], None]) -> Path:
    """`path`, after `build(partial)` has made it when it is not there.

    The partial file is renamed only when complete, and two processes never build the same thing.
    """
    if path.exists():
        return path
    with locked(path.parent / f".{path.name}.lock"):
        if not path.exists():
            partial = path.with_name(f".partial-{path.name}")
            discard(partial)
            build(partial)
            os.replace(partial, path)
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file; it is left behind, because removing it would race."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
