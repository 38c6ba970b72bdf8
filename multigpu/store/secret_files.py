"""Files of the controller that hold a secret: read whole, never shown."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from multigpu.credentials import Secret, Wanted
from multigpu.errors import MultigpuError

OTHERS = stat.S_IRWXG | stat.S_IRWXO
LARGEST_BYTES = 65536


def load(wanted: Wanted) -> Secret:
    """The secret as it should lie on the host; one line ends with a newline.

    Raises MultigpuError, which names the file and never shows its content, when it is not there, is
    open to others, or holds something else.
    """
    path = Path(wanted.source_path).expanduser()
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise MultigpuError(f"{path}: {error.strerror}") from None
    if mode & OTHERS:
        raise MultigpuError(
            f"{path} holds a secret and has mode {mode:04o}, needed is 0600: chmod 600 it"
        )
    reason = _unfit(content, wanted.several_lines)
    if reason is not None:
        raise MultigpuError(f"{path} {reason}")
    return Secret(wanted.path, content if wanted.several_lines else content.strip() + b"\n")


def _unfit(content: bytes, several_lines: bool) -> str | None:
    if not content.strip():
        return "is empty, needed is a secret: write it there"
    if len(content) > LARGEST_BYTES:
        return f"has more than {LARGEST_BYTES} bytes: name the file that holds the secret"
    if several_lines:
        return None
    if len(content.strip().splitlines()) > 1:
        return "has several lines, needed is one: leave the secret alone in it"
    if not content.isascii():
        return "holds other than ASCII characters, which HTTP headers cannot carry"
    return None
