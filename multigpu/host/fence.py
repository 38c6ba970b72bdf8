"""The mark that keeps a service down until a person removes it.

`/var/lib/multigpu/<wish>/fenced`, one line of JSON. The unit asks for its absence
(ConditionPathExists=!); nothing here removes it.
"""

from __future__ import annotations

import json
import os
from typing import Optional

from multigpu.host import state

NAME = "fenced"
REACTIONS = "/run/multigpu/reactions"
"""There while a root unit may reset cards or reboot; it decides what a lost card means then."""


def path(state_directory: str) -> str:
    """The service's own fence."""
    return os.path.join(state_directory, NAME)


def reactions(mark: str = REACTIONS) -> bool:
    """True while something else than a restart is done about a broken card."""
    return os.path.exists(mark)


def put_up(state_directory: Optional[str], reason: str, text: str, at: float) -> bool:
    """Write the mark. False where it could not be written: the next verdict tries again."""
    if state_directory is None:
        return False
    content = {"reason": reason, "text": text, "at": at, "by": "supervisor"}
    return state.write_bytes(path(state_directory), json.dumps(content).encode() + b"\n")
