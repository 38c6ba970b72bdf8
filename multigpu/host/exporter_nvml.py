"""What NVML says of every card, through nvidia-ml-py.

NVML is initialised for each question and left again: whoever keeps it open keeps a card from being
reset and a driver from being unloaded. What a card refuses to tell is None.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Tuple

RECOVERY_ACTION_FIELD = 230
"""NVML_FI_DEV_GET_GPU_RECOVERY_ACTION; older nvidia-ml-py has no name for it."""
ECC_ERRORS = ((0, "corrected"), (1, "uncorrected"))
ECC_COUNTERS = ((0, "volatile"), (1, "aggregate"))
CORE_SENSOR = 0
NO_LIBRARY = (9, 12)
"""Driver not loaded, library not found: no NVIDIA cards, or a driver that is gone."""


@dataclass(frozen=True)
class Card:
    """One card; numbers are bytes, watts, degrees Celsius, lanes, 0 to 1. None is unknown.

    `ecc_errors` maps (error, counter) to a count, `remapped_rows` is (corrected, uncorrected,
    pending, failed), `processes` are (pid, bytes).
    """

    index: Optional[int] = None
    uuid: Optional[str] = None
    pci_address: Optional[str] = None
    name: Optional[str] = None
    vendor: str = "nvidia"
    driver_version: Optional[str] = None
    is_up: bool = True
    utilization: Optional[float] = None
    memory_used: Optional[int] = None
    memory_total: Optional[int] = None
    memory_reserved: Optional[int] = None
    power_w: Optional[float] = None
    power_limit_w: Optional[float] = None
    temperature_c: Optional[float] = None
    throttle_bits: Optional[int] = None
    pcie_gen: Optional[int] = None
    pcie_gen_max: Optional[int] = None
    pcie_width: Optional[int] = None
    pcie_width_max: Optional[int] = None
    ecc_errors: Dict[Tuple[str, str], int] = field(default_factory=dict)
    remapped_rows: Optional[Tuple[int, int, int, int]] = None
    recovery_action: Optional[int] = None
    processes: Optional[List[Tuple[int, Optional[int]]]] = None


def address(bus_id: str) -> str:
    """NVML's `00000000:01:00.0` as the kernel writes it, `0000:01:00.0`."""
    domain, _, rest = bus_id.lower().partition(":")
    return f"{int(domain, 16):04x}:{rest}"


def cards(expected: bool = False) -> List[Card]:
    """All cards that NVML counts, lost ones with `is_up` False.

    No NVML is no card, unless cards are `expected`. Raises what nvidia-ml-py raises.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if getattr(error, "value", None) in NO_LIBRARY and not expected:
            return []
        raise
    try:
        driver = _text(_ask(pynvml, pynvml.nvmlSystemGetDriverVersion))
        return [_card(pynvml, index, driver) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def _card(pynvml: Any, index: int, driver: Optional[str]) -> Card:
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        uuid = _text(pynvml.nvmlDeviceGetUUID(handle))
        memory = _memory(pynvml, handle)
    except pynvml.NVMLError:
        return Card(index=index, is_up=False)
    return Card(
        index=index,
        uuid=uuid,
        driver_version=driver,
        memory_used=memory.used,
        memory_total=memory.total,
        memory_reserved=getattr(memory, "reserved", None),
        **_identity(pynvml, handle),
        **_load(pynvml, handle),
        **_link(pynvml, handle),
        **_errors(pynvml, handle),
    )


def _memory(pynvml: Any, handle: Any) -> Any:
    """Version 2 tells used from reserved memory; drivers before 510 have version 1 only."""
    try:
        return pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    except (pynvml.NVMLError, AttributeError):
        return pynvml.nvmlDeviceGetMemoryInfo(handle)


def _identity(pynvml: Any, handle: Any) -> Dict[str, Any]:
    pci = _ask(pynvml, pynvml.nvmlDeviceGetPciInfo, handle)
    return {
        "name": _text(_ask(pynvml, pynvml.nvmlDeviceGetName, handle)),
        "pci_address": None if pci is None else address(_text(pci.busId) or ""),
    }


def _load(pynvml: Any, handle: Any) -> Dict[str, Any]:
    rates = _ask(pynvml, pynvml.nvmlDeviceGetUtilizationRates, handle)
    power_mw = _ask(pynvml, pynvml.nvmlDeviceGetPowerUsage, handle)
    limit_mw = _ask(pynvml, pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    running = _ask(pynvml, pynvml.nvmlDeviceGetComputeRunningProcesses, handle)
    return {
        "utilization": None if rates is None else rates.gpu / 100,
        "power_w": None if power_mw is None else power_mw / 1000,
        "power_limit_w": None if limit_mw is None else limit_mw / 1000,
        "temperature_c": _ask(pynvml, pynvml.nvmlDeviceGetTemperature, handle, CORE_SENSOR),
        "throttle_bits": _throttle_bits(pynvml, handle),
        "processes": None if running is None else [(p.pid, p.usedGpuMemory) for p in running],
    }


def _throttle_bits(pynvml: Any, handle: Any) -> Optional[int]:
    """Drivers before 535 know the question by its older name only."""
    for name in ("CurrentClocksEventReasons", "CurrentClocksThrottleReasons"):
        question = getattr(pynvml, f"nvmlDeviceGet{name}", None)
        bits = None if question is None else _ask(pynvml, question, handle)
        if bits is not None:
            return int(bits)
    return None


def _link(pynvml: Any, handle: Any) -> Dict[str, Any]:
    return {
        "pcie_gen": _ask(pynvml, pynvml.nvmlDeviceGetCurrPcieLinkGeneration, handle),
        "pcie_gen_max": _ask(pynvml, pynvml.nvmlDeviceGetMaxPcieLinkGeneration, handle),
        "pcie_width": _ask(pynvml, pynvml.nvmlDeviceGetCurrPcieLinkWidth, handle),
        "pcie_width_max": _ask(pynvml, pynvml.nvmlDeviceGetMaxPcieLinkWidth, handle),
    }


def _errors(pynvml: Any, handle: Any) -> Dict[str, Any]:
    counts = {
        (error, counter): _ask(pynvml, pynvml.nvmlDeviceGetTotalEccErrors, handle, kind, since)
        for kind, error in ECC_ERRORS
        for since, counter in ECC_COUNTERS
    }
    rows = _ask(pynvml, pynvml.nvmlDeviceGetRemappedRows, handle)
    return {
        "ecc_errors": {key: count for key, count in counts.items() if count is not None},
        "remapped_rows": None if rows is None else tuple(int(value) for value in rows),
        "recovery_action": _recovery_action(pynvml, handle),
    }


def _recovery_action(pynvml: Any, handle: Any) -> Optional[int]:
    values = _ask(pynvml, pynvml.nvmlDeviceGetFieldValues, handle, [RECOVERY_ACTION_FIELD])
    if not values or values[0].nvmlReturn != 0:
        return None
    return int(values[0].value.uiVal)


def _ask(pynvml: Any, question: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, None where the card or the driver has none."""
    try:
        return question(*arguments)
    except pynvml.NVMLError:
        return None


def _text(value: Any) -> Optional[str]:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
