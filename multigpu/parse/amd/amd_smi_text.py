"""amd-smi's text: indented `KEY: VALUE` blocks under `GPU: n`, as nested dictionaries.

Keys come out in lower case, so that they read like those of `--json`. Several commands in one text
(`list`, `static`, `metric`) are put together by GPU.
"""

from __future__ import annotations

import re
from typing import Any

from multigpu.parse.reading import Lines

GPU = re.compile(r"^\s{0,12}GPU:\s{0,4}(\d{1,3})\s*$", re.ASCII)
KEY = re.compile(r"^(\s{0,60})([A-Za-z][\w /().-]{0,60}?):(?:\s{1,8}(\S.{0,2000}))?\s*$", re.ASCII)
PROCESS = "process_info"

Block = dict[str, Any]


def blocks(lines: Lines) -> dict[int, Block]:
    """GPU number -> its keys. A line that is not indented ends a block."""
    found: dict[int, Block] = {}
    stack: list[tuple[int, Block]] = []
    for position, line in lines:
        if match := GPU.match(line):
            indent = len(line) - len(line.lstrip())
            stack = [(indent, found.setdefault(int(match[1]), {}))]
            lines.mark(position)
        elif stack and (match := KEY.match(line)) and len(match[1]) > stack[0][0]:
            _place(stack, len(match[1]), match[2].lower().replace(" ", "_"), match[3])
            lines.mark(position)
        elif line.strip():
            stack = stack if line.startswith("  ") else []
    return found


def _place(stack: list[tuple[int, Block]], indent: int, key: str, value: str | None) -> None:
    """Put one key where its indentation says; the first of a repeated key stays."""
    while stack[-1][0] >= indent:
        stack.pop()
    parent = stack[-1][1]
    if value is not None:
        parent.setdefault(key, value.strip())
        return
    if key == PROCESS:
        section: Block = {}
        parent.setdefault("process_list", []).append({key: section})
    else:
        section = parent.setdefault(key, {})
    stack.append((indent, section if isinstance(section, dict) else {}))
