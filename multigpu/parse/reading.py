"""What every reader of a tool's output gives: the value, and the lines it could not read.

A reader never raises on text: what it cannot read stays out of the value and stands in `unread`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


@dataclass(frozen=True)
class Unread:
    """A line that the reader made nothing of; `line` counts from 1."""

    line: int
    text: str


@dataclass(frozen=True)
class Reading(Generic[T]):
    """The value in one text, and what was left over.

    `lines` counts the lines of the text that are not empty.
    """

    value: T
    unread: tuple[Unread, ...] = ()
    lines: int = 0


class Lines:
    """The lines of one text without ANSI codes, each with a mark once a reader understood it."""

    def __init__(self, text: str) -> None:
        # splitlines() would also break at form feeds and Unicode separators inside a line.
        plain = ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
        self.texts = tuple(plain.split("\n"))
        self._understood = [not line.strip() for line in self.texts]

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Number (from 0) and text of every line."""
        return enumerate(self.texts)

    def mark(self, index: int) -> None:
        """Count a line as understood."""
        self._understood[index] = True

    def match(self, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
        """Matches of a pattern, at most one a line, each line marked."""
        for index, line in enumerate(self.texts):
            if match := pattern.search(line):
                self._understood[index] = True
                yield match

    def first(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """The first match; every line that matches is marked."""
        return next(iter(list(self.match(pattern))), None)

    def reading(self, value: T) -> Reading[T]:
        """The value with the lines that nobody marked."""
        rest = zip(self.texts, self._understood, strict=True)
        unread = tuple(Unread(i, line) for i, (line, done) in enumerate(rest, 1) if not done)
        return Reading(value, unread, sum(bool(line.strip()) for line in self.texts))


@dataclass(frozen=True)
class Kind:
    """One format of one tool.

    `name` is what `--as` takes (kebab-case: `nvidia-smi-q-x`), `command` the command line that
    prints it, as the capture's `tools` are named, `title` says it to a person. `recognise` sees
    the whole text and tells how sure it is, 0 (no) to 1; it must be quick and never raise.
    """

    name: str
    title: str
    recognise: Callable[[str], float]
    read: Callable[[str], Reading[Any]]
    command: str | None = None


def signature(*patterns: str, sure: float = 0.9, within: int = 200_000) -> Callable[[str], float]:
    """Recognises a text in which every one of the patterns occurs (multi-line mode)."""
    compiled = [re.compile(pattern, re.MULTILINE) for pattern in patterns]

    def recognise(text: str) -> float:
        head = ANSI.sub("", text[:within])
        return sure if all(pattern.search(head) for pattern in compiled) else 0.0

    return recognise
