"""What NVML and the kernel say that cards need, and who uses them; asked in a thread that may hang.

NVML's recovery action (field 230) comes first, the Xid classes of NVIDIA's catalogue second: an old
Xid of a card that NVML calls well is no need. Nothing here was run on a card that is really sick.
"""

from __future__ import annotations

import json
import threading
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, TypeVar

from multigpu.host import devices, gpu_facts
from multigpu.host.ledger import DONE, Clock, Ledger
from multigpu.host.reactions import Need
from multigpu.host.requests import GPU_RESET, REBOOT

NOT_FOUND = 6
"""NVML_ERROR_NOT_FOUND: no card of that UUID answers."""
RECENT_S = 3600.0
LIMIT_S = 20.0
ACTIONS: Dict[int, Tuple[str, str, bool]] = {
    1: (GPU_RESET, "a reset", False),
    2: (REBOOT, "a reboot of the node", True),
    4: (GPU_RESET, "to be drained and reset", False),
    6: (REBOOT, "a reset of its bus", False),
    7: (REBOOT, "a reboot of the system", True),
}
"""nvmlDeviceGpuRecoveryAction_t (nvml.h). 3 and 5 (peer-to-peer, IMEX) are for a fleet's manager.
No tool of a driver resets a bus, so that is a reboot."""
AMD_RESET = ("amdgpu-timeout", "amdgpu-ras")
Answer = TypeVar("Answer")


class Seen(NamedTuple):
    """One look: needs by card, pids by card, and why NVML gave no answer (None where it did)."""

    needs: Dict[str, Need]
    pids: Dict[str, Tuple[int, ...]]
    silent: Optional[str]


class Events(NamedTuple):
    """A line of the kernel about a card."""

    pci: str
    uptime_s: float
    xid: Optional[int]
    event: Optional[str]
    text: str


def within(limit_s: float, ask: Callable[[], Answer]) -> Optional[Answer]:
    """The answer; None when there is none in time. The thread is left behind."""
    answers: List[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(ask()), daemon=True)
    thread.start()
    thread.join(limit_s)
    return answers[0] if answers else None


def look(
    cards: Dict[str, Optional[str]],
    ledger: Ledger,
    now: Clock,
    xid_file: str = gpu_facts.XID_FILE,
    limit_s: float = LIMIT_S,
) -> Seen:
    """What these cards (name -> PCI address) need now. Never raises, never takes longer."""
    nvidia = tuple(gpu for gpu in cards if not devices.PCI_ADDRESS.fullmatch(gpu))
    reading = within(limit_s, lambda: gpu_facts.read(nvidia)) if nvidia else None
    logged = log_needs(cards, events(xid_file), ledger, now)
    if reading is None:
        silent = f"NVML did not answer within {limit_s:g} s, or is not there" if nvidia else None
        return Seen(logged, {}, silent)
    told = nvml_needs(reading)
    needs = {**_not_contradicted(logged, reading), **told}
    pids = {card.uuid: tuple(pid for pid, _ in card.processes) for card in reading.cards}
    if reading.error == gpu_facts.MISMATCH:
        why = "driver and its library are of different releases (NVML 18)"
        needs = dict.fromkeys(nvidia, Need(REBOOT, why, True))
    return Seen(needs, pids, None if reading.error is None else reading.said)


def _not_contradicted(logged: Dict[str, Need], reading: gpu_facts.Reading) -> Dict[str, Need]:
    """A card that answers is not lost, and one that NVML calls well (action 0) needs nothing."""
    answering = {card.uuid for card in reading.cards if card.error is None}
    well = {c.uuid for c in reading.cards if c.error is None and c.recovery_action == 0}
    return {
        gpu: need
        for gpu, need in logged.items()
        if gpu not in well and not (gpu in answering and need.what == REBOOT)
    }


def nvml_needs(reading: gpu_facts.Reading) -> Dict[str, Need]:
    """Of each card that states one."""
    found: Dict[str, Need] = {}
    for card in reading.cards:
        if card.error in (gpu_facts.GPU_IS_LOST, NOT_FOUND):
            found[card.uuid] = Need(REBOOT, f"{card.uuid} is lost (NVML {card.error})")
        elif card.error == gpu_facts.RESET_REQUIRED:
            found[card.uuid] = Need(GPU_RESET, f"{card.uuid} needs a reset (NVML {card.error})")
        elif card.recovery_action in ACTIONS:
            what, words, host = ACTIONS[card.recovery_action]
            text = f"{card.uuid} needs {words} (recovery action {card.recovery_action})"
            found[card.uuid] = Need(what, text, host)
    return found


def events(path: str) -> List[Events]:
    """What multigpu-kernel-log.service saw in this boot; [] where nobody counts, or it is torn."""
    try:
        with open(path, "rb") as file:
            rows = json.loads(file.read(4_000_000))["events"]
        return [_event(row) for row in rows if row.get("pci") and row.get("uptime_s") is not None]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def _event(row: Any) -> Events:
    xid = None if row.get("xid") is None else int(row["xid"])
    event = None if row.get("event") is None else str(row["event"])
    text = str(row.get("text") or "")
    return Events(str(row["pci"]).lower()[-12:], float(row["uptime_s"]), xid, event, text)


def log_needs(
    cards: Dict[str, Optional[str]], seen: List[Events], ledger: Ledger, now: Clock
) -> Dict[str, Need]:
    """Of cards with an event of the last hour, younger than their last reset."""
    found: Dict[str, Need] = {}
    for gpu, pci in cards.items():
        since = max(now.uptime_s - RECENT_S, last_reset(gpu, ledger, now))
        for event in seen:
            if pci is not None and event.pci == pci.lower()[-12:] and event.uptime_s > since:
                need = _logged(gpu, event)
                if need is not None and (gpu not in found or need.what == REBOOT):
                    found[gpu] = need
    return found


def last_reset(gpu: str, ledger: Ledger, now: Clock) -> float:
    """Seconds of uptime at which the card was last reset in this boot, else 0."""
    resets = [
        e.uptime_s
        for e in ledger.entries
        if (e.what, e.outcome, e.boot) == (GPU_RESET, DONE, now.boot) and gpu in e.gpus
    ]
    return max(resets, default=0.0)


def _logged(gpu: str, event: Events) -> Optional[Need]:
    if event.xid in gpu_facts.LOST_XIDS or event.event == "off-the-bus":
        return Need(REBOOT, f"{gpu} fell off the bus (kernel log)")
    if event.xid in gpu_facts.RESET_XIDS:
        return Need(GPU_RESET, f"{gpu} needs a reset (Xid {event.xid} in the kernel log)")
    if event.event in AMD_RESET:
        return Need(GPU_RESET, f"{gpu} needs a reset ({event.event} in the kernel log)")
    return None
