"""Doors open one way: deploys -> operations -> facts -> multigpu; I/O only in three rooms."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("multigpu", "facts", "operations", "deploys", "inventories")
MAY_IMPORT = {"multigpu": 1, "facts": 2, "operations": 3, "deploys": 4, "inventories": 1}
IO_ROOMS = ("multigpu/host/", "multigpu/store/", "multigpu/cli/")
IO_MODULES = {"subprocess", "socket", "urllib", "http", "pathlib", "shutil", "tempfile", "glob",
              "requests", "huggingface_hub", "gguf", "os"}  # fmt: skip
DATA_READERS = {"multigpu/gpus/gpu_models.py", "multigpu/model/config_json.py"}
"""Those that read a table of multigpu/data, which is part of the package."""
FILES = sorted(
    p.relative_to(ROOT).as_posix() for room in ROOMS for p in (ROOT / room).rglob("*.py")
)


def imports(tree: ast.AST) -> Iterator[str]:
    """Every imported name, dotted: `from a import b` gives a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def broken(file: str, source: str) -> list[str]:
    """What this file does through a closed door."""
    tree, room = ast.parse(source), file.split("/")[0]
    found = [name for name in imports(tree) if not allowed(file, room, name)]
    if room == "multigpu" and not file.startswith(IO_ROOMS):
        calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
        found += [f.id for f in calls if isinstance(f, ast.Name) and f.id in ("open", "print")]
    return found


def allowed(file: str, room: str, name: str) -> bool:
    top = name.split(".")[0]
    if file.startswith("multigpu/host/"):
        ours = f"{name}.".startswith("multigpu.host.")
        # Where a host has no prometheus_client, the exporter does without.
        libraries = ("pynvml", "prometheus_client") if "exporter" in file else ("pynvml",)
        return ours or top in libraries or top in sys.stdlib_module_names
    if f"{name}.".startswith("urllib.parse."):
        return True  # texts, no I/O
    if room == "multigpu" and top in IO_MODULES:
        return file.startswith(IO_ROOMS)
    if room == "multigpu" and top == "importlib" and not file.startswith(IO_ROOMS):
        return file in DATA_READERS and name.startswith("importlib.resources")
    if top in ROOMS:
        return top in ROOMS[: MAY_IMPORT[room]]
    return top != "pyinfra" or room != "multigpu"


@pytest.mark.parametrize("file", FILES)
def test_this_file_uses_open_doors_only(file: str) -> None:
    assert broken(file, (ROOT / file).read_text()) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("multigpu/plan.py", "import pyinfra"),
        ("multigpu/plan.py", "from facts.machine import Machine"),
        ("multigpu/plan.py", "def f():\n    import subprocess"),
        ("multigpu/plan.py", "from pathlib import Path"),
        ("multigpu/plan.py", "open('x')"),
        ("multigpu/plan.py", "from importlib.resources import files"),
        ("multigpu/plan.py", "import importlib.resources"),
        ("multigpu/gpus/gpu_models.py", "from importlib import import_module"),
        ("multigpu/store/texts.py", "from pyinfra import host"),
        ("multigpu/host/probe/tools.py", "import multigpu.plan"),
        ("multigpu/host/probe/tools.py", "from multigpu import plan"),
        ("multigpu/host/probe/tools.py", "import jinja2"),
        ("facts/machine.py", "import operations"),
        ("operations/units.py", "from deploys.common import say"),
    ],
)
def test_a_closed_door_is_noticed(file: str, source: str) -> None:
    assert broken(file, source)
