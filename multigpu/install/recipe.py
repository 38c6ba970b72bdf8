"""The values of an installation: files to bring, a job for the host, and what the job needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from multigpu.plan import Setting

PREFIX = "/opt/multigpu"
RUNTIMES = f"{PREFIX}/runtimes"
WHEELS = f"{PREFIX}/wheels"
"""Locks and wheels on their way, a directory for each runtime's; gone once it serves."""
MODELS = "/var/lib/multigpu/models"


@dataclass(frozen=True)
class Upload:
    """A file of the controller that the host needs; one of `source` and `content` is set."""

    path: str
    source: str | None = None
    content: bytes | None = None
    sha256: str | None = None
    size_bytes: int | None = None


@dataclass(frozen=True)
class Job:
    """What `multigpu.host.install` does on the host; it gets these fields as JSON.

    `python` makes the virtual environment `directory`. `requirements` are hashed locks to install
    from, wheels only; `wheel` is a file of that hash that is installed as it lies there. `index` is
    the package index (None: the host's own configuration), `find_links` a directory of wheels that
    replaces it.
    `link`: a link of that name in `directory` to where packages lie. `needed_mib` of disk space are
    asked for once more on the host.
    """

    directory: str
    python: str = "/usr/bin/python3"
    requirements: tuple[str, ...] = ()
    wheel: str | None = None
    wheel_sha256: str | None = None
    index: str | None = None
    find_links: str | None = None
    link: str | None = None
    needed_mib: int | None = None


@dataclass(frozen=True)
class Build:
    """A wheel that one host of each kind builds from its sdist, for itself and its twins.

    `kind` names everything that decides the content. `wheel` is where the wheel lies on a host,
    complete when it has that name. `requirements` locks the sdist, `tools` what builds it.
    `environment` are (name, shell word) pairs of the build, `path` directories beside the PATH.
    """

    kind: str
    wheel: str
    requirements: str
    tools: str
    cmake_arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    path: tuple[str, ...] = ()
    python: str = "/usr/bin/python3"
    index: str | None = None
    find_links: str | None = None
    needed_mib: int | None = None


@dataclass(frozen=True)
class Needs:
    """What a host must have before anything is brought to it; None where nothing is asked.

    `cuda` is the CUDA release of the wheels, `compute_capability` the oldest card they hold code
    for. `programs` and `paths` are needed by a build, with the packages that bring them.
    `download_mib` and `installed_mib` are sizes, measured.
    """

    python: tuple[int, int] | None = None
    glibc: str | None = None
    cuda: tuple[int, int] | None = None
    compute_capability: tuple[int, int] | None = None
    programs: tuple[tuple[str, str], ...] = ()
    paths: tuple[tuple[str, str], ...] = ()
    nvcc_for: tuple[tuple[int, int], ...] = ()
    download_mib: int | None = None
    installed_mib: int | None = None
    venv: bool = False


@dataclass(frozen=True)
class Recipe:
    """One installed runtime; `what` names it with its version.

    `directory` holds a virtual environment and, once complete, the stamp file `installed`. No
    directory: nothing to install. `uploads` are needed until then only.
    """

    executable: str
    directory: str | None = None
    uploads: tuple[Upload, ...] = ()
    environment: tuple[Setting, ...] = ()
    what: str = ""
    job: Job | None = None
    build: Build | None = None
    needs: Needs = field(default_factory=Needs)
    lock: str = ""

    @property
    def stamp(self) -> str | None:
        """The file that says that the installation is complete."""
        return None if self.directory is None else f"{self.directory}/installed"

    @property
    def name(self) -> str:
        """Last part of the directory: `vllm-0.33.0-0123456789ab`; empty without one."""
        return (self.directory or "").rpartition("/")[2]


class Files(Protocol):
    """What recipes are made from; the controller's store reads it."""

    def requirements(self, name: str) -> str:
        """The text of a hashed lock, such as `vllm-0.33.0`."""

    def versions(self, name: str) -> tuple[str, ...]:
        """Versions of a runtime that have a lock, oldest first."""

    def identity(self, path: str) -> tuple[str, int]:
        """SHA-256 and size in bytes of a file of the controller."""

    def built(self, kind: str) -> str | None:
        """The cached wheel of a kind of host, a path on the controller; None when none is."""


def already_there(executable: str) -> Recipe:
    """A runtime that the operator installed. Its libraries are the operator's business."""
    return Recipe(executable, what=executable)
