"""What planning needs of a model that lies on the host, in one round trip."""

from __future__ import annotations

import base64
import json
import shlex
import zlib
from pathlib import Path

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override

import multigpu.host
from multigpu.store.models import HostFile

READER = (Path(multigpu.host.__file__).parent / "model_files.py").read_text()


class ModelFiles(FactBase[dict[str, HostFile] | None]):
    """Base name -> size and first bytes. Argument: `path`, an absolute path on the host."""

    @staticmethod
    @override
    def default() -> None:
        return None

    @override
    def command(self, path: str) -> str:
        return f"python3 - {shlex.quote(path)} <<'MULTIGPU_MODEL'\n{READER}\nMULTIGPU_MODEL\n"

    @override
    def process(self, output: list[str]) -> dict[str, HostFile]:
        try:
            files = json.loads(next(line for line in output if line.startswith('{"schema"')))
            return {
                name: HostFile(file["size_bytes"], zlib.decompress(base64.b64decode(file["head"])))
                for name, file in files["files"].items()
            }
        except (StopIteration, ValueError, KeyError, zlib.error):
            raise FactProcessError("the model on the host could not be read: no answer") from None
