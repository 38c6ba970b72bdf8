"""What every operation here shares: refusing in one line, and a private way in for files."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import IO

from pyinfra import logger
from pyinfra.api import FileUploadCommand, FunctionCommand, Host, QuoteString, State, StringCommand

from multigpu.install import PREFIX


def _fail(state: State, host: Host, reason: str) -> bool:
    # pyinfra calls fn(state, host, ...) by these very names; False fails without a traceback.
    host.log_styled(reason, fg="red", log_func=logger.error)
    return False


def fail(reason: str) -> FunctionCommand:
    """A command that fails this host alone, with one line."""
    return FunctionCommand(_fail, [reason], {})


STAGING = "/var/tmp/multigpu-staging-"
ABANDONED_MIN = 30
# A run that was killed leaves its directory behind; one that is still filled is another run's.
_CREATE = """\
path=$1 prefix=$2 minutes=$3
for old in "$prefix"*; do
  [ -O "$old" ] && [ -z "$(find "$old" -mmin "-$minutes" | head -n 1)" ] && rm -rf "$old"
done
mkdir -m 0700 "$path"
"""


class Staging:
    """A directory on the host that only the SSH user can read, for files on their way.

    pyinfra's own upload under sudo leaves a world-readable copy in the temporary directory.
    """

    def __init__(self) -> None:
        self.path = f"{STAGING}{secrets.token_hex(12)}"

    def create(self) -> StringCommand:
        """Make it, after abandoned ones are gone; fails when somebody made it before."""
        arguments = ("staging", self.path, STAGING, ABANDONED_MIN)
        return StringCommand("sh", "-c", QuoteString(_CREATE), *arguments, _sudo=False)

    def put(self, source: str | IO[bytes], name: str) -> FileUploadCommand:
        """Upload one file under a plain name."""
        return FileUploadCommand(source, f"{self.path}/{name}", _sudo=False)

    def remove(self) -> StringCommand:
        """Remove it with all that is in it."""
        return StringCommand("rm", "-rf", self.path)

    def or_remove(self, command: StringCommand) -> StringCommand:
        """The command; when it fails, so does this, and nothing is left behind."""
        return StringCommand(command, "|| {", self.remove(), "; exit 1; }")


def install(staged: str, path: str, mode: str) -> Iterator[StringCommand]:
    """Move a staged file into place: root-owned, complete under its final name or not there."""
    directory, temporary = path.rsplit("/", 1)[0], f"{path}.multigpu-new"
    flags = ("-o", "root", "-g", "root", "-m", mode)
    yield StringCommand("install", "-d", "-m", "0755", QuoteString(directory))
    yield StringCommand("install", *flags, QuoteString(staged), QuoteString(temporary))
    yield StringCommand("mv", "-f", QuoteString(temporary), QuoteString(path))
    yield StringCommand("rm", "-f", QuoteString(staged))


def locked(command: StringCommand) -> StringCommand:
    """One run at a time: another one would write the same temporary name."""
    return StringCommand("flock", PREFIX, "sh", "-c", QuoteString(command))


def script(*commands: StringCommand) -> StringCommand:
    """Several commands in one round trip; stops at the first that fails."""
    return StringCommand(*commands, _separator=" && ")
