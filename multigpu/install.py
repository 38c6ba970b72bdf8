"""How a runtime gets onto a host: pinned, hashed, in a directory named by its content.

Values only: scripts and paths. `operations.runtime` runs them.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Protocol

from multigpu.errors import MultigpuError
from multigpu.hardware import Host
from multigpu.plan import Setting

PREFIX = "/opt/multigpu"
MODELS = "/var/lib/multigpu/models"
VLLM_PYTHON = (3, 11)
CUDA_PROGRAMS = "/usr/local/cuda/bin"
"""Where NVIDIA's packages put nvcc; it is not in the PATH of a system service."""
LLAMA_CMAKE_ARGS = (
    "-DLLAVA_BUILD=OFF",  # on, it adds the target mtmd twice
    "-DLLAMA_BUILD_TOOLS=ON",
    "-DLLAMA_BUILD_SERVER=ON",
    "-DLLAMA_TOOLS_INSTALL=ON",
    "-DLLAMA_USE_PREBUILT_UI=OFF",  # on, it downloads while building
    "-DGGML_CUDA=ON",
)
_WHEEL_NAME = re.compile(r"[\w.+!]+(-[\w.+!]+){4,5}\.whl", re.ASCII)


@dataclass(frozen=True)
class Upload:
    """A file of the controller that the host needs; one of `source` and `content` is set."""

    path: str
    source: str | None = None
    content: bytes | None = None
    sha256: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True)
class Recipe:
    """One installed runtime.

    `directory` holds a virtual environment and, once complete, the stamp file `installed`.
    `script` makes it and may be run again after it was cut short. No directory: nothing to install.
    """

    executable: str
    directory: str | None = None
    uploads: tuple[Upload, ...] = ()
    script: str | None = None
    environment: tuple[Setting, ...] = ()

    @property
    def stamp(self) -> str | None:
        """The file that says that the installation is complete."""
        return None if self.directory is None else f"{self.directory}/installed"


class Files(Protocol):
    """What recipes are made from; the controller's store reads it."""

    def requirements(self, name: str) -> str:
        """The text of a hashed lock, such as `vllm-0.33.0`."""

    def identity(self, path: str) -> tuple[str, int]:
        """SHA-256 and size in bytes of a file of the controller."""


def already_there(executable: str) -> Recipe:
    """A runtime that the operator installed. Its libraries are the operator's business."""
    return Recipe(executable)


def vllm(host: Host, version: str, requirements: str) -> Recipe:
    """vLLM from PyPI by a hashed lock. Raises MultigpuError when the host's Python is too old."""
    if host.python is not None and host.python < VLLM_PYTHON:
        found = ".".join(str(part) for part in host.python)
        raise MultigpuError(
            f"vLLM {version} needs Python {VLLM_PYTHON[0]}.{VLLM_PYTHON[1]} or newer, {host.name} "
            f"has {found}: install a newer python3, or set executable to a vllm already there"
        )
    directory = f"{PREFIX}/runtimes/vllm-{version}-{_short(requirements)}"
    lock = Upload(
        f"{PREFIX}/wheels/vllm-{version}-{_short(requirements)}.txt", content=requirements.encode()
    )
    pip = f"--only-binary :all: --no-deps --require-hashes -r {lock.path}"
    return Recipe(f"{directory}/bin/vllm", directory, (lock,), _script(directory, pip))


def llama_cpp_wheel(version: str, source: str, sha256: str, size_bytes: int) -> Recipe:
    """llama-server from a wheel on the controller, built by scripts/build_llama_wheel.py.

    Raises MultigpuError when the file's name is not that of a wheel.
    """
    name = source.rsplit("/", 1)[-1]
    if not _WHEEL_NAME.fullmatch(name):
        raise MultigpuError(f"{source} is not named like a wheel: pip reads its tags from the name")
    directory = f"{PREFIX}/runtimes/llama.cpp-{version}-{sha256[:12]}"
    wheel = Upload(f"{PREFIX}/wheels/{sha256[:12]}/{name}", source, None, sha256, size_bytes)
    line = f"{wheel.path} --hash=sha256:{sha256}\n"
    lock = Upload(f"{PREFIX}/wheels/{sha256[:12]}/requirements.txt", content=line.encode())
    pip = f"--no-index --no-deps --require-hashes -r {lock.path}"
    return _llama(directory, (wheel, lock), _script(directory, pip))


def llama_cpp_source(version: str, requirements: str) -> Recipe:
    """llama-server built on the host from the hashed sdist; needs a CUDA toolkit and a compiler.

    Raises MultigpuError when the lock does not name llama-cpp-python.
    """
    directory = f"{PREFIX}/runtimes/llama.cpp-{version}-{_short(requirements)}"
    path = f"{PREFIX}/wheels/llama.cpp-{version}-{_short(requirements)}.txt"
    check = (
        f'command -v nvcc >/dev/null || PATH="$PATH:{CUDA_PROGRAMS}"; '
        "command -v nvcc >/dev/null || { echo 'multigpu: no nvcc: install the CUDA toolkit, "
        "or give a wheel built elsewhere as wheel' >&2; exit 1; }; export PATH"
    )
    tools = f"--only-binary :all: --no-deps --require-hashes -r {path}.tools"
    build = f"--no-build-isolation --no-deps --require-hashes -r {path}"
    own, rest = _parted(requirements)
    script = _script(directory, tools, check) + (
        f"CMAKE_ARGS='{' '.join(LLAMA_CMAKE_ARGS)}' PATH={directory}/bin:\"$PATH\" "
        f"{directory}/bin/python -m pip install {_PIP} {build}\n"
    )
    uploads = (
        Upload(path, content=own.encode()),
        Upload(f"{path}.tools", content=rest.encode()),
    )
    return _llama(directory, uploads, script)


_PIP = "--quiet --no-input --disable-pip-version-check --no-cache-dir"


def _llama(directory: str, uploads: tuple[Upload, ...], script: str) -> Recipe:
    # pip puts the wheel's bin/ and lib/ into site-packages, without an RPATH; a link of our own
    # name makes the path independent of the host's Python version.
    link = (
        f"ln -sfn \"$({directory}/bin/python -c 'import sysconfig; "
        f'print(sysconfig.get_paths()["purelib"])\')" {directory}/llama.cpp\n'
        f"chmod a+x {directory}/llama.cpp/bin/*\n"
    )
    library_path = Setting(
        "LD_LIBRARY_PATH", f"{directory}/llama.cpp/lib", "the llama.cpp wheel carries no RPATH"
    )
    executable = f"{directory}/llama.cpp/bin/llama-server"
    return Recipe(executable, directory, uploads, script + link, (library_path,))


def _script(directory: str, pip: str, check: str = ":") -> str:
    missing = "python3 -m venv failed: install python3-venv (Debian, Ubuntu)"
    return (
        f"set -eu\numask 022\n{check}\nrm -rf {directory}\n"
        f"python3 -m venv {directory} || {{ echo 'multigpu: {missing}' >&2; exit 1; }}\n"
        f"{directory}/bin/python -m pip install {_PIP} {pip}\n"
    )


def _parted(requirements: str) -> tuple[str, str]:
    """The lines of llama-cpp-python, and those of the tools that build it."""
    packages = _requirements(requirements)
    own = [text for text in packages if text.startswith("llama-cpp-python==")]
    if len(own) != 1:
        raise MultigpuError(f"the lock names llama-cpp-python {len(own)} times, needed is once")
    return own[0], "".join(text for text in packages if text not in own)


def _requirements(text: str) -> list[str]:
    """A lock split into its requirements, each with its hash lines."""
    blocks: list[str] = []
    for line in text.splitlines(keepends=True):
        if line.startswith((" ", "\t")) and blocks:
            blocks[-1] += line
        elif line.strip() and not line.startswith("#"):
            blocks.append(line)
    return blocks


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
