"""The one fact about a machine: a single round trip, a single JSON document."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra.api import FactBase
from typing_extensions import override

from multigpu.errors import MultigpuError
from multigpu.hardware import Host
from multigpu.parse import capture
from multigpu.store.probe_program import program

TIMEOUT_S = 40
"""For `_timeout`: above the probe's own limit, so that a hang is told apart from a slow host."""
NO_PYTHON = "multigpu: no python3"


@dataclass(frozen=True)
class Unreadable:
    """Why an answer is no machine. A value: raised, pyinfra would add a line of its own."""

    reason: str


class Machine(FactBase[tuple[Host, str] | Unreadable | None]):
    """The captured machine as a value, and its text. None: unknown, never "no GPUs".

    Arguments: `machine`, the host's name in the inventory; `paths`, further paths to look at.
    """

    @staticmethod
    @override
    def default() -> None:
        return None

    @override
    def command(self, machine: str, paths: Iterable[str] = ()) -> str:
        self.machine = machine
        arguments = " ".join(f"--path {shlex.quote(path)}" for path in paths)
        return (
            f"command -v python3 >/dev/null 2>&1 || {{ echo '{NO_PYTHON}'; exit 0; }}\n"
            f"python3 - {arguments} <<'MULTIGPU_PROBE'\n{program()}\nMULTIGPU_PROBE\n"
        )

    @override
    def process(self, output: list[str]) -> tuple[Host, str] | Unreadable:
        text = "\n".join(output)
        if text.startswith(NO_PYTHON):
            return Unreadable("no python3 on this host: install it (3.9 or newer)")
        try:
            return capture.read(text, self.machine), text
        except MultigpuError as error:
            return Unreadable(str(error))
        except Exception as error:  # a bug in a reader must not take the other hosts along
            return Unreadable(f"a reader failed, {type(error).__name__}: {error} (please report)")
