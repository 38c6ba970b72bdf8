"""Samples of AMD cards from sysfs, beside those of NVML: the same record, without processes.

Files and units are those of Linux' Documentation/gpu/amdgpu (driver-misc, thermal). Cards are
numbered in PCI order, as the survey does, but processor graphics count too: what decides which
card is meant is its unique id, which every card for servers and those since RDNA 2 have.
"""

from __future__ import annotations

import glob
import os
from typing import Any, Dict, List, Optional

AMD = "0x1002"
DISPLAY = "0x03"
MIB = 1024 * 1024
POWER = ("power1_average", "power1_input")


def directories(root: str = "/") -> List[str]:
    """Sysfs directories of the cards that amdgpu drives, in PCI order."""
    found = sorted(glob.glob(os.path.join(root, "sys/bus/pci/devices/*")))
    return [
        path
        for path in found
        if text(path, "vendor") == AMD
        and (text(path, "class") or "").startswith(DISPLAY)
        and number(path, "mem_info_vram_total")
    ]


def sample(directory: str, card: Dict[str, Any]) -> None:
    """Add one sample to a card's record (`nvml.new_card`). A lost card keeps its row."""
    used, total = number(directory, "mem_info_vram_used"), number(directory, "mem_info_vram_total")
    if used is None or total is None:
        card["error"] = "amdgpu shows no memory of it any more"
        return
    card["uuid"] = unique_id(text(directory, "unique_id")) or card["uuid"]
    card["memory_total_mib"] = total // MIB
    card["memory_used_mib"] = max(card["memory_used_mib"] or 0, used // MIB)
    busy = number(directory, "gpu_busy_percent")
    if busy is not None:
        card["utilization"].append(busy)
    microwatts = [number(path, name) for path in hwmon(directory) for name in POWER]
    watts = next((value for value in microwatts if value is not None), None)
    if watts is not None:
        card["power_w"].append(round(watts / 1e6, 1))


def hwmon(directory: str) -> List[str]:
    """Directories of the card's sensors."""
    return sorted(glob.glob(os.path.join(directory, "hwmon", "hwmon*")))


def unique_id(written: Optional[str]) -> Optional[str]:
    """`0x` and 16 digits, as plans hold it; None for a card that has none."""
    try:
        value = int(written or "", 16)
    except ValueError:
        return None
    return f"0x{value:016x}" if 0 < value < 1 << 64 else None


def number(directory: str, name: str) -> Optional[int]:
    """A file with one whole number, None where there is no such file."""
    try:
        return int(text(directory, name) or "")
    except ValueError:
        return None


def text(directory: str, name: str) -> Optional[str]:
    """A file's content without blanks around it, None where it cannot be read."""
    try:
        with open(os.path.join(directory, name), encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None
