"""A source archive that stands in for that of llama-cpp-python: its build packs a real wheel.

Its in-tree backend prints steps as ninja does, waits a little, and gives a wheel with the programs
and libraries of the lab's own llama.cpp wheel under another version.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

PROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "llama-cpp-python"
version = "{version}"
"""
BACKEND = """\
import pathlib, time, zipfile
NAME = "llama_cpp_python-{version}"

INFO = NAME + ".dist-info"
METADATA = ["Metadata-Version: 2.1", "Name: llama-cpp-python", "Version: {version}", ""]
WHEEL = ["Wheel-Version: 1.0", "Root-Is-Purelib: false", "Tag: py3-none-linux_x86_64", ""]

def _metadata():
    return {{INFO + "/METADATA": "\\n".join(METADATA), INFO + "/WHEEL": "\\n".join(WHEEL)}}

def prepare_metadata_for_build_wheel(directory, settings=None):
    for path, text in _metadata().items():
        target = pathlib.Path(directory, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return INFO

def build_wheel(directory, settings=None, metadata=None):
    for step in (1, 2, 3):
        print("[%d/3] Packing what is compiled" % step, flush=True)
        time.sleep({step_s})
    name = NAME + "-py3-none-linux_x86_64.whl"
    record = INFO + "/RECORD"
    target = pathlib.Path(directory, name)
    with zipfile.ZipFile("real.whl") as real, zipfile.ZipFile(target, "w") as made:
        members = [m for m in real.namelist() if m.startswith(("bin/", "lib/"))]
        for member in members:
            made.writestr(member, real.read(member))
        for path, text in _metadata().items():
            made.writestr(path, text)
        made.writestr(record, "".join(m + ",,\\n" for m in [*members, *_metadata(), record]))
    return name
"""
STEP_S = 7.0
"""Longer than the installing program's heartbeat, so that a step is seen on the screen."""


def make_sdist(directory: Path, wheel: Path, version: str, step_s: float = STEP_S) -> Path:
    """The archive, in `directory`; its build packs `wheel` and takes three steps of `step_s`."""
    directory.mkdir(parents=True, exist_ok=True)
    root = f"llama_cpp_python-{version}"
    path = directory / f"{root}.tar.gz"
    members = {
        "pyproject.toml": PROJECT.format(version=version).encode(),
        "backend.py": BACKEND.format(version=version, step_s=step_s).encode(),
        "PKG-INFO": f"Metadata-Version: 2.1\nName: llama-cpp-python\nVersion: {version}\n".encode(),
        "real.whl": wheel.read_bytes(),
    }
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(f"{root}/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path
