"""The programs for a GPU host as one archive: `multigpu.host` and nvidia-ml-py, nothing else.

Deterministic, so that its name says its content and an unchanged program is never uploaded again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import zipfile
from pathlib import Path

import multigpu.host
from multigpu.errors import MultigpuError
from multigpu.install import PREFIX, Upload
from multigpu.store import texts

_MAIN = "import sys\nfrom multigpu.host.__main__ import main\nsys.exit(main(sys.argv))\n"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


def host_program() -> Upload:
    """The archive as an upload. Raises MultigpuError when nvidia-ml-py is not installed here."""
    content = _archive()
    digest = hashlib.sha256(content).hexdigest()
    path = f"{PREFIX}/host/multigpu-host-{digest[:12]}.pyz"
    return Upload(path, content=content, sha256=digest, size_bytes=len(content))


def _archive() -> bytes:
    here = Path(multigpu.host.__file__).parent
    members = {"__main__.py": _MAIN}
    members["multigpu/__init__.py"] = texts.read(here.parent / "__init__.py")
    members |= {
        f"multigpu/host/{path.name}": texts.read(path) for path in sorted(here.glob("*.py"))
    }
    members["pynvml.py"] = texts.read(_pynvml())
    stream = io.BytesIO()
    # Stored, not deflated: zlib's output differs between its builds, and with it the name.
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), text)
    return stream.getvalue()


def _pynvml() -> Path:
    spec = importlib.util.find_spec("pynvml")
    if spec is None or spec.origin is None:
        raise MultigpuError("nvidia-ml-py is not installed: pip install 'multigpu[controller]'")
    return Path(spec.origin)
