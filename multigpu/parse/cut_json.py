"""JSON as tools print it: with warnings before it, and cut somewhere by a pipe or a paste."""

from __future__ import annotations

import json
import re

from multigpu.parse.reading import Lines

START = re.compile(r"^\s{0,200}[\[{](?=\s{0,4000}(?:[\[{\"\]}]|$))", re.MULTILINE)
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)
PIECE = re.compile(r'\s{0,400}(?:[\[\]{}"]|-?\d|true\b|false\b|null\b|NaN\b)')
DEEPEST = 60
TRIES = 5


def load(text: str) -> object:
    """The first object or array in a text, None without one.

    Of one that is cut everything before its last complete value is kept.
    """
    text = text.replace("\ufeff", "")
    for match, _ in zip(START.finditer(text), range(TRIES), strict=False):
        start = match.end() - 1
        value = _decoded(text, start) or _decoded(_closed(text[start:]), 0)
        if value:
            return value
    return None


def mark(lines: Lines, loaded: object) -> None:
    """Count the lines of a JSON text as understood; those around it stay unread."""
    for index, line in lines:
        if loaded is not None and PIECE.match(line):
            lines.mark(index)


def _decoded(text: str, start: int) -> object:
    try:
        value, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    found: object = value
    return found


def _closed(text: str) -> str:
    """The text up to its last comma, with every bracket that is open there closed."""
    open_brackets: list[str] = []
    kept, closers = 0, ""
    for token in TOKEN.finditer(text):
        mark = token[0]
        if mark in "{[":
            open_brackets.append("}" if mark == "{" else "]")
            if len(open_brackets) > DEEPEST:
                break
            kept, closers = token.end(), "".join(reversed(open_brackets))
        elif mark in "}]":
            if not open_brackets or open_brackets.pop() != mark:
                break
            kept, closers = token.end(), "".join(reversed(open_brackets))
        elif mark == ",":
            kept, closers = token.start(), "".join(reversed(open_brackets))
    return text[:kept] + closers
