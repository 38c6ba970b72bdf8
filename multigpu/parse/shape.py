"""Take values out of JSON and out of tools' cells without trusting their shape.

A value of another type counts as absent: a capture may come from a newer or a broken probe.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# How tools say that they do not know (nvidia-smi XML, CSV and tables, drivers 418 to 610).
ABSENT = frozenset(
    {
        "",
        "n/a",
        "err!",
        "unknown error",
        "not supported",
        "not available",
        "not active",
        "insufficient permissions",
        "requested functionality has been deprecated",
        "gpu is lost",
        "gpu requires reset",
        "(null)",
        "unknown",
    }
)


def mapping(value: object) -> dict[str, object]:
    """A JSON object; anything else is empty."""
    return {str(k): v for k, v in value.items()} if isinstance(value, dict) else {}


def items(value: object) -> list[object]:
    """A JSON array; anything else is empty."""
    return list(value) if isinstance(value, list) else []


def text(value: object) -> str | None:
    """A JSON string, without lone surrogates; None for anything else."""
    if not isinstance(value, str):
        return None
    if value.isascii():
        return value
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def lines(value: object) -> str:
    """Text kept as a list of lines, or as one string."""
    if isinstance(value, list):
        return "\n".join(text(line) or "" for line in value)
    return text(value) or ""


def integer(value: object) -> int | None:
    """A JSON integer; a boolean is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def real(value: object) -> float | None:
    """A finite JSON number; a boolean is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e15 else None


def word(cell: str | None) -> str | None:
    """A cell as the tool printed it, None where the tool says that it does not know."""
    stripped = (cell or "").strip()
    return None if stripped.strip("[]").lower() in ABSENT else stripped


def number(cell: str | None) -> float | None:
    """The number a cell begins with: `24564 MiB`, `16x`, `450.00 W`."""
    match = re.match(r"\s*(-?\d{1,12}(?:\.\d{1,6})?)(?![\d.])", cell or "", re.ASCII)
    return float(match[1]) if match else None


def whole(cell: str | None) -> int | None:
    """The integer a cell begins with."""
    value = number(cell)
    return None if value is None else int(value)


@dataclass(frozen=True)
class Tool:
    """One run of a tool. `rc` is None when it was missing, could not start or was cut."""

    rc: int | None = None
    stdout: str = ""
    stderr: str = ""
    timed_out: bool = False
    missing: bool = False
    seconds: float | None = None

    @property
    def ok(self) -> bool:
        """True when the tool ran to its end and reported success."""
        return self.rc == 0 and not self.timed_out

    @property
    def said(self) -> str:
        """First line of what it printed, errors first: the tool's own words for a sentence."""
        for line in (self.stderr + "\n" + self.stdout).splitlines():
            if line.strip():
                return line.strip()[:300]
        return "no output"


def tool(tools: dict[str, object], command: str) -> Tool:
    """The record of one command line; a command that was not captured counts as missing."""
    record = mapping(tools.get(command))
    return Tool(
        rc=integer(record.get("rc")),
        stdout=lines(record.get("stdout")),
        stderr=lines(record.get("stderr")),
        timed_out=record.get("timed_out") is True,
        missing=not record or record.get("missing") is True,
        seconds=real(record.get("seconds")),
    )
