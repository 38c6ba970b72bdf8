"""Whose is the socket that listens at a port: proc(5), /proc/net/tcp and /proc/PID/fd."""

from __future__ import annotations

import errno
import socket
import urllib.parse
from typing import Dict, Iterable, List, Optional, Set

from multigpu.host import processes
from multigpu.host.connections import TABLES

LISTEN = "0A"


def inodes(port: int, tables: Iterable[str] = TABLES) -> Optional[Set[str]]:
    """Inodes of all sockets that listen at a local port; None where no table can be read."""
    found: Optional[Set[str]] = None
    for path in tables:
        try:
            with open(path, encoding="ascii") as table:
                rows = [line.split() for line in table]
        except OSError:
            continue
        found = set() if found is None else found
        wanted = f"{port:04X}"
        found |= {
            row[9]
            for row in rows
            if len(row) > 9 and row[3] == LISTEN and row[1].rpartition(":")[2] == wanted
        }
    return found


def holders(wanted: Set[str], pids: Iterable[int]) -> Dict[str, List[int]]:
    """Which of the processes hold each socket."""
    held: Dict[str, List[int]] = {inode: [] for inode in wanted}
    for pid in pids:
        for path in processes.files(pid):
            if path.startswith("socket:[") and path[8:-1] in held:
                held[path[8:-1]].append(pid)
    return held


def port_of(url: str) -> int:
    """The port of a URL, 0 without one."""
    return urllib.parse.urlsplit(url).port or 0


def taken(url: str) -> bool:
    """True when somebody else listens there, who might answer 200 while the engine still loads."""
    address = urllib.parse.urlsplit(url)
    family = socket.AF_INET6 if ":" in (address.hostname or "") else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # Connections of our own last process that still linger are nobody.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.hostname or "", address.port or 0))
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False
