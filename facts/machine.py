"""The one fact about a machine: a single round trip, a single JSON document."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override

import multigpu.host
from multigpu.errors import MultigpuError
from multigpu.hardware import Host
from multigpu.parse import capture

PROBE = (Path(multigpu.host.__file__).parent / "probe.py").read_text()
TIMEOUT_S = 40
"""For `_timeout`: above the probe's own limit, so that a hang is told apart from a slow host."""
NO_PYTHON = "multigpu: no python3"


class Machine(FactBase[tuple[Host, str] | None]):
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
            f"python3 - {arguments} <<'MULTIGPU_PROBE'\n{PROBE}\nMULTIGPU_PROBE\n"
        )

    @override
    def process(self, output: list[str]) -> tuple[Host, str]:
        text = "\n".join(output)
        if text.startswith(NO_PYTHON):
            raise FactProcessError("no python3 on this host: install it (3.9 or newer)")
        try:
            return capture.read(text, self.machine), text
        except MultigpuError as error:
            raise FactProcessError(str(error)) from None
        except Exception as error:  # a bug in a reader must not take the other hosts along
            kind = type(error).__name__
            raise FactProcessError(f"a reader failed, {kind}: {error} (please report)") from None
