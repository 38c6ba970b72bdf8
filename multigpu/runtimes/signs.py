"""Log lines that an engine prints about itself, as checks of a verification."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from multigpu.plan import Check

REDEPLOY = "re-run deploys/serve.py; if it stays so, journalctl -u 'multigpu-*'"


def last(pattern: str, lines: Iterable[str]) -> re.Match[str] | None:
    """The last line that matches: an engine may try more than once before it serves."""
    found = None
    for line in lines:
        found = re.search(pattern, line) or found
    return found


def equal(
    name: str, label: str, pattern: str, lines: Iterable[str], expected: str
) -> Iterator[Check]:
    """The last line's groups, joined by a slash, against what was planned; nothing when unsaid."""
    match = last(pattern, lines)
    if match is not None:
        found = "/".join(match.groups())
        yield Check(name, found == expected, f"{label} {found}", f"{label} {expected}", REDEPLOY)
