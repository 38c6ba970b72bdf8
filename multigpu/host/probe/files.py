"""Small files and paths of a host, read without trust in what they hold."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from typing import Any, Dict, Optional


def text_of(data: bytes) -> str:
    """Bytes as text; what is not UTF-8 is kept as a backslash escape."""
    return data.decode("utf-8", "backslashreplace")


def read_text(path: str) -> Optional[str]:
    """A small file as text without the final newline, None when it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return text_of(stream.read(1 << 20)).rstrip("\n")
    except OSError:
        return None


def texts(paths: Dict[str, str]) -> Dict[str, str]:
    """Name -> text of the files that can be read."""
    found = {name: read_text(path) for name, path in paths.items()}
    return {name: text for name, text in found.items() if text is not None}


def under(root: str, path: str) -> str:
    """The path below another root directory; `/` leaves it as it is."""
    return path if root == "/" else root.rstrip("/") + path


def outside(root: str, path: str) -> str:
    """The way back from `under`."""
    return path if root == "/" else path[len(root.rstrip("/")) :]


def path_state(path: str) -> Dict[str, Any]:
    """Size, permission bits, owner and change of content; empty when there is nothing."""
    try:
        state = os.stat(path)
    except OSError:
        return {}
    return {
        "size": state.st_size,
        "mode": f"{stat.S_IMODE(state.st_mode):04o}",
        "owner": owner_of(state),
        "mtime": state.st_mtime,
        "directory": stat.S_ISDIR(state.st_mode),
    }


def owner_of(state: os.stat_result) -> str:
    """`user:group`, numbers where there is no name."""
    try:
        user = pwd.getpwuid(state.st_uid).pw_name
    except KeyError:
        user = str(state.st_uid)
    try:
        group = grp.getgrgid(state.st_gid).gr_name
    except KeyError:
        group = str(state.st_gid)
    return f"{user}:{group}"
