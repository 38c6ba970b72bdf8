"""Files that are whole under their name or not there, also after a power cut or a kill."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Optional


def opened(path: str) -> Any:
    """For reading and writing, made when it is not there; a link in its place is not followed."""
    if os.path.isfile(path) and not os.path.islink(path):
        os.chmod(path, 0o644)  # read-only when it was killed just before it was renamed
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o644), "r+b")


def place(temporary: str, path: str) -> None:
    """Rename, and keep that over a power cut."""
    os.replace(temporary, path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write(path: str, text: str) -> None:
    """A small text file, whole or not at all."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    place(path + ".new", path)


def read(path: str) -> Optional[str]:
    """A small text file; None when there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def remove(path: str) -> None:
    """Away with it, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
