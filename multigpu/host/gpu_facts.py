"""What NVML and the kernel say of a service's cards, read in a thread that may block for ever.

NVML names the reaction itself: field 230, GPU recovery action (nvidia-ml-py, `pynvml.py`); a call
on a card whose firmware hangs (Xid 119) does not return, so nobody waits for this thread.
"""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any, Dict, FrozenSet, List, Optional, Tuple

from multigpu.host.nvml import memory_info

XID_FILE = "/run/multigpu/xid.json"
MIB = 1024 * 1024
RECOVERY_ACTION = 230
NOT_FOUND, GPU_IS_LOST, RESET_REQUIRED, MISMATCH = 6, 15, 16, 18
RESET_ACTIONS = (1, 4)
RESET_XIDS = frozenset(
    (46, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158)
)  # NVIDIA's Xid catalogue: reset the card
LOST_XIDS = frozenset((79,))
IGNORED_XIDS = frozenset(
    (14, 37, 38, 43, 44, 63, 66, 67, 92, 93, 106, 107, 108, 121, 137, 141, 152, 153, 157, 160, 161)
)


@dataclass(frozen=True)
class Card:
    """One card now. `error` is NVML's number, None where all was answered."""

    uuid: str
    pci: Optional[str] = None
    utilization: Optional[int] = None
    power_w: Optional[float] = None
    power_limit_w: Optional[float] = None
    used_mib: Optional[int] = None
    total_mib: Optional[int] = None
    recovery_action: Optional[int] = None
    processes: Tuple[Tuple[int, Optional[int]], ...] = ()
    error: Optional[int] = None


@dataclass(frozen=True)
class Reading:
    """All wanted cards at one moment (`at`, time.monotonic()); `error` is that of the library."""

    at: float
    cards: Tuple[Card, ...] = ()
    error: Optional[int] = None
    said: Optional[str] = None

    @property
    def pids(self) -> FrozenSet[int]:
        """Processes on any of the cards."""
        return frozenset(pid for card in self.cards for pid, _ in card.processes)


def read(wanted: Tuple[str, ...]) -> Optional[Reading]:
    """The wanted cards, by UUID; None where there is no NVML, or none was wanted."""
    if not wanted:
        return None
    try:
        import pynvml
    except (ImportError, MemoryError):  # ctypes, where no memory may be executed
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        missing = error.value in (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,)
        return None if missing else Reading(time.monotonic(), (), error.value, str(error))
    cards = tuple(_card(pynvml, uuid) for uuid in wanted)
    return Reading(time.monotonic(), cards)


def _card(pynvml: Any, uuid: str) -> Card:
    card = Card(uuid)
    try:
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid.encode())
        card = replace(card, pci=_pci(pynvml, handle))
        memory = memory_info(pynvml, handle)
        card = replace(card, used_mib=memory.used // MIB, total_mib=memory.total // MIB)
        rates = pynvml.nvmlDeviceGetUtilizationRates(handle)
        card = replace(card, utilization=int(rates.gpu))
    except pynvml.NVMLError as error:
        return replace(card, error=error.value)
    return replace(
        card,
        power_w=_optional(pynvml, lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1000),
        power_limit_w=_optional(
            pynvml, lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000
        ),
        recovery_action=_recovery_action(pynvml, handle),
        processes=_processes(pynvml, handle),
    )


def _optional(pynvml: Any, ask: Any) -> Any:
    """What a card may refuse to tell without being sick."""
    try:
        return ask()
    except (pynvml.NVMLError, AttributeError):
        return None


def _pci(pynvml: Any, handle: Any) -> Optional[str]:
    found = _optional(pynvml, lambda: pynvml.nvmlDeviceGetPciInfo(handle).busId)
    text = found.decode("ascii", "replace") if isinstance(found, bytes) else found
    return None if not text else text.lower()[-12:]


def _recovery_action(pynvml: Any, handle: Any) -> Optional[int]:
    values = _optional(pynvml, lambda: pynvml.nvmlDeviceGetFieldValues(handle, [RECOVERY_ACTION]))
    if not values or values[0].nvmlReturn != 0:
        return None
    return int(values[0].value.uiVal)


def _processes(pynvml: Any, handle: Any) -> Tuple[Tuple[int, Optional[int]], ...]:
    running = _optional(pynvml, lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handle)) or ()
    return tuple(
        (int(p.pid), None if p.usedGpuMemory is None else p.usedGpuMemory // MIB) for p in running
    )


def xids(cards: Tuple[Card, ...], since: float, path: str = XID_FILE) -> List[Tuple[int, str]]:
    """Xids of these cards since a moment of time.monotonic(), each with its line; [] if unknown.

    multigpu-kernel-log.service writes the file (`multigpu.host.kernel_log`).
    """
    try:
        with open(path, "rb") as file:
            events = json.loads(file.read(4_000_000))["events"]
        ours = {card.pci[:-2] for card in cards if card.pci} | {card.uuid for card in cards}
        return [
            (int(one["xid"]), str(one.get("text") or ""))
            for one in events
            if one.get("xid") is not None
            and float(one.get("uptime_s") or 0) > since
            and ({one.get("uuid"), _short(one.get("pci"))} & ours)
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _short(pci: Optional[str]) -> Optional[str]:
    """`0000:01:00`: the kernel's lines leave the function out, NVML does not."""
    return pci.lower()[-12:].partition(".")[0] if pci else None


@dataclass
class Watch:
    """Reads the cards every `pause_s`; `reading` is the last one that came back."""

    wanted: Tuple[str, ...]
    pause_s: float = 2.0
    reading: Optional[Reading] = None
    started: float = field(default_factory=time.monotonic)

    def start(self) -> None:
        """In a thread of its own."""
        if self.wanted and not os.environ.get("MULTIGPU_NO_NVML"):
            threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                found = read(self.wanted)
            except Exception as error:  # a library that is broken is no reason to end an engine
                found = Reading(time.monotonic(), said=f"{type(error).__name__}: {error}")
            if found is None:
                return
            self.reading = found
            time.sleep(self.pause_s)

    def first(self, limit_s: float) -> Optional[Reading]:
        """The first reading, waited for at most so long."""
        deadline = time.monotonic() + limit_s
        while self.wanted and self.reading is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.reading


def sick(reading: Optional[Reading], since: float, path: str = XID_FILE) -> Dict[str, str]:
    """What a working engine does not survive: reason (or "xid") to what was said."""
    if reading is None:
        return {}
    found: Dict[str, str] = {}
    for card in reading.cards:
        if card.error in (GPU_IS_LOST, NOT_FOUND):
            found["gpu_lost"] = f"{card.uuid} is lost (NVML error {card.error})"
        elif card.error == RESET_REQUIRED or card.recovery_action in RESET_ACTIONS:
            found["reset_required"] = f"{card.uuid} needs a reset (NVML)"
    for number, text in xids(reading.cards, since, path):
        if number in LOST_XIDS:
            found.setdefault("gpu_lost", text or f"Xid {number}")
        elif number in RESET_XIDS:
            found.setdefault("reset_required", text or f"Xid {number}")
        elif number not in IGNORED_XIDS:
            found["xid"] = text or f"Xid {number}"
    return found
