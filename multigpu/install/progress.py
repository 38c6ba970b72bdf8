"""How far an installation is, from what the host shows of its unit."""

from __future__ import annotations

import json
from dataclasses import replace

from multigpu.fetching import Watched
from multigpu.fetching import watched as read

RUN = "/run"
"""Status files are gone after a reboot, like the units they speak of."""


def status_path(unit: str) -> str:
    """Where the unit writes `{"line": ...}` while it works, `{"reason": ...}` when it failed."""
    return f"{RUN}/{unit.removesuffix('.service')}.json"


def watched(text: str) -> Watched:
    """Reads `systemctl show -p ActiveState -p Job`, `stamp` if it is there, and the status file."""
    return replace(read(text), line=_line(text))


def _line(text: str) -> str | None:
    status = next((line for line in text.splitlines() if line.startswith('{"')), "")
    try:
        found = json.loads(status)
    except ValueError:
        return None
    line = found.get("line") if isinstance(found, dict) else None
    return line if isinstance(line, str) else None
