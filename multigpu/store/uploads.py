"""Model files on their way to a host."""

from __future__ import annotations

import hashlib
from pathlib import Path

from multigpu import fetching
from multigpu.errors import ModelError
from multigpu.generation import model_directory
from multigpu.hub_files import READ_BY_RUNTIMES
from multigpu.install import Upload
from multigpu.plan import ModelSpec, Source
from multigpu.store.texts import file_identity

# What a runtime reads of a Hugging Face directory; other weights (.bin, .pth) can run code.
_SUFFIXES = READ_BY_RUNTIMES


def model(spec: ModelSpec, *, base: Path) -> tuple[str, tuple[Upload, ...]]:
    """The path that the runtime is given on the host, and the files to bring from here for it.

    Raises ModelError when a file of the controller is gone or is not the planned one any more.
    """
    fetched = fetching.fetch(spec)
    if fetched is not None:
        return fetched.path, ()
    if spec.source is not Source.CONTROLLER:
        return spec.path, ()
    path = base / spec.path
    if path.is_dir():
        return _directory(path)
    return _file(path, spec)


def _file(path: Path, spec: ModelSpec) -> tuple[str, tuple[Upload, ...]]:
    if not path.is_file():
        raise ModelError(f"{path}: the planned model is not there: restore it, or plan another")
    size = path.stat().st_size
    if spec.sha256 is None or spec.size_bytes != size:
        raise ModelError(
            f"{path} has {size} bytes, planned were {spec.size_bytes}: run deploys/plan.py"
        )
    target = f"{model_directory(spec.sha256)}/{path.name}"
    return target, (Upload(target, str(path), None, spec.sha256, size),)


def _directory(path: Path) -> tuple[str, tuple[Upload, ...]]:
    files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
    identities = [(file, *file_identity(str(file))) for file in files]
    names = "".join(f"{file.name} {digest}\n" for file, digest, _ in identities)
    target = f"{model_directory(hashlib.sha256(names.encode()).hexdigest())}/{path.name}"
    return target, tuple(
        Upload(f"{target}/{file.name}", str(file), None, digest, size)
        for file, digest, size in identities
    )
