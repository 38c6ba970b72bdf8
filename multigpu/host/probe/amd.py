"""AMD cards as KFD and amdgpu show them in sysfs; no tool is needed."""

from __future__ import annotations

import glob
import os
from typing import Any, Dict, Optional

from multigpu.host.probe.files import read_text, texts, under
from multigpu.host.probe.pci import GPU_CLASSES

KFD = "/sys/class/kfd/kfd"
KFD_FILES = (
    "properties",
    "gpu_id",
    "name",
    "io_links/*/properties",
    "p2p_links/*/properties",
    "mem_banks/*/properties",
)
AMDGPU_FILES = (
    "mem_info_vram_total",
    "mem_info_vram_used",
    "mem_info_vis_vram_total",
    "vbios_version",
    "unique_id",
    "revision",
    "product_name",
    "current_compute_partition",
    "current_memory_partition",
    "gpu_busy_percent",
    "power_dpm_force_performance_level",
    "xgmi_hive_info/xgmi_hive_id",
    "ras/umc_err_count",
)
HWMON_FILES = (
    "power1_cap",
    "power1_cap_default",
    "power1_cap_max",
    "power1_average",
    "power1_input",
    "temp1_input",
)


def read_kfd(root: str) -> Optional[Dict[str, str]]:
    """Nodes of KFD's topology with their links and memory banks; None without KFD."""
    base = under(root, f"{KFD}/topology/nodes")
    if not os.path.isdir(base):
        return None
    paths = [path for name in KFD_FILES for path in glob.glob(f"{base}/*/{name}")]
    return texts({path[len(base) + 1 :]: path for path in sorted(paths)})


def read_kfd_processes(root: str) -> Dict[str, Dict[str, Any]]:
    """Processes that use a GPU through KFD; a file `vram_<gpu_id>` says how many bytes it holds."""
    found: Dict[str, Dict[str, Any]] = {}
    for directory in sorted(glob.glob(under(root, f"{KFD}/proc/[0-9]*"))):
        pid = os.path.basename(directory)
        held = {path.rpartition("vram_")[2]: path for path in glob.glob(f"{directory}/vram_*")}
        found[pid] = {
            "name": read_text(under(root, f"/proc/{pid}/comm")),
            "cgroup": read_text(under(root, f"/proc/{pid}/cgroup")),
            "vram": texts(held),
        }
    return found


def read_amdgpu(root: str) -> Dict[str, Dict[str, str]]:
    """Files of amdgpu in sysfs by PCI address; `drm` names the render node."""
    found: Dict[str, Dict[str, str]] = {}
    for directory in sorted(glob.glob(under(root, "/sys/bus/pci/devices/*"))):
        if read_text(f"{directory}/vendor") != "0x1002":
            continue
        if not (read_text(f"{directory}/class") or "").startswith(GPU_CLASSES):
            continue
        files = {name: f"{directory}/{name}" for name in AMDGPU_FILES}
        for name in HWMON_FILES:
            for path in glob.glob(f"{directory}/hwmon/hwmon*/{name}"):
                files[name] = path
        nodes = [os.path.basename(path) for path in glob.glob(f"{directory}/drm/renderD*")]
        drm = {"drm": " ".join(sorted(nodes))} if nodes else {}
        found[os.path.basename(directory)] = {**texts(files), **drm}
    return found
