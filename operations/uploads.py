"""Files named by their content: program archives, wheels, models."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterable, Iterator

from pyinfra import host
from pyinfra.api import FileUploadCommand, FunctionCommand, QuoteString, StringCommand, operation

from multigpu import generation
from multigpu.hardware import Host
from multigpu.install import Upload
from operations.common import Staging, fail, install, locked, script


@operation()
def uploads(
    *, machine: Host, wanted: tuple[Upload, ...]
) -> Generator[StringCommand | FileUploadCommand | FunctionCommand, None, None]:
    """Bring what is missing; a file counts as there when its path has the right size."""
    missing = generation.uploads_missing(machine, wanted)
    if not missing:
        host.noop(f"{len(wanted)} files are there")
        return
    shortage = generation.lacks_room(machine, missing)
    if shortage is not None:
        yield fail(shortage)
        return
    yield from bring(missing)


def bring(missing: Iterable[Upload]) -> Iterator[StringCommand | FileUploadCommand]:
    """Commands that put files in their places, each checked and whole or not there."""
    staging = Staging()
    yield staging.create()
    for number, upload in enumerate(missing):
        staged = f"{staging.path}/{number}"
        source = upload.source or io.BytesIO(upload.content or b"")
        yield staging.put(source, str(number))
        placed = script(*_checked(staged, upload), *install(staged, upload.path, "0644"))
        yield staging.or_remove(locked(placed))
    yield staging.remove()


def _checked(staged: str, upload: Upload) -> Iterator[StringCommand]:
    """Refuse what arrived damaged."""
    if upload.sha256 is not None:
        line = QuoteString(f"{upload.sha256}  {staged}")
        yield StringCommand("echo", line, "|", "sha256sum", "--check", "--quiet")
