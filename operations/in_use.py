"""What the host keeps of its services: which runtime each is in use with, and since when."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from multigpu.units import TextFile

WRITE = 'printf %s "$2" >"$1.multigpu-new" && chmod "$3" "$1.multigpu-new" && '
WRITE += 'mv -f "$1.multigpu-new" "$1"'


@operation()
def runtimes_in_use(
    *, records: tuple[TextFile, ...], unwanted: tuple[str, ...]
) -> Generator[StringCommand, None, None]:
    """Write these records, root's and readable, and remove those of services that are gone."""
    if not records and not unwanted:
        host.noop("every service is in use with the runtime on record")
        return
    for file in records:
        words = (QuoteString(word) for word in (file.path, file.content, file.mode))
        yield StringCommand("sh", "-c", QuoteString(WRITE), "multigpu-record", *words)
    if unwanted:
        yield StringCommand("rm", "-f", *(QuoteString(path) for path in unwanted))
