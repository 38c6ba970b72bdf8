"""GPUs on PCI and the ports above them, from sysfs."""

from __future__ import annotations

import os
import re
from typing import Dict, List, Optional

from multigpu.host.probe.files import read_text, under

# Display controllers and processing accelerators; an NVSwitch is a bridge (0680).
GPU_CLASSES = ("0x0300", "0x0302", "0x0380", "0x1200")
PCI_FILES = (
    "vendor",
    "device",
    "class",
    "current_link_speed",
    "current_link_width",
    "max_link_speed",
    "max_link_width",
    "numa_node",
    "local_cpulist",
    "subsystem_vendor",
    "subsystem_device",
    "resource",
    "aer_dev_correctable",
    "aer_dev_fatal",
    "aer_dev_nonfatal",
)
PCI_ADDRESS = re.compile(r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]$")


def read_pci(root: str) -> List[Dict[str, Optional[str]]]:
    """Every GPU and every port above it, each once, by address."""
    base = under(root, "/sys/bus/pci/devices")
    found: Dict[str, Dict[str, Optional[str]]] = {}
    for address in sorted(os.listdir(base)) if os.path.isdir(base) else []:
        if not (read_text(f"{base}/{address}/class") or "").startswith(GPU_CLASSES):
            continue
        directory = os.path.realpath(f"{base}/{address}")
        while PCI_ADDRESS.match(os.path.basename(directory)):
            name = os.path.basename(directory)
            found.setdefault(name, pci_device(directory))
            directory = os.path.dirname(directory)
    return [found[address] for address in sorted(found)]


def pci_device(directory: str) -> Dict[str, Optional[str]]:
    """One device of sysfs; `parent` is the port above, None below the root complex."""
    parent = os.path.basename(os.path.dirname(directory))
    driver = f"{directory}/driver"
    return {
        "address": os.path.basename(directory),
        "parent": parent if PCI_ADDRESS.match(parent) else None,
        "driver": os.path.basename(os.path.realpath(driver)) if os.path.exists(driver) else None,
        **{name: read_text(f"{directory}/{name}") for name in PCI_FILES},
    }
