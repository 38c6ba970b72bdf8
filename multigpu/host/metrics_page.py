"""Reads a page in Prometheus' text format as far as judging an engine needs it.

https://prometheus.io/docs/instrumenting/exposition_formats/: `name{labels} value [timestamp]`, the
last line ends with a line feed too, so that a page that was torn off shows.
"""

from __future__ import annotations

import math
import re
from typing import Dict, Iterable, Optional, Tuple

from multigpu.host.judging import Page

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
VALUE = re.compile(r"\s+(\S+)(\s+-?\d+)?\s*$")


def sums(text: str, names: Iterable[str]) -> Dict[str, float]:
    """The sum over all labels of each named metric that stands there with a finite number.

    A metric of which one row cannot be read is not there: half a sum would look like movement.
    """
    wanted, spoiled = set(names), set()
    found: Dict[str, float] = {}
    if not text.endswith("\n"):
        return {}
    for line in text.split("\n"):
        matched = NAME.match(line)
        if matched is None or matched[0] not in wanted:
            continue
        value = _value(line[matched.end() :])
        if value is None:
            spoiled.add(matched[0])
        else:
            found[matched[0]] = found.get(matched[0], 0.0) + value
    return {name: value for name, value in found.items() if name not in spoiled}


def _value(rest: str) -> Optional[float]:
    if rest.startswith("{"):
        closed = _after_labels(rest)
        if closed is None:
            return None
        rest = " " + rest[closed:]
    matched = VALUE.fullmatch(rest)
    try:
        value = float(matched[1]) if matched else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _after_labels(rest: str) -> Optional[int]:
    """Where the labels end; a value of a label may hold braces and escaped quotes."""
    quoted, at = False, 1
    while at < len(rest):
        if quoted and rest[at] == "\\":
            at += 1
        elif rest[at] == '"':
            quoted = not quoted
        elif rest[at] == "}" and not quoted:
            return at + 1
        at += 1
    return None


def read(text: str, busy: Tuple[str, ...], moving: Tuple[str, ...]) -> Optional[Page]:
    """What the page says of the engine; None when one of the gauges or all counters are missing.

    Some counters appear with the first request (SGLang's): one that is not there yet is 0.
    """
    found = sums(text, (*busy, *moving))
    if any(name not in found for name in busy) or not any(name in found for name in moving):
        return None
    return Page(
        sum(max(0.0, found[name]) for name in busy),
        tuple(found.get(name, 0.0) for name in moving),
    )
