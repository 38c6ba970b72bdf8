"""Which of a host's interpreters a runtime's environment is made with."""

from __future__ import annotations

from multigpu.hardware import Host
from multigpu.toolchain import Python

DEFAULT = "/usr/bin/python3"


def usable(host: Host, oldest: tuple[int, int]) -> tuple[Python, ...]:
    """Interpreters that are new enough and can make an environment, the default one first."""
    chain = host.toolchain
    if chain is None:
        return ()
    fit = (p for p in chain.pythons if p.version >= oldest and (p.venv or chain.uv is not None))
    return tuple(sorted(fit, key=lambda p: (p.path != DEFAULT, p.version)))


def interpreter(host: Host, oldest: tuple[int, int]) -> str:
    """Path of the best interpreter; the default one where none is known to fit."""
    return next((python.path for python in usable(host, oldest)), DEFAULT)
