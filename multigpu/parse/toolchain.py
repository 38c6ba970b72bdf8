"""Readers of a capture's parts `toolchain` and `runtimes`; captures of older probes have none."""

from __future__ import annotations

import re

from multigpu.managed import Generation
from multigpu.parse.shape import integer, items, mapping, text
from multigpu.toolchain import Python, Toolchain

NVCC = re.compile(r"\brelease (\d{1,3})\.(\d{1,3})\b", re.ASCII)
UV = re.compile(r"^uv (\d[\w.]{0,30})", re.ASCII)


def read_toolchain(found: object) -> Toolchain | None:
    """None when the probe did not look."""
    if not isinstance(found, dict):
        return None
    programs = mapping(found.get("programs"))
    nvcc = NVCC.search(_version(programs, "nvcc"))
    uv = UV.search(_version(programs, "uv"))
    return Toolchain(
        uv=uv[1] if uv else None,
        pythons=_pythons(mapping(found.get("pythons"))),
        nvcc=(int(nvcc[1]), int(nvcc[2])) if nvcc else None,
        programs=frozenset(programs),
        paths=frozenset(path for item in items(found.get("paths")) if (path := text(item))),
        machine=text(found.get("machine")),
    )


def _version(programs: dict[str, object], name: str) -> str:
    return text(mapping(programs.get(name)).get("version")) or ""


def _pythons(found: dict[str, object]) -> tuple[Python, ...]:
    """Interpreters by path; the same one under two names counts under both."""
    each = []
    for path in sorted(found):
        entry = mapping(found[path])
        minor = integer(entry.get("minor"))
        if minor is not None and minor >= 0:
            each.append(Python(path, (3, minor), entry.get("venv") is True))
    return tuple(each)


def read_runtimes(found: object) -> tuple[str, ...] | None:
    """Names of the directories below /opt/multigpu/runtimes; None when the probe did not look."""
    if not isinstance(found, dict):
        return None
    return tuple(name for item in items(found.get("directories")) if (name := text(item)))


def read_generations(found: object) -> tuple[Generation, ...]:
    """The record of each service, by name."""
    services = mapping(mapping(found).get("services"))
    return tuple(_generation(name, mapping(services[name])) for name in sorted(services))


def _generation(service: str, entry: dict[str, object]) -> Generation:
    return Generation(service, text(entry.get("current")), text(entry.get("previous")))
