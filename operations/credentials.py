"""Secrets on the host: installed by a private way, for root alone, and removed with their wish."""

from __future__ import annotations

import io
from collections.abc import Generator

from pyinfra import host
from pyinfra.api import FileUploadCommand, QuoteString, StringCommand, operation

from multigpu.credentials import DIRECTORY, MODE, Secret
from operations.common import Staging, script


@operation()
def credentials(
    *, missing: tuple[Secret, ...]
) -> Generator[StringCommand | FileUploadCommand, None, None]:
    """Install these secrets; nothing is compared or shown here, and each is whole or not there."""
    if not missing:
        host.noop("secrets are as on the controller")
        return
    staging = Staging()
    yield staging.create()
    for number, secret in enumerate(missing):
        staged = f"{staging.path}/{number}"
        # The directory is private; so is the file before it has content.
        yield StringCommand("install", "-m", MODE, "/dev/null", staged, _sudo=False)
        yield staging.put(io.BytesIO(secret.content), str(number))
        yield staging.or_remove(_install(staged, secret.path))
    yield staging.remove()


@operation()
def forget(*, paths: tuple[str, ...]) -> Generator[StringCommand, None, None]:
    """Remove secrets that no service has any more, once no unit names them."""
    if not paths:
        host.noop("no secret is left over")
        return
    yield StringCommand("rm", "-f", *(QuoteString(path) for path in paths))


def _install(staged: str, path: str) -> StringCommand:
    new = f"{path}.multigpu-new"
    owned = ("-o", "root", "-g", "root")
    return script(
        StringCommand("install", "-d", "-m", "0700", *owned, QuoteString(DIRECTORY)),
        StringCommand("install", "-m", MODE, *owned, staged, QuoteString(new)),
        StringCommand("mv", "-f", QuoteString(new), QuoteString(path)),
    )
