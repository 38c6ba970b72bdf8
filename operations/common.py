"""What every operation here shares: refusing in one line, and a private way in for files."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import IO

from pyinfra import logger
from pyinfra.api import FileUploadCommand, FunctionCommand, Host, QuoteString, State, StringCommand


def _fail(state: State, host: Host, reason: str) -> bool:
    # pyinfra calls fn(state, host, ...) by these very names; False fails without a traceback.
    host.log_styled(reason, fg="red", log_func=logger.error)
    return False


def fail(reason: str) -> FunctionCommand:
    """A command that fails this host alone, with one line."""
    return FunctionCommand(_fail, [reason], {})


class Staging:
    """A directory on the host that only the SSH user can read, for files on their way.

    pyinfra's own upload under sudo leaves a world-readable copy in the temporary directory.
    """

    def __init__(self) -> None:
        self.path = f"/var/tmp/multigpu-{secrets.token_hex(12)}"

    def create(self) -> StringCommand:
        """Make it; fails when somebody made it before."""
        return StringCommand("mkdir", "-m", "0700", self.path, _sudo=False)

    def put(self, source: str | IO[bytes], name: str) -> FileUploadCommand:
        """Upload one file under a plain name."""
        return FileUploadCommand(source, f"{self.path}/{name}", _sudo=False)

    def remove(self) -> StringCommand:
        """Remove it with all that is in it."""
        return StringCommand("rm", "-rf", self.path)


def install(staged: str, path: str, mode: str) -> Iterator[StringCommand]:
    """Move a staged file into place: root-owned, complete under its final name or not there."""
    directory, temporary = path.rsplit("/", 1)[0], f"{path}.multigpu-new"
    flags = ("-o", "root", "-g", "root", "-m", mode)
    yield StringCommand("install", "-d", "-m", "0755", QuoteString(directory))
    yield StringCommand("install", *flags, QuoteString(staged), QuoteString(temporary))
    yield StringCommand("mv", "-f", QuoteString(temporary), QuoteString(path))


def script(*commands: StringCommand) -> StringCommand:
    """Several commands in one round trip; stops at the first that fails."""
    return StringCommand(*commands, _separator=" && ")
