"""llama.cpp: a wheel of llama-cpp-python, given or built once for each kind of host."""

from __future__ import annotations

import re
from dataclasses import dataclass

from multigpu import backend as backends
from multigpu.backend import Backend
from multigpu.errors import MultigpuError
from multigpu.hardware import Host, Vendor
from multigpu.install import locks, sizes
from multigpu.install.pythons import interpreter
from multigpu.install.recipe import (
    RUNTIMES,
    WHEELS,
    Build,
    Files,
    Job,
    Needs,
    Recipe,
    Upload,
)
from multigpu.plan import Setting
from multigpu.wish_values import Wish

PACKAGE = "llama-cpp-python"
TOOLS = ("scikit-build-core", "cmake", "ninja")
BUILDING = (*TOOLS, "packaging", "pathspec", "exceptiongroup", "tomli", "typing-extensions")
"""scikit-build-core and what it imports itself (its pyproject.toml, "dependencies")."""
PYTHON = (3, 9)
CMAKE_ARGUMENTS = (
    "-DLLAVA_BUILD=OFF",  # on, it adds the target mtmd twice
    "-DLLAMA_BUILD_TOOLS=ON",
    "-DLLAMA_BUILD_SERVER=ON",
    "-DLLAMA_TOOLS_INSTALL=ON",
    "-DLLAMA_USE_PREBUILT_UI=OFF",  # on, it downloads while building
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DGGML_NATIVE=OFF",  # on, the wheel holds code for the builder's processor only
)
_WHEEL_NAME = re.compile(r"[\w.+!]+(-[\w.+!]+){4,5}\.whl", re.ASCII)


@dataclass(frozen=True)
class _Parts:
    """The lock, and its paths on the host below one directory."""

    title: str
    own: str
    tools: str
    rest: str

    def path(self, part: str) -> str:
        return f"{WHEELS}/{self.title}/{part}.txt"


def llama_cpp(
    host: Host, wish: Wish, files: Files, *, version: str, server: bool = False
) -> Recipe:
    """From the wheel of the wish, else built for the cards of `host`, which are those in use.

    With `server` the environment holds what `python -m llama_cpp.server` imports, and the
    executable is its Python. Raises MultigpuError where the wish, a lock or a card does not allow
    it.
    """
    name = f"{PACKAGE}-server" if server else PACKAGE
    chosen = locks.chosen_version(name, wish, files, version)
    lock = files.requirements(f"{name}-{chosen}")
    if wish.wheel is not None:
        return _given(host, chosen, lock, wish.wheel, files, server)
    return _built(host, wish, chosen, lock, files, server)


def _given(host: Host, version: str, lock: str, source: str, files: Files, server: bool) -> Recipe:
    sha256, size_bytes = files.identity(source)
    name = source.rpartition("/")[2]
    if not _WHEEL_NAME.fullmatch(name):
        raise MultigpuError(f"{source} is not named like a wheel: pip reads its tags from the name")
    parts = _parts(version, lock, sha256[:12], server)
    path = f"{WHEELS}/{parts.title}/{name}"
    wheel = Upload(path, source, None, sha256, size_bytes)
    return _recipe(host, version, parts, path, (wheel,), server)


def _built(host: Host, wish: Wish, version: str, lock: str, files: Files, server: bool) -> Recipe:
    backend = backends.choose(host.gpus, wish, host.rocm)
    rccl = backends.wants_rccl(backend, wish, host.gpus)
    override = wish.env.get(backends.OVERRIDE)
    cards = backends.cmake_arguments(backend, host.gpus, rccl=rccl, override=override)
    arguments = (*CMAKE_ARGUMENTS, *cards)
    machine = (host.toolchain and host.toolchain.machine) or "x86_64"
    kind = kind_of(version, host.glibc, machine, arguments)
    parts = _parts(version, lock, kind, server)
    file = f"{PACKAGE.replace('-', '_')}-{version}-py3-none-linux_{machine}.whl"
    path = f"{WHEELS}/{parts.title}/{file}"
    tools = backends.tools(backend)
    build = Build(
        kind=kind,
        wheel=path,
        requirements=parts.path("sdist"),
        tools=parts.path("tools"),
        cmake_arguments=arguments,
        environment=backends.build_environment(backend),
        path=tuple(d for tool in tools for d in tool.directories),
        python=interpreter(host, PYTHON),
        needed_mib=sizes.LLAMA_BUILD_MIB,
    )
    cached = files.built(kind)
    if cached is None:
        own = (
            Upload(build.requirements, content=parts.own.encode()),
            Upload(build.tools, content=parts.tools.encode()),
        )
        needs = _building(host, backend)
        return _recipe(host, version, parts, path, own, server, build, needs)
    sha256, size_bytes = files.identity(cached)
    wheel = Upload(path, cached, None, sha256, size_bytes)
    return _recipe(host, version, parts, path, (wheel,), server)


def kind_of(version: str, glibc: str | None, machine: str, arguments: tuple[str, ...]) -> str:
    """Hosts of one kind run one wheel: twelve hexadecimal digits.

    `arguments` hold the backend and the architectures of the cards.
    """
    return locks.short(version, glibc or "", machine, *arguments)


def _building(host: Host, backend: Backend) -> Needs:
    """What the build asks of the host; `llama.cpp` has no wheels to download."""
    tools = backends.tools(backend)
    cards = sorted(
        {g.compute_capability for g in host.gpus if g.vendor is Vendor.NVIDIA} - {None},
        key=lambda found: found or (0, 0),
    )
    return Needs(
        python=PYTHON,
        programs=tuple((t.program, t.debian) for t in tools if t.program is not None),
        paths=tuple((t.path, t.debian) for t in tools if t.path is not None),
        nvcc_for=tuple(c for c in cards if c is not None) if backend is Backend.CUDA else (),
        installed_mib=sizes.LLAMA_BUILD_MIB,
        venv=True,
    )


def _parts(version: str, lock: str, content: str, server: bool) -> _Parts:
    own, tools, rest = locks.parted(lock, PACKAGE, BUILDING)
    name = "llama_cpp.server" if server else "llama.cpp"
    if server:  # it imports typing-extensions, which the tools need as well
        shared = [b for b in locks.requirements(tools) if b.startswith("typing-extensions")]
        rest += "".join(shared)
    content = locks.short(content, rest) if server else content
    return _Parts(f"{name}-{version}-{content}", own, tools, rest if server else "")


def _recipe(
    host: Host,
    version: str,
    parts: _Parts,
    wheel: str,
    uploads: tuple[Upload, ...],
    server: bool,
    build: Build | None = None,
    needs: Needs | None = None,
) -> Recipe:
    directory = f"{RUNTIMES}/{parts.title}"
    requirements = (parts.path("requirements"),) if parts.rest else ()
    rest = tuple(Upload(path, content=parts.rest.encode()) for path in requirements)
    sha256 = next((upload.sha256 for upload in uploads if upload.path == wheel), None)
    job = Job(directory, interpreter(host, PYTHON), requirements, wheel, sha256, link="llama.cpp")
    # pip puts the wheel's bin/ and lib/ into site-packages, without an RPATH; a link of our own
    # name makes the path independent of the host's Python version.
    library_path = Setting(
        "LD_LIBRARY_PATH", f"{directory}/llama.cpp/lib", "the llama.cpp wheel carries no RPATH"
    )
    program = "bin/python" if server else "llama.cpp/bin/llama-server"
    return Recipe(
        f"{directory}/{program}",
        directory,
        (*uploads, *rest),
        () if server else (library_path,),
        f"{'llama_cpp.server' if server else 'llama.cpp'} {version}",
        job,
        build,
        needs or Needs(python=PYTHON, venv=True),
        "".join((parts.own, parts.tools, parts.rest)),
    )
