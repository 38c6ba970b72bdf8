"""Whether the secrets on a host are those of the controller, without sending or keeping any."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable

from pyinfra.api import FactBase
from typing_extensions import override

from multigpu.credentials import ITERATIONS, Installed

# Python 3.9. Argument 1 is the nonce, the others are paths; a file that is not there is left out.
_PROGRAM = f"""\
import grp, hashlib, json, os, pwd, stat, sys
found = []
for path in sys.argv[2:]:
    try:
        with open(path, "rb") as file:
            state, content = os.fstat(file.fileno()), file.read()
    except OSError:
        continue
    proof = hashlib.pbkdf2_hmac("sha256", content, sys.argv[1].encode(), {ITERATIONS}).hex()
    try:
        owner = pwd.getpwuid(state.st_uid).pw_name + ":" + grp.getgrgid(state.st_gid).gr_name
    except KeyError:
        owner = ""
    found.append([path, proof, "%04o" % stat.S_IMODE(state.st_mode), owner])
print("multigpu-credentials " + json.dumps(found))
"""
MARK = "multigpu-credentials "


class Credentials(FactBase[tuple[Installed, ...] | None]):
    """What the host holds at these paths, proved by a nonce; None when it gave no answer.

    Arguments: `nonce`, new for every run, and `paths`.
    """

    @staticmethod
    @override
    def default() -> None:
        return None

    @override
    def command(self, nonce: str, paths: Iterable[str]) -> str:
        return shlex.join(["python3", "-c", _PROGRAM, nonce, *paths])

    @override
    def process(self, output: list[str]) -> tuple[Installed, ...] | None:
        line = next((line for line in output if line.startswith(MARK)), None)
        if line is None:
            return None
        return tuple(Installed(*each) for each in json.loads(line.removeprefix(MARK)))
