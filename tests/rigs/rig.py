"""A generated machine and what is particular about it beside the `Host` that it is."""

from __future__ import annotations

from dataclasses import dataclass, field

from multigpu.hardware import Host
from tests.rigs.dialect import Dialect


@dataclass(frozen=True)
class Rig:
    """A host, the releases that print it, and what is broken.

    `refusal` is exit status and words of an nvidia-smi that does not answer; `unlisted` the indices
    of cards that the driver has no handle of; `amd_driver` False: amdgpu is not loaded; `lspci`
    False: it is not installed.
    """

    host: Host
    dialect: Dialect = field(default_factory=Dialect)
    refusal: tuple[int, str] | None = None
    unlisted: tuple[int, ...] = ()
    amd_driver: bool = True
    lspci: bool = True
