"""What a host has to install and build runtimes with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Python:
    """An interpreter: path, (major, minor), and whether it has what `-m venv` needs (ensurepip)."""

    path: str
    version: tuple[int, int]
    venv: bool


@dataclass(frozen=True)
class Toolchain:
    """`uv` is its version, None when it is not there. `nvcc` is the CUDA release of the compiler.

    `programs` are those of the probe's list that were found, `paths` likewise. `machine` is the
    word of `uname -m`.
    """

    uv: str | None = None
    pythons: tuple[Python, ...] = ()
    nvcc: tuple[int, int] | None = None
    programs: frozenset[str] = frozenset()
    paths: frozenset[str] = frozenset()
    machine: str | None = None
