"""What only NVML tells of an NVIDIA card: width of the memory bus, cores, largest clocks.

nvidia-smi prints no bus width. The library is called in a process of its own, because a call may
block for minutes on a sick card, or take the process down with it. Names are those of nvml.h.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Dict, Optional

from multigpu.host.probe.tools import run_tool

NVML_S = 10.0

# Runs in a process of its own: prints bus id -> numbers as JSON. What a card does not answer is
# left out; every call returns 0 (NVML_SUCCESS) where it worked. Clock types: 1 SM, 2 memory.
PROGRAM = """\
import ctypes, json
class Pci(ctypes.Structure):
    _fields_ = [("legacy", ctypes.c_char * 16)] + [
        (name, ctypes.c_uint) for name in ("domain", "bus", "device", "id", "subsystem")
    ] + [("busId", ctypes.c_char * 32)]
found = {}
try:
    nvml = ctypes.CDLL("libnvidia-ml.so.1")
except OSError:
    print(json.dumps(found))
    raise SystemExit
def number(name, card, *before):
    value = ctypes.c_uint()
    call = getattr(nvml, name, None)
    ok = call is not None and call(card, *before, ctypes.byref(value)) == 0
    return value.value if ok else None
count = ctypes.c_uint()
if nvml.nvmlInit_v2() == 0 and nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0:
    for index in range(min(count.value, 64)):
        card, pci = ctypes.c_void_p(), Pci()
        if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(card)) != 0:
            continue
        if nvml.nvmlDeviceGetPciInfo_v3(card, ctypes.byref(pci)) != 0:
            continue
        found[pci.busId.decode("ascii", "replace")] = {
            "memory_bus_width": number("nvmlDeviceGetMemoryBusWidth", card),
            "num_gpu_cores": number("nvmlDeviceGetNumGpuCores", card),
            "max_sm_clock": number("nvmlDeviceGetMaxClockInfo", card, 1),
            "max_mem_clock": number("nvmlDeviceGetMaxClockInfo", card, 2),
        }
print(json.dumps(found))
"""


def read_nvml(root: str, seconds: float) -> Optional[Dict[str, Any]]:
    """Bus id -> numbers; None where no NVIDIA driver is loaded or NVML gave no answer."""
    if root != "/" or not os.path.exists("/proc/driver/nvidia/version"):
        return None
    record = run_tool([sys.executable or "python3", "-c", PROGRAM], min(seconds, NVML_S))
    return answer("\n".join(record.get("stdout", [])))


def answer(printed: str) -> Optional[Dict[str, Any]]:
    """What the process printed, None where that is not what it prints."""
    try:
        value = json.loads(printed)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
