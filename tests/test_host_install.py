"""The program that installs on a host: real uv and pip against an index of stand-in packages.

Packages are tiny wheels made here; the index is a local server that can lie, break off or be gone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from multigpu.host import install_words
from multigpu.install import Build, Job
from tests.stand_in_llama import make_sdist
from tests.stand_in_packages import Index, lock, make_wheel

pytestmark = pytest.mark.process
TOOLS = ("uv", "pip")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(tmp_path / "index") as served:
        yield served


class Machine:
    """A directory that plays /opt/multigpu, and a PATH with or without uv."""

    def __init__(self, directory: Path, tool: str) -> None:
        self.prefix = directory / "opt"
        (self.prefix / "runtimes").mkdir(parents=True)
        programs = directory / "bin"
        programs.mkdir()
        uv = shutil.which("uv")
        if tool == "uv":
            if uv is None:
                pytest.skip("no uv here")
            (programs / "uv").symlink_to(uv)
        self.path = f"{programs}:/usr/bin:/bin"

    def job(self, requirements: str, **fields: object) -> Job:
        title = hashlib.sha256(requirements.encode()).hexdigest()[:12]
        path = self.prefix / f"{title}.txt"
        path.write_text(requirements)
        directory = str(self.prefix / "runtimes" / f"thing-1.0-{title}")
        return Job(directory, sys.executable, (str(path),), **fields)  # type: ignore[arg-type]

    def run(self, job: Job, **more: str) -> subprocess.CompletedProcess[str]:
        return self.program("runtime", job, more)

    def program(
        self, what: str, job: Job | Build, more: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        hidden = ("PIP_", "UV_", "https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY")
        own = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
        own |= {"PATH": self.path, "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "1"}
        own |= {"UV_HTTP_RETRIES": "1", "no_proxy": "127.0.0.1"} | more
        command = [sys.executable, "-m", "multigpu.host", "install", what]
        text = json.dumps(asdict(job))
        return subprocess.run([*command, text], env=own, capture_output=True, text=True)

    def build(self, job: Build, **more: str) -> subprocess.CompletedProcess[str]:
        return self.program("wheel", job, more)

    def left(self) -> list[str]:
        """Everything but the locks."""
        found = self.prefix.rglob("*")
        parts = (path.relative_to(self.prefix) for path in found if path.suffix != ".txt")
        return sorted(str(p) for p in parts if str(p) not in ("runtimes", "work"))


@pytest.fixture(params=TOOLS)
def machine(tmp_path: Path, request: pytest.FixtureRequest) -> Machine:
    return Machine(tmp_path, request.param)


def last(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that says what went wrong."""
    assert done.returncode == 1, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("multigpu: ")]
    assert len(lines) == 1, done.stdout + done.stderr
    assert done.stderr == ""
    return lines[0]


def test_a_complete_runtime_is_sealed_compiled_and_stamped(machine: Machine, index: Index) -> None:
    wheel = index.add("thing", "1.0")
    job = machine.job(lock(wheel), index=index.url)
    done = machine.run(job)
    assert done.returncode == 0, done.stdout + done.stderr
    directory = Path(job.directory)
    assert (directory / "installed").read_text() == f"{directory.name}\n"
    said = subprocess.run([directory / "bin/thing"], capture_output=True, text=True)
    assert said.stdout == "thing 1.0\n"
    everything = [directory, *directory.rglob("*")]
    assert [p for p in everything if not p.is_symlink() and p.stat().st_mode & 0o222] == []
    assert list(directory.rglob("thing.cpython-*.pyc"))
    assert not (machine.prefix / "work" / directory.name).exists()
    (tool,) = [
        tool for tool in TOOLS if (tool == "uv") == ("uv" in os.listdir(machine.path.split(":")[0]))
    ]
    assert (directory / "bin/pip").exists() == (tool == "pip")


def test_what_an_earlier_run_left_half_made_is_made_anew(machine: Machine, index: Index) -> None:
    job = machine.job(lock(index.add("thing", "1.0")), index=index.url)
    Path(job.directory, "bin").mkdir(parents=True)
    Path(job.directory, "bin/python").write_text("cut short")
    assert machine.run(job).returncode == 0
    assert Path(job.directory, "installed").exists()


def test_a_folder_of_wheels_needs_no_index(machine: Machine, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "wheels", "thing", "1.0")
    job = machine.job(lock(wheel), find_links=str(wheel.parent))
    done = machine.run(job)
    assert done.returncode == 0, done.stdout


def test_a_file_that_is_another_than_locked_is_refused(machine: Machine, index: Index) -> None:
    wheel = index.add("thing", "1.0")
    requirements = lock(wheel)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("thing_extra.py", "print('somebody was here')\n")
    line = last(machine.run(machine.job(requirements, index=index.url)))
    assert "has another hash than the lock" in line
    assert "thing" in line
    assert machine.left() == []


def test_a_download_that_breaks_off_is_said_to(machine: Machine, index: Index) -> None:
    index.truncated = True
    wheel = index.add("thing", "1.0", filler=200_000)
    line = last(machine.run(machine.job(lock(wheel), index=index.url)))
    assert re.search("broke off|another hash", line), line
    assert machine.left() == []


def test_an_index_that_does_not_answer_is_said_to(machine: Machine, index: Index) -> None:
    wheel = index.add("thing", "1.0")
    job = machine.job(lock(wheel), index="http://127.0.0.1:9/simple")
    line = last(machine.run(job))
    assert "the package index does not answer" in line
    assert "do: give the host a way to it" in line
    assert machine.left() == []


def test_an_index_without_the_package_is_said_to(machine: Machine, index: Index) -> None:
    wheel = make_wheel(index.directory.parent, "other", "1.0")
    line = last(machine.run(machine.job(lock(wheel), index=index.url)))
    assert "is not to be had for this host" in line
    assert machine.left() == []


def test_an_index_that_wants_a_login_is_said_to(machine: Machine, index: Index) -> None:
    index.refuses = True
    line = last(machine.run(machine.job(lock(index.add("thing", "1.0")), index=index.url)))
    assert "package-index.netrc" in line, "pip says of a login no more than of a missing package"


def test_a_login_comes_by_the_units_credential_and_is_nowhere_else(
    machine: Machine, index: Index, tmp_path: Path
) -> None:
    index.refuses, index.login = True, "ada:hunter2"
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "netrc").write_text("machine 127.0.0.1 login ada password hunter2\n")
    (credentials / "netrc").chmod(0o600)
    job = machine.job(lock(index.add("thing", "1.0")), index=index.url)
    done = machine.run(job, CREDENTIALS_DIRECTORY=str(credentials))
    assert done.returncode == 0, done.stdout
    assert "hunter2" not in done.stdout + done.stderr
    left = subprocess.run(["grep", "-r", "hunter2", str(machine.prefix)], capture_output=True)
    assert left.stdout == b""


def test_a_folder_that_is_not_there_is_said_to(machine: Machine, index: Index) -> None:
    job = machine.job(lock(index.add("thing", "1.0")), find_links="/nonexistent/wheels")
    assert "wheel_directory /nonexistent/wheels is no directory" in last(machine.run(job))
    assert machine.left() == []


def test_too_little_room_is_refused_before_anything_is_made(machine: Machine, index: Index) -> None:
    job = machine.job(lock(index.add("thing", "1.0")), index=index.url, needed_mib=10**9)
    line = last(machine.run(job))
    assert "needed 976562.5 GiB; do: make room" in line
    assert machine.left() == []
    assert index.asked == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_disk_that_fills_up_is_said_to(machine: Machine, index: Index) -> None:
    wheel = index.add("thing", "1.0", filler=80_000_000)
    job = machine.job(lock(wheel), index=index.url)
    mount = ["mount", "-t", "tmpfs", "-o", "size=60m", "small", str(machine.prefix)]
    requirements = Path(job.requirements[0]).read_text()
    subprocess.run(mount, check=True)
    try:
        Path(job.requirements[0]).write_text(requirements)
        (machine.prefix / "runtimes").mkdir()
        assert "the disk is full" in last(machine.run(job))
        assert machine.left() == []
    finally:
        subprocess.run(["umount", str(machine.prefix)], check=True)


def test_a_login_in_an_address_is_never_repeated() -> None:
    line = "error: Failed to fetch: `https://ada:hunter2@index.lan/simple/thing/`"
    assert "hunter2" not in install_words.reason([line])
    assert "index.lan" in install_words.reason([line])


def build_job(machine: Machine, folder: Path, source: Path) -> Build:
    """What a host of this kind would be asked to build."""
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    own = machine.prefix / "sdist.txt"
    own.write_text(f"llama-cpp-python==9.9 --hash=sha256:{digest}\n")
    tools = machine.prefix / "tools.txt"
    tools.write_text(lock(make_wheel(folder, "ninja", "9.9")))
    wheel = (
        machine.prefix / "wheels/llama.cpp-9.9-kind/llama_cpp_python-9.9-py3-none-linux_x86_64.whl"
    )
    arguments = ("-DGGML_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=86;89")
    return Build(
        "kind",
        str(wheel),
        str(own),
        str(tools),
        arguments,
        environment=(("HIPCXX", '"$(echo /opt/rocm)/clang"'),),
        python=sys.executable,
        find_links=str(folder),
    )


def test_a_wheel_is_built_from_its_sdist_and_installed_from_there(
    machine: Machine, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    compiled = make_wheel(tmp_path / "compiled", "bin", "1")
    with zipfile.ZipFile(compiled, "a") as archive:
        archive.writestr("bin/llama-server", "#!/bin/sh\necho served\n")
    source = make_sdist(folder, compiled, "9.9", step_s=0.01)
    job = build_job(machine, folder, source)
    done = machine.build(job)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[3/3]" in done.stdout
    assert machine.left() == [
        "wheels",
        "wheels/llama.cpp-9.9-kind",
        f"wheels/llama.cpp-9.9-kind/{Path(job.wheel).name}",
    ]
    digest = hashlib.sha256(Path(job.wheel).read_bytes()).hexdigest()
    directory = str(machine.prefix / "runtimes/llama.cpp-9.9-kind")
    runtime = Job(directory, sys.executable, (), job.wheel, digest, link="llama.cpp")
    assert machine.run(runtime).returncode == 0
    said = subprocess.check_output([f"{directory}/llama.cpp/bin/llama-server"], text=True)
    assert said == "served\n"
    Path(job.wheel).write_bytes(b"somebody was here")
    other = Job(directory + "2", sys.executable, (), job.wheel, digest, link="llama.cpp")
    assert "has another hash than on the controller" in last(machine.run(other))


def test_a_build_from_a_changed_sdist_is_refused(machine: Machine, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    source = make_sdist(folder, make_wheel(tmp_path / "compiled", "bin", "1"), "9.9", step_s=0.01)
    job = build_job(machine, folder, source)
    source.write_bytes(source.read_bytes() + b"x")
    assert "has another hash than the lock" in last(machine.build(job))
    assert machine.left() == []
