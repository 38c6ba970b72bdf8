"""The programs for a GPU host: one archive, the same everywhere, for any Python since 3.9."""

from __future__ import annotations

import ast
import hashlib
import io
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from multigpu.store import archive

PROGRAM = archive.host_program()
CONTENT = PROGRAM.content or b""


def members() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(CONTENT)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / PROGRAM.path.rsplit("/", 1)[-1]
    path.write_bytes(CONTENT)
    return path


def run(program: Path, *arguments: str, python: str = sys.executable) -> tuple[int, str]:
    # -I: nothing of this checkout or environment may lend a hand.
    done = subprocess.run(
        [python, "-I", "-B", str(program), *arguments],
        capture_output=True,
        text=True,
        cwd="/",
        timeout=20,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_archive_is_the_same_each_time_and_named_by_its_content() -> None:
    assert archive.host_program() == PROGRAM
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert (PROGRAM.sha256, PROGRAM.size_bytes) == (digest, len(CONTENT))
    assert PROGRAM.path == f"/opt/multigpu/host/multigpu-host-{digest[:12]}.pyz"


def test_no_member_tells_when_or_by_which_zlib_it_was_packed() -> None:
    with zipfile.ZipFile(io.BytesIO(CONTENT)) as opened:
        for member in opened.infolist():
            assert member.date_time == (1980, 1, 1, 0, 0, 0)
            assert member.compress_type == zipfile.ZIP_STORED


def test_it_holds_the_host_programs_and_nvidia_ml_py_and_nothing_else() -> None:
    host = Path(archive.__file__).parent.parent / "host"
    names = {f"multigpu/host/{path.name}" for path in host.glob("*.py")}
    assert set(members()) == {"__main__.py", "multigpu/__init__.py", "pynvml.py"} | names


@pytest.mark.parametrize("name", sorted(members()))
def test_each_program_imports_only_what_every_host_has(name: str) -> None:
    known = set(sys.stdlib_module_names) | {"pynvml", "multigpu.host"}
    if name == "multigpu/host/exporter_text.py":
        known.add("prometheus_client")  # does without where it is not there
    for node in ast.walk(ast.parse(members()[name])):
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported = [node.module or ""]
        else:
            continue
        for module in imported:
            ours = module == "multigpu.host" or module.startswith("multigpu.host.")
            assert ours or module.split(".")[0] in known, module


@pytest.mark.parametrize("name", sorted(members()))
def test_each_program_is_python_3_9(name: str) -> None:
    ast.parse(members()[name], name, feature_version=(3, 9))


@pytest.mark.parametrize("arguments", [(), ("nonsense",)])
def test_it_tells_its_usage_when_it_is_not_told_what_to_do(
    program: Path, arguments: tuple[str, ...]
) -> None:
    status, printed = run(program, *arguments)
    assert status == 2
    assert printed.startswith(f"usage: {program} {{supervise,observe,")


def test_it_runs_as_a_supervisor(program: Path) -> None:
    options = ("--health", "http://127.0.0.1:9/health", "--tick-s", "0.05", "--")
    status, printed = run(program, "supervise", *options, "/bin/true")
    assert (status, "exit status 0 before it was ready" in printed) == (10, True)


def interpreters() -> list[str]:
    """Other Pythons of this machine that start."""
    names = [f"python3.{minor}" for minor in range(9, 16)]
    found = [path for name in names if (path := shutil.which(name))]
    return [
        path for path in found if not subprocess.run([path, "-V"], capture_output=True).returncode
    ]


@pytest.mark.parametrize("python", interpreters())
def test_other_pythons_of_this_machine_run_it_too(program: Path, python: str) -> None:
    assert run(program, python=python)[0] == 2
    options = ("--health", "http://127.0.0.1:9/health", "--tick-s", "0.05", "--")
    status, printed = run(program, "supervise", *options, "/bin/echo", "--", "-x", python=python)
    assert (status, printed.startswith("-- -x\n")) == (10, True)
