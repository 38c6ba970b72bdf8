"""What a person gives to be read: files, folders, archives of sysfs, models, standard input."""

from __future__ import annotations

import os
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from multigpu.errors import CaptureError
from multigpu.store import sysfs

LARGEST_BYTES = 64 << 20
MOST_FILES = 500
STANDARD_INPUT = "-"
ARCHIVES = {".tar", ".tgz", ".tbz", ".tbz2", ".txz"}
SYSFS = ("sys", "devices", "bus", "nodes")
"""Folders that are copies of sysfs, which are read by their own rules."""


@dataclass(frozen=True)
class Input:
    """One text with the name it is shown by."""

    name: str
    text: str


@dataclass(frozen=True)
class Tree:
    """A folder or an archive: its texts by relative path, and parts of a capture from sysfs.

    `left_out` says of each file that could not be read why.
    """

    name: str
    path: Path
    texts: dict[str, str] = field(default_factory=dict)
    parts: dict[str, object] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """A GGUF file."""

    name: str
    path: Path


def inputs(names: list[str]) -> Iterator[Input | Tree | Model]:
    """What the names stand for, in their order; no name is standard input.

    Raises CaptureError when one of them cannot be read, before anything of it is shown.
    """
    for name in names or [STANDARD_INPUT]:
        if name == STANDARD_INPUT:
            yield Input("standard input", _whole("standard input", sys.stdin.buffer))
            continue
        yield _given(name, Path(name))


def _given(name: str, path: Path) -> Input | Tree | Model:
    if path.is_dir():
        return folder(path)
    if path.suffix == ".gguf":
        return Model(name, path)
    if path.is_file() and ARCHIVES & set(path.suffixes) and tarfile.is_tarfile(path):
        return Tree(name, path, parts=sysfs.sections(path))
    return Input(name, file_text(path))


def file_text(path: Path) -> str:
    """Text of a file. Raises CaptureError when there is none, or when it is too large."""
    try:
        with path.open("rb") as stream:
            return _whole(str(path), stream)
    except OSError as error:
        raise CaptureError(f"{path} cannot be read: {error.strerror or error}") from error


def _whole(name: str, stream: BinaryIO) -> str:
    """Everything up to the limit; the size of a pipe or a device is known by reading only."""
    data = stream.read(LARGEST_BYTES + 1)
    if len(data) > LARGEST_BYTES:
        raise CaptureError(
            f"{name} has more than {LARGEST_BYTES >> 20} MiB, which is the most that is read: cut "
            "out the part in question"
        )
    return decoded(data)


def decoded(data: bytes) -> str:
    """Text in whatever encoding; what PowerShell redirects is UTF-16 with a mark."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return unquoted(data.decode("utf-16", "replace"))
    return unquoted(data.decode("utf-8-sig", "backslashreplace"))


def unquoted(text: str) -> str:
    """Out of a mail or an issue, where every line of a quotation begins with `>`."""
    if not text.startswith(">"):
        return text
    lines = text.split("\n")
    if not all(line.startswith(">") for line in lines if line.strip()):
        return text
    return "\n".join(line[1:].removeprefix(" ") for line in lines)


def folder(path: Path) -> Tree:
    """The readable files below a folder but hidden and binary ones, and its copies of sysfs."""
    found = [f for f in _walk(path) if f.is_file() and not f.is_symlink()]
    if len(found) > MOST_FILES:
        raise CaptureError(
            f"{path} holds more than {MOST_FILES} files, too many for one machine: give the folder "
            "with the outputs of one host"
        )
    read = {f.relative_to(path).as_posix(): _text_or_error(f) for f in found}
    texts = {name: text for name, text in read.items() if isinstance(text, str)}
    plain = {name: text for name, text in texts.items() if "\0" not in text}
    unread = tuple(str(error) for error in read.values() if isinstance(error, CaptureError))
    parts = sysfs.sections(path)
    if not plain and not parts:
        raise CaptureError(
            f"{path} holds no text and no copy of sysfs: save outputs of tools there"
        )
    return Tree(str(path), path, plain, parts, unread)


def _text_or_error(path: Path) -> str | CaptureError:
    """One file that is too large or cannot be read must not hide the others of its folder."""
    try:
        return file_text(path)
    except CaptureError as error:
        return error


def _walk(path: Path) -> Iterator[Path]:
    """Files by name, up to one more than may be read."""
    count = 0
    for base, folders, files in os.walk(path):
        folders[:] = sorted(f for f in folders if f not in SYSFS and not f.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(base, name)
                count += 1
        if count > MOST_FILES:
            return
