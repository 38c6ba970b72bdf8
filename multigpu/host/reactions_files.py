"""Reading what a service left in a directory of its own, as root, without being led elsewhere.

A service may replace every name below its directory at any moment by a link, a pipe, a directory
or a file of somebody else. So each step opens relative to the directory before it, follows no link,
and looks at what was opened, not at what has the name.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
from typing import Iterator, NamedTuple, Optional

from multigpu.host.ledger import Clock
from multigpu.host.requests import DIRECTORY, LARGEST_BYTES, NAME, Refused

MOST_AT_ONCE = 32
FENCED = "fenced"
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A pipe without a writer would block the open for ever.
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Letter(NamedTuple):
    """A file as it lay there: its content, or why it is none."""

    name: str
    content: bytes
    refused: Optional[str] = None


@contextlib.contextmanager
def directory(home: str, *names: str) -> Iterator[int]:
    """A handle of a directory below `home`. Raises OSError, also where a name is a link."""
    handle = os.open(home, OPEN_DIRECTORY)
    try:
        for name in names:
            below = os.open(name, OPEN_DIRECTORY, dir_fd=handle)
            os.close(handle)
            handle = below
        yield handle
    finally:
        os.close(handle)


def take(home: str, service: str, uid: int) -> Iterator[Letter]:
    """Each request of a service, gone from the directory before it is given; MOST_AT_ONCE of them.

    Hidden names are somebody's half-written files.
    """
    try:
        with directory(home, service, DIRECTORY) as handle:
            if os.fstat(handle).st_uid != uid:
                yield Letter(DIRECTORY, b"", f"the directory does not belong to uid {uid}")
                return
            for name in _names(handle):
                letter = _read(handle, name, uid)
                _discard(handle, name)
                yield letter
    except FileNotFoundError:
        return
    except OSError as error:
        yield Letter(DIRECTORY, b"", f"the directory cannot be read: {error.strerror}")


def _names(handle: int) -> list[str]:
    found: list[str] = []
    with os.scandir(handle) as entries:
        for each in entries:
            if not each.name.startswith("."):
                found.append(each.name)
            if len(found) == MOST_AT_ONCE:
                break
    return sorted(found)


def _read(handle: int, name: str, uid: int) -> Letter:
    shown = name if NAME.fullmatch(name) else "a file with another name"
    try:
        if shown != name:
            raise Refused("its name is no name of a request")
        return Letter(name, _content(handle, name, uid))
    except Refused as error:
        return Letter(shown, b"", str(error))
    except OSError as error:
        link = error.errno == errno.ELOOP
        return Letter(shown, b"", "a link" if link else f"cannot be read: {error.strerror}")


def _content(handle: int, name: str, uid: int) -> bytes:
    file = os.open(name, OPEN_FILE, dir_fd=handle)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise Refused("no regular file")
        if found.st_uid != uid:
            raise Refused(f"belongs to uid {found.st_uid}, not to the service's {uid}")
        if found.st_nlink != 1:
            raise Refused("has a second name elsewhere")
        if found.st_size > LARGEST_BYTES:
            raise Refused(f"{found.st_size} bytes, {LARGEST_BYTES} at most")
        return os.read(file, LARGEST_BYTES + 1)
    finally:
        os.close(file)


def _discard(handle: int, name: str) -> None:
    """Nothing may stay that calls root again at once: what cannot be removed is hidden."""
    try:
        os.unlink(name, dir_fd=handle)
    except IsADirectoryError:
        with contextlib.suppress(OSError):
            hidden = f".refused-{secrets.token_hex(8)}"
            os.rename(name, hidden, src_dir_fd=handle, dst_dir_fd=handle)
    except OSError:
        pass


def names(service: Optional[str]) -> tuple[str, ...]:
    """The directory of a service's fence below home; of the host's, home itself."""
    return () if service is None else (service,)


def read_fence(home: str, service: Optional[str]) -> Optional[str]:
    """What the fence of a service or of the host (None) says, as it is; None without a fence."""
    try:
        with directory(home, *names(service)) as handle:
            os.stat(FENCED, dir_fd=handle, follow_symlinks=False)
            try:
                file = os.open(FENCED, OPEN_FILE, dir_fd=handle)
            except OSError:
                return ""
            with os.fdopen(file, "rb") as opened:
                return opened.read(LARGEST_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        return None


def write_fence(home: str, service: Optional[str], reason: str, text: str, now: Clock) -> None:
    """Keep a service, or with None the host, down until a person comes. Raises OSError."""
    content = {"reason": reason, "text": text, "at": now.at, "by": "react"}
    temporary = f".{FENCED}-{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with directory(home, *names(service)) as handle:
        with os.fdopen(os.open(temporary, flags, 0o644, dir_fd=handle), "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(json.dumps(content).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, FENCED, src_dir_fd=handle, dst_dir_fd=handle)
        os.fsync(handle)


def remove_fence(home: str, service: Optional[str]) -> bool:
    """Take it away; False when there was none. Raises OSError."""
    with directory(home, *names(service)) as handle:
        try:
            os.unlink(FENCED, dir_fd=handle)
        except FileNotFoundError:
            return False
    return True
