"""What a person gives to be read: files, folders of them, archives of sysfs, standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from multigpu.errors import CaptureError

LARGEST_BYTES = 64 << 20
MOST_FILES = 500
STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Input:
    """One text with the name it is shown by."""

    name: str
    text: str


@dataclass(frozen=True)
class Tree:
    """A folder: its texts by relative path."""

    name: str
    path: Path
    texts: dict[str, str] = field(default_factory=dict)


def inputs(names: list[str]) -> Iterator[Input | Tree]:
    """What the names stand for, in their order; no name is standard input.

    Raises CaptureError when one of them cannot be read, before anything of it is shown.
    """
    for name in names or [STANDARD_INPUT]:
        if name == STANDARD_INPUT:
            yield Input("standard input", decoded(sys.stdin.buffer.read()))
            continue
        path = Path(name)
        yield folder(path) if path.is_dir() else Input(name, file_text(path))


def file_text(path: Path) -> str:
    """Text of a file. Raises CaptureError when there is none, or when it is too large."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise CaptureError(
                f"{path} has {path.stat().st_size >> 20} MiB, at most {LARGEST_BYTES >> 20} are "
                "read: cut out the part in question"
            )
        return decoded(path.read_bytes())
    except OSError as error:
        raise CaptureError(f"{path} cannot be read: {error.strerror or error}") from error


def decoded(data: bytes) -> str:
    """Text in whatever encoding; what PowerShell redirects is UTF-16 with a mark."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "backslashreplace")


def folder(path: Path) -> Tree:
    """The readable files below a folder; hidden and binary ones are left out."""
    found = [f for f in sorted(path.rglob("*")) if f.is_file() and not f.is_symlink()]
    files = [f for f in found if not any(p.startswith(".") for p in f.relative_to(path).parts)]
    if len(files) > MOST_FILES:
        raise CaptureError(
            f"{path} holds {len(files)} files, at most {MOST_FILES} are read as one machine: give "
            "the folder with the outputs of one host"
        )
    texts = {f.relative_to(path).as_posix(): file_text(f) for f in files}
    return Tree(str(path), path, {name: text for name, text in texts.items() if "\0" not in text})
