"""Fences of a host, and how far its reactions beyond a restart are set up."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from pyinfra.api import FactBase
from typing_extensions import override

from multigpu.react_unit import FILES, FLAG, PATH, SERVICE

TIMEOUT_S = 30
# Services own the directories of their fences: no link is followed, no pipe waited for.
_PROGRAM = r"""
import json, os, stat, subprocess, sys
home, flag, files, units = json.loads(sys.argv[1])
def text(path, most=100000):
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        return file.read(most).decode("utf-8", "replace")
def fence(path):
    return (text(path, 4096) or "").strip() if os.path.lexists(path) else None
names = sorted(os.listdir(home)) if os.path.isdir(home) else []
said = {name: fence(os.path.join(home, name, "fenced")) for name in names}
def ask(verb, unit):
    return subprocess.run(["systemctl", verb, unit], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL).stdout.decode().strip()
print(json.dumps({
    "host": fence(os.path.join(home, "fenced")),
    "services": {name: content for name, content in said.items() if content is not None},
    "files": {path: text(path) for path in files},
    "on": os.path.exists(flag) and ask("is-active", units[0]) == "active"
        and all(ask("is-enabled", unit) == "enabled" for unit in units)}))
"""


@dataclass(frozen=True)
class ReactionsSeen:
    """`host` is what the host's fence says, None without one; `services` those of services;
    `files` the texts of ours that are there; `on` is true while requests are read."""

    host: str | None = None
    services: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    on: bool = False


class Reactions(FactBase[ReactionsSeen | None]):
    """None: unknown."""

    @staticmethod
    @override
    def default() -> None:
        return None

    @override
    def command(self) -> str:
        asked = json.dumps(["/var/lib/multigpu", FLAG, FILES, [PATH, SERVICE]])
        return f"python3 - '{asked}' <<'MULTIGPU_REACTIONS'\n{_PROGRAM}\nMULTIGPU_REACTIONS\n"

    @override
    def process(self, output: list[str]) -> ReactionsSeen | None:
        try:
            found = json.loads("\n".join(output))
            files = {path: text for path, text in found["files"].items() if text is not None}
            return ReactionsSeen(found["host"], dict(found["services"]), files, bool(found["on"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
