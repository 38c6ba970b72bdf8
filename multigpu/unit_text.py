"""Templates and quoting of systemd text, for every unit of ours.

Quoting follows systemd.service(5) ("Command lines") and systemd.exec(5) ("EnvironmentFile=").
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

from jinja2 import DictLoader, Environment, StrictUndefined

# "#" and ";" at the begin of a line are comments, even within a continued one; a CR ends a line.
_PLAIN_WORD = re.compile(r"[A-Za-z0-9_@%$+=:,./-]+")
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\x7f": "\\x7f"} | {
    chr(code): f"\\x{code:02x}" for code in range(1, 32)
}


def exec_word(word: str) -> str:
    """One argument of ExecStart=: quoted, with specifiers and variables made literal."""
    literal = word.replace("%", "%%").replace("$", "$$")
    if _PLAIN_WORD.fullmatch(literal):
        return literal
    return '"' + "".join(_ESCAPES.get(c, c) for c in literal) + '"'


def exec_line(argv: Iterable[str]) -> str:
    """ExecStart= with each flag and its values on a line of their own."""
    lines: list[list[str]] = [[]]
    for word in argv:
        if word.startswith("--"):
            lines.append([])
        lines[-1].append(exec_word(word))
    return " \\\n  ".join(" ".join(line) for line in lines if line)


def env_value(value: str) -> str:
    """One value of an environment file, quoted when it needs to be."""
    if _PLAIN_VALUE.fullmatch(value):
        return value
    for special in '\\"`$':
        value = value.replace(special, "\\" + special)
    return f'"{value}"'


def comment(text: str) -> str:
    """One line. systemd before 254 lets a backslash at its end swallow the next line."""
    return " ".join(text.split()).rstrip("\\ ")


def environment(templates: Mapping[str, str]) -> Environment:
    """Jinja over templates that are given as text; one may include another by its name."""
    # Unit files are no HTML: nothing is escaped here, the filters do systemd's quoting.
    found = Environment(
        loader=DictLoader(templates),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,
    )
    found.filters |= {"exec_line": exec_line, "env_value": env_value, "comment": comment}
    return found


def digest(text: str) -> str:
    """Short content hash: 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
