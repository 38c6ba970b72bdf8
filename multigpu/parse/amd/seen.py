"""The parts of a capture that speak of AMD cards, each read by its own reader."""

from __future__ import annotations

from dataclasses import dataclass

from multigpu.hardware import Gpu, GpuProcess
from multigpu.parse.amd import amd_smi
from multigpu.parse.amd.amdgpu import AmdgpuCard, read_amdgpu
from multigpu.parse.amd.kfd import KfdTopology, read_kfd
from multigpu.parse.pci.device import address
from multigpu.parse.shape import mapping, text, tool
from multigpu.parse.units import unit_of

STATIC = "amd-smi static --json"


@dataclass(frozen=True)
class Seen:
    """What a capture holds of AMD. `kfd` is None where there is no KFD or it was not captured.

    `partial` is True for a folder of saved outputs.
    """

    kfd: KfdTopology | None
    cards: dict[str, AmdgpuCard]
    smi: dict[str, Gpu]
    processes: dict[int, tuple[GpuProcess, ...]]
    captured: bool
    partial: bool = False


def seen_of(captured: dict[str, object]) -> Seen:
    """The sections `kfd`, `amdgpu` and `kfd_processes`, and amd-smi's output."""
    kfd, cards = _texts(captured.get("kfd")), mapping(captured.get("amdgpu"))
    static = amd_smi.read_json(tool(mapping(captured.get("tools")), STATIC).stdout).value
    sysfs = {address(name) or name: _texts(files) for name, files in cards.items()}
    return Seen(
        kfd=read_kfd(kfd).value if kfd else None,
        cards=read_amdgpu(sysfs).value,
        smi={gpu.pci_bus_id: gpu for gpu in static.gpus if gpu.pci_bus_id},
        processes=_processes(captured.get("kfd_processes")),
        captured="kfd" in captured or "amdgpu" in captured,
        partial=captured.get("partial") is True,
    )


def _texts(section: object) -> dict[str, str]:
    known = {name: text(value) for name, value in mapping(section).items()}
    return {name: value for name, value in known.items() if value is not None}


def _processes(section: object) -> dict[int, tuple[GpuProcess, ...]]:
    """KFD's gpu_id -> processes that hold memory there."""
    found: dict[int, list[GpuProcess]] = {}
    for pid, entry in mapping(section).items():
        process = mapping(entry)
        for gpu_id, written in _texts(process.get("vram")).items():
            held, number = _decimal(written), _decimal(gpu_id)
            if not (_decimal(pid) and number and held):
                continue
            unit = unit_of(text(process.get("cgroup")))
            holder = GpuProcess(int(pid), text(process.get("name")), held >> 20, unit)
            found.setdefault(number, []).append(holder)
    return {key: tuple(sorted(held, key=lambda p: p.pid)) for key, held in found.items()}


def _decimal(written: str) -> int | None:
    short = written.strip()
    return int(short) if short.isascii() and short.isdecimal() and len(short) < 19 else None
