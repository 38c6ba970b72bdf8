"""PCI ids of the simulated AMD cards, as pci.ids and libdrm's amdgpu.ids have them."""

from __future__ import annotations

from multigpu.hardware import Gpu

# Name -> device, revision.
IDS = {
    "AMD Instinct MI100": (0x738C, 0x01),
    "AMD Instinct MI210": (0x740F, 0x02),
    "AMD Instinct MI300X": (0x74A1, 0x00),
    "AMD Radeon RX 7900 XTX": (0x744C, 0xC8),
    "AMD Radeon AI PRO R9700": (0x7551, 0xC0),
}


def device_id(gpu: Gpu) -> int:
    return IDS[gpu.name or ""][0]


def revision_id(gpu: Gpu) -> int:
    return IDS[gpu.name or ""][1]


def release(rocm: str) -> tuple[int, ...]:
    """`6.1.2` as numbers."""
    return tuple(int(part) for part in rocm.split("."))


def table(rows: list[list[str]], gap: int = 2) -> list[str]:
    """Columns padded to their widest cell."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["".join(c.ljust(w + gap) for c, w in zip(row, widths, strict=True)) for row in rows]
