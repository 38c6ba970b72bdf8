"""NVML as this machine has it."""

from __future__ import annotations

import contextlib
from typing import Any

from multigpu.host.nvml import MIB, memory_info


def used_mib(index: int = 0) -> int | None:
    """MiB in use on a card by anybody; None without NVML."""
    memory = _memory(index)
    return None if memory is None else int(memory.used // MIB)


def total_mib(index: int = 0) -> int | None:
    """MiB of a card; None without NVML."""
    memory = _memory(index)
    return None if memory is None else int(memory.total // MIB)


def _memory(index: int) -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        return memory_info(pynvml, pynvml.nvmlDeviceGetHandleByIndex(index))
    return None
