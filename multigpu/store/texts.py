"""Text files of the controller: templates, locks, plan files, captured machines."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from multigpu.errors import MultigpuError


def templates(directory: Path) -> Mapping[str, str]:
    """Every template by its file name. Raises MultigpuError when there is none."""
    found = {path.name: read(path) for path in sorted(directory.glob("*.j2"))}
    if not found:
        raise MultigpuError(f"{directory} holds no templates: restore it from the repository")
    return found


def requirements(directory: Path, name: str) -> str:
    """A hashed lock, such as `vllm-0.33.0`. Raises MultigpuError when there is none."""
    return read(directory / "requirements" / f"{name}.txt")


def read(path: Path) -> str:
    """A text file. Raises MultigpuError, naming it, when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise MultigpuError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise MultigpuError(
            f"{path} is not text: byte {error.start} is no utf-8; restore it, or delete it"
        ) from None


def read_if_there(path: Path) -> str | None:
    """A text file, None when there is none. Raises MultigpuError when it cannot be read."""
    return read(path) if path.exists() else None


def write(path: Path, text: str) -> bool:
    """Write a text file whole or not at all. True when its content changed.

    Raises MultigpuError, naming it, when it cannot be written.
    """
    if read_if_there(path) == text:
        return False
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise MultigpuError(f"{path} cannot be written: {error.strerror or error}") from None
    return True


@cache
def file_identity(path: str) -> tuple[str, int]:
    """SHA-256 and size in bytes of a file of the controller, read once per run."""
    try:
        with open(path, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return digest, os.path.getsize(path)
    except OSError as error:
        raise MultigpuError(f"{path}: {error.strerror}") from None
