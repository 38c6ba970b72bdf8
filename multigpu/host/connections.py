"""Who is connected to a port of this host, as the kernel tells it (proc(5), /proc/net/tcp)."""

from __future__ import annotations

TABLES = ("/proc/self/net/tcp", "/proc/self/net/tcp6")
ESTABLISHED = "01"


def established(port: int, tables: tuple[str, ...] = TABLES) -> int:
    """How many connections to a local port are open at both ends; without its table 0."""
    return sum(_count(path, f"{port:04X}") for path in tables)


def _count(path: str, port: str) -> int:
    try:
        with open(path, encoding="ascii") as table:
            rows = [line.split() for line in table]
    except OSError:
        return 0
    return sum(
        len(row) > 3 and row[1].rpartition(":")[2] == port and row[3] == ESTABLISHED for row in rows
    )
