"""The probe's toolchain and runtimes, and their readers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from multigpu.host.probe import toolchain as probe
from multigpu.managed import Generation
from multigpu.parse import toolchain as readers
from multigpu.toolchain import Python


def program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def read(root: Path) -> object:
    return json.loads(json.dumps(probe.read_toolchain(str(root), 2.0)))


def test_interpreters_are_told_with_what_venv_needs(tmp_path: Path) -> None:
    program(tmp_path / "usr/bin/python3.12")
    program(tmp_path / "usr/bin/python3.12-config")
    (tmp_path / "usr/bin/python3").symlink_to("python3.12")
    program(tmp_path / "usr/local/bin/python3.13")
    (tmp_path / "usr/lib/python3.12/ensurepip").mkdir(parents=True)
    chain = readers.read_toolchain(read(tmp_path))
    assert chain is not None
    assert chain.pythons == (
        Python("/usr/bin/python3", (3, 12), True),
        Python("/usr/bin/python3.12", (3, 12), True),
        Python("/usr/local/bin/python3.13", (3, 13), False),
    )


def test_compilers_beside_the_path_are_found_and_asked_for_their_version(tmp_path: Path) -> None:
    said = "echo 'Cuda compilation tools, release 12.8, V12.8.93'"
    program(tmp_path / "usr/local/cuda/bin/nvcc", f"#!/bin/sh\n{said}\n")
    program(tmp_path / "usr/local/bin/uv", "#!/bin/sh\necho 'uv 0.13.9 (x86_64)'\n")
    (tmp_path / "usr/include/vulkan").mkdir(parents=True)
    chain = readers.read_toolchain(read(tmp_path))
    assert chain is not None
    assert (chain.nvcc, chain.uv) == ((12, 8), "0.13.9")
    assert chain.programs >= {"nvcc", "uv"}
    assert chain.paths == {"/usr/include/vulkan"}


def test_a_compiler_that_hangs_holds_nothing_up(tmp_path: Path) -> None:
    program(tmp_path / "usr/local/cuda/bin/nvcc", "#!/bin/sh\nsleep 30\n")
    found = probe.read_program(str(tmp_path), "nvcc", "--version", 0.3)
    assert found == {"path": str(tmp_path / "usr/local/cuda/bin/nvcc"), "version": None}


def test_runtimes_and_the_record_of_what_serves_are_read(tmp_path: Path) -> None:
    for name in ("vllm-1-aa", "vllm-2-bb"):
        (tmp_path / "opt/multigpu/runtimes" / name).mkdir(parents=True)
    service = tmp_path / "opt/multigpu/services/chat"
    service.mkdir(parents=True)
    (service / "current").symlink_to("../../runtimes/vllm-2-bb")
    found = json.loads(json.dumps(probe.read_runtimes(str(tmp_path))))
    assert readers.read_runtimes(found) == ("vllm-1-aa", "vllm-2-bb")
    assert readers.read_generations(found) == (Generation("chat", "vllm-2-bb", None),)


@pytest.mark.parametrize("part", [None, [], "x", 7])
def test_a_capture_of_an_older_probe_says_nothing(part: object) -> None:
    assert readers.read_toolchain(part) is None
    assert readers.read_runtimes(part) is None
    assert readers.read_generations(part) == ()


@pytest.mark.parametrize(
    "part",
    [
        {"programs": 7, "pythons": [1], "paths": "x", "machine": 3},
        {"programs": {"nvcc": {"version": 9}}, "pythons": {"/usr/bin/python3": {"minor": "a"}}},
        {"directories": [1, None], "services": {"chat": 5, "x": {"current": 1}}},
    ],
)
def test_a_misshapen_part_never_raises(part: object) -> None:
    readers.read_toolchain(part)
    readers.read_runtimes(part)
    readers.read_generations(part)
