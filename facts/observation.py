"""What running services do under a short load: one round trip per host."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override

from multigpu import observation
from multigpu.errors import MultigpuError
from multigpu.observation import ServiceSeen

ABSENT = "multigpu: the program is not there"


class Observation(FactBase[tuple[ServiceSeen, ...] | None]):
    """Runs `observe` on the host; empty when the program is not there.

    Arguments: the program archive's path and the specs.
    """

    @staticmethod
    @override
    def default() -> None:
        return None

    @override
    def command(self, program: str, specs: Iterable[Mapping[str, object]]) -> str:
        spec = json.dumps(list(specs))
        path = shlex.quote(program)
        observe = f"python3 {path} observe --spec {shlex.quote(spec)}"
        return f"if [ -e {path} ]; then {observe}; else echo '{ABSENT}'; fi"

    @override
    def process(self, output: list[str]) -> tuple[ServiceSeen, ...]:
        if output[0] == ABSENT:
            return ()
        try:
            return observation.read("\n".join(output))
        except MultigpuError as error:
            raise FactProcessError(str(error)) from None
