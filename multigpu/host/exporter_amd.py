"""What amdgpu shows of its cards in sysfs, as the exporter's cards.

Files and units are those of Linux' Documentation/gpu/amdgpu (driver-misc, thermal, ras) and
Documentation/ABI/testing/sysfs-bus-pci. Not run on a card: the files are those of captured hosts.
"""

from __future__ import annotations

import os
import re
from typing import Dict, List, Optional, Tuple

from multigpu.host import amdgpu
from multigpu.host.exporter_nvml import Card

GENERATIONS = {"2.5": 1, "5.0": 2, "5": 2, "8.0": 3, "8": 3, "16.0": 4, "32.0": 5, "64.0": 6}
"""PCIe generation by GT/s per lane, as the kernel writes it since 5.6 and before."""
RAS = re.compile(r"^(ue|ce): (\d+)", re.MULTILINE)
ERRORS = {"ue": "uncorrected", "ce": "corrected"}


def cards(root: str = "/") -> List[Card]:
    """All cards that amdgpu drives, in PCI order. `index` counts them from 0."""
    return [_card(index, path) for index, path in enumerate(amdgpu.directories(root))]


def _card(index: int, path: str) -> Card:
    used = amdgpu.number(path, "mem_info_vram_used")
    busy = amdgpu.number(path, "gpu_busy_percent")
    return Card(
        index=index,
        uuid=amdgpu.unique_id(amdgpu.text(path, "unique_id")),
        pci_address=os.path.basename(path),
        name=amdgpu.text(path, "product_name") or amdgpu.text(path, "device"),
        vendor="amd",
        is_up=used is not None,
        utilization=None if busy is None else busy / 100,
        memory_used=used,
        memory_total=amdgpu.number(path, "mem_info_vram_total"),
        power_w=_sensor(path, amdgpu.POWER, 1e6),
        power_limit_w=_sensor(path, ("power1_cap",), 1e6),
        temperature_c=_sensor(path, ("temp1_input",), 1e3),
        pcie_gen=_generation(amdgpu.text(path, "current_link_speed")),
        pcie_gen_max=_generation(amdgpu.text(path, "max_link_speed")),
        pcie_width=_lanes(path, "current_link_width"),
        pcie_width_max=_lanes(path, "max_link_width"),
        ecc_errors=_errors(amdgpu.text(path, "ras/umc_err_count")),
    )


def _sensor(path: str, names: Tuple[str, ...], unit: float) -> Optional[float]:
    values = (amdgpu.number(place, name) for place in amdgpu.hwmon(path) for name in names)
    return next((value / unit for value in values if value is not None), None)


def _generation(speed: Optional[str]) -> Optional[int]:
    """`16.0 GT/s PCIe`, `16 GT/s`, `Unknown`."""
    return GENERATIONS.get((speed or "").partition(" ")[0])


def _lanes(path: str, name: str) -> Optional[int]:
    """The kernel writes 0 and 255 where it does not know."""
    lanes = amdgpu.number(path, name)
    return lanes if lanes is not None and 0 < lanes <= 32 else None


def _errors(written: Optional[str]) -> Dict[Tuple[str, str], int]:
    """`ue: 0` and `ce: 0`, counted since the driver was loaded."""
    return {(ERRORS[kind], "volatile"): int(n) for kind, n in RAS.findall(written or "")}
