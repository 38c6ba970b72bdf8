"""Write the example of docs/plan-json.md anew, by the command that stands there: `make docs`."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path

from multigpu.cli import main

PAGE = Path(__file__).parent.parent / "docs" / "plan-json.md"
COMMAND = (
    *("plan", "--gpus", "RTX 3090", "--model", "inventories/models/Qwen3-8B"),
    *("--wish", "objective=throughput", "--wish", "concurrency=32", "--json"),
)
WIDTH = 90
INNERMOST = re.compile(r"[\[{]\n([^\[\]{}]*)\n\s*[\]}]")


def example() -> str:
    """The document, innermost lists of numbers and short objects on a line."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(list(COMMAND))
    text = json.dumps(json.loads(out.getvalue()), indent=1)
    return "\n".join(INNERMOST.sub(_short, text).splitlines()) + "\n"


def _short(found: re.Match[str]) -> str:
    items = [line.strip() for line in found[1].splitlines()]
    text = found[0][0] + " ".join(items) + found[0][-1]
    words = found[0][0] == "[" and '"' in text
    return found[0] if words or len(text) > WIDTH else text


if __name__ == "__main__":
    head, start, rest = PAGE.read_text(encoding="utf-8").partition("```json\n")
    _, end, tail = rest.partition("```")
    PAGE.write_text(head + start + example() + end + tail, encoding="utf-8")
