"""The operating system around the cards."""

from __future__ import annotations

import glob
import os
import platform
import re
import shutil
import sys
from typing import Any, Dict, Optional

from multigpu.host.probe.files import read_text, under

FILES = (
    "/etc/os-release",
    "/opt/rocm/.info/version",
    "/proc/cmdline",
    "/proc/driver/nvidia/params",
    "/proc/driver/nvidia/version",
    "/proc/meminfo",
    "/sys/class/dmi/id/product_name",
    "/sys/class/dmi/id/sys_vendor",
    "/sys/module/nvidia/version",
)

DISKS = ("/", "/var/lib", "/opt", "/opt/multigpu")


def read_files(root: str) -> Dict[str, Optional[str]]:
    """Text of the constant list of files."""
    return {path: read_text(under(root, path)) for path in FILES}


def read_system(root: str) -> Dict[str, Any]:
    """What Python itself knows of the machine, and the IOMMU groups."""
    nodes = glob.glob(under(root, "/sys/devices/system/node/node[0-9]*"))
    return {
        "cpus": os.cpu_count(),
        "cpu_model": cpu_model(root),
        "hostname": platform.node() or None,
        "machine_id": read_text(under(root, "/etc/machine-id")),
        "numa_nodes": len(nodes) or None,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "glibc": glibc_version(),
        "python": list(sys.version_info[:3]),
        "uid": os.geteuid(),
        "iommu_groups": iommu_groups(root),
    }


def cpu_model(root: str) -> Optional[str]:
    """The first processor's name."""
    match = re.search(
        r"^model name\s*:\s*(.+)$", read_text(under(root, "/proc/cpuinfo")) or "", re.M
    )
    return match[1].strip() if match else None


def glibc_version() -> Optional[str]:
    """`2.39`, None on another C library."""
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").split()[-1]
    except (ValueError, OSError, IndexError):
        return None


def iommu_groups(root: str) -> Dict[str, int]:
    """Type of an IOMMU group (identity, DMA, DMA-FQ, blocked, unknown) -> how many groups."""
    counts: Dict[str, int] = {}
    for group in glob.glob(under(root, "/sys/kernel/iommu_groups/[0-9]*")):
        kind = read_text(f"{group}/type") or "unknown"
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def read_disks(root: str) -> Dict[str, Optional[int]]:
    """Free bytes for a normal user."""
    free: Dict[str, Optional[int]] = {}
    for path in DISKS:
        try:
            free[path] = shutil.disk_usage(under(root, path)).free
        except OSError:
            free[path] = None
    return free
