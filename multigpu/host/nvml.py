"""Samples of every GPU through nvidia-ml-py and amdgpu, taken in a thread of their own.

NVML calls can block for minutes on a sick card, so nobody waits for this thread without a limit.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any

from multigpu.host import amdgpu

MIB = 1024 * 1024


class Sampler(threading.Thread):
    """Reads utilization, memory and power of all cards every `interval_s` until stopped.

    After `result()`: one dict per card with `index`, `uuid`, `utilization` (percent, one number a
    sample), `power_w`, `memory_used_mib` (the largest seen), `memory_total_mib`, `processes`
    ([pid, used_memory_mib | None]), `error`. AMD cards come after NVIDIA's; a host that has some
    needs no NVML.
    """

    def __init__(self, interval_s: float = 0.25, root: str = "/") -> None:
        super().__init__(daemon=True)
        self.interval_s, self.root = interval_s, root
        self.stopped = threading.Event()
        self.error: str | None = None
        self.cards: list[dict[str, Any]] = []

    def run(self) -> None:
        """Sample until stopped. An NVML that does not load is an error text, not an exception."""
        amd = amdgpu.directories(self.root)
        pynvml, count = self.nvml()
        if amd and not count:
            self.error = None
        self.cards = [new_card(index) for index in range(count + len(amd))]
        while self.cards and not self.stopped.is_set():
            for card in self.cards[:count]:
                sample(pynvml, card)
            for i, directory in enumerate(amd):
                amdgpu.sample(directory, self.cards[count + i])
            self.stopped.wait(self.interval_s)

    def nvml(self) -> tuple[Any, int]:
        """The library and how many cards it counts; without it none, and `error` says why."""
        try:
            import pynvml
        except ImportError as error:
            self.error = f"nvidia-ml-py is not importable: {error}"
            return None, 0
        try:
            pynvml.nvmlInit()
            return pynvml, pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            self.error = f"NVML: {error}"
            return pynvml, 0

    def result(self, timeout_s: float = 5.0) -> list[dict[str, Any]]:
        """Stop and return the cards; says so in `error` when NVML blocked."""
        self.stopped.set()
        self.join(timeout_s)
        if self.is_alive():
            self.error = f"NVML did not answer within {timeout_s:g} s"
        return self.cards


def new_card(index: int) -> dict[str, Any]:
    """An empty record of one card."""
    return {
        "index": index,
        "uuid": None,
        "utilization": [],
        "power_w": [],
        "memory_used_mib": None,
        "memory_total_mib": None,
        "processes": [],
        "error": None,
    }


def sample(pynvml: Any, card: dict[str, Any]) -> None:
    """Add one sample to a card. A lost card keeps its row, with the error."""
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(card["index"])
        uuid = pynvml.nvmlDeviceGetUUID(handle)
        card["uuid"] = uuid.decode() if isinstance(uuid, bytes) else uuid
        memory = memory_info(pynvml, handle)
        card["memory_total_mib"] = memory.total // MIB
        card["memory_used_mib"] = max(card["memory_used_mib"] or 0, memory.used // MIB)
        card["utilization"].append(int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu))
    except pynvml.NVMLError as error:
        card["error"] = str(error)
        return
    optional(pynvml, card, handle)


def memory_info(pynvml: Any, handle: Any) -> Any:
    """Version 2 tells used from reserved memory; drivers before 510 have version 1 only."""
    try:
        return pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    except (pynvml.NVMLError, AttributeError):
        return pynvml.nvmlDeviceGetMemoryInfo(handle)


def optional(pynvml: Any, card: dict[str, Any], handle: Any) -> None:
    """What a card may refuse to tell without being sick."""
    with contextlib.suppress(pynvml.NVMLError):
        card["power_w"].append(round(pynvml.nvmlDeviceGetPowerUsage(handle) / 1000, 1))
    try:
        running = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except pynvml.NVMLError:
        return
    card["processes"] = [
        [process.pid, None if process.usedGpuMemory is None else process.usedGpuMemory // MIB]
        for process in running
    ]
