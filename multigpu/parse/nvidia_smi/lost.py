"""Cards that nvidia-smi has no handle of: a line beside the output, and no row in it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from multigpu.hardware import Gpu
from multigpu.parse import pci
from multigpu.parse.nvidia_smi.card import Query
from multigpu.parse.shape import text

# `GPU 0000:02:00.0: GPU is lost.  Reboot ...` (old), `GPU0000:CB:00.0: Unknown Error` (470 and
# newer), `GPU1: 0000:34:00.0: Unknown Error` (610), and without the address.
HANDLE = re.compile(
    r"Unable to determine the device handle for GPU ?"
    r"(?:(?P<index>\d{1,3})(?:: (?=[0-9A-Fa-f]{3,8}:)|(?=:)))?"
    r"(?P<address>[0-9A-Fa-f]{3,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f])?"
    r": *(?P<words>\S[^\n]{0,300})",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True)
class Refusal:
    """One card without a handle; index or address, or both."""

    index: int | None
    pci_bus_id: str | None
    words: str


def refusals(output: str) -> tuple[Refusal, ...]:
    """In the order printed, each once: nvidia-smi may say it for every query it makes."""
    found = (
        Refusal(
            index=int(match["index"]) if match["index"] else None,
            pci_bus_id=pci.address(match["address"] or ""),
            words=text(match["words"].strip()) or "",
        )
        for match in HANDLE.finditer(output)
    )
    return tuple(dict.fromkeys(found))


def read_refusals(output: str) -> dict[str, str]:
    """PCI address -> the driver's words for cards that nvidia-smi has no handle of."""
    return {r.pci_bus_id: r.words for r in refusals(output) if r.pci_bus_id is not None}


def with_refused(query: Query, output: str, numbered: bool) -> Query:
    """The query with a row for every card without a handle.

    `numbered`: the rows carry the driver's own index. Where they do not, the rows are counted anew,
    in PCI order (that of NVML) when every address is known, else around the refused indices.
    """
    seen = {gpu.pci_bus_id for gpu in query.gpus}
    lost = [r for r in refusals(output) if r.pci_bus_id is None or r.pci_bus_id not in seen]
    if not lost:
        return query
    taken = {r.index for r in lost if r.index is not None}
    rows = list(query.gpus)
    if not numbered:
        rows = _renumbered(rows, taken)
    taken |= {gpu.index for gpu in rows}
    for refusal in lost:
        index = refusal.index if refusal.index is not None else _free(taken)
        taken.add(index)
        rows.append(Gpu(index, pci_bus_id=refusal.pci_bus_id, error=_error(refusal)))
    if not numbered and all(r.index is None for r in lost) and all(g.pci_bus_id for g in rows):
        rows.sort(key=lambda gpu: gpu.pci_bus_id or "")
        rows = _renumbered(rows, set())
    return replace(query, gpus=tuple(sorted(rows, key=lambda gpu: gpu.index)))


def _error(refusal: Refusal) -> str:
    return f"the driver has no handle of it: {refusal.words}"


def _free(taken: set[int]) -> int:
    return next(index for index in range(len(taken) + 1) if index not in taken)


def _renumbered(rows: list[Gpu], taken: set[int]) -> list[Gpu]:
    """The rows by the lowest indices that are not taken."""
    free = (index for index in range(len(rows) + len(taken)) if index not in taken)
    return [replace(gpu, index=index) for gpu, index in zip(rows, free, strict=False)]
