"""Cards and the kernel log's counts of them as samples."""

from __future__ import annotations

from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple

from multigpu.host.exporter_nvml import Card
from multigpu.host.exporter_table import RECOVERY_ACTIONS, THROTTLE_REASONS, Sample

PLAIN = {
    "utilization": "utilization_ratio",
    "memory_used": "memory_used_bytes",
    "memory_total": "memory_total_bytes",
    "memory_reserved": "memory_reserved_bytes",
    "power_w": "power_watts",
    "power_limit_w": "power_limit_watts",
    "temperature_c": "temperature_celsius",
    "pcie_gen": "pcie_link_generation",
    "pcie_gen_max": "pcie_link_generation_max",
    "pcie_width": "pcie_link_width_lanes",
    "pcie_width_max": "pcie_link_width_max_lanes",
}
"""Fields of a card whose value is the sample's value."""


class Known:
    """Cards by what they were when they last answered, so that a lost one keeps its name."""

    def __init__(self) -> None:
        self.cards: Dict[Tuple[str, Optional[int]], Card] = {}

    def complete(self, seen: Iterable[Card], planned: Iterable[Card]) -> List[Card]:
        """The cards seen, lost ones with their names, and those that are planned for or were seen
        before and are not there any more, as lost."""
        found = [self._named(card) for card in seen]
        for card in found:
            if card.is_up:
                self.cards[card.vendor, card.index] = card
        there = {name for card in found for name in (card.uuid, card.pci_address) if name}
        missing = []
        for card in (*self.cards.values(), *planned):
            names = {card.uuid, card.pci_address} - {None}
            if names and not names & there:
                missing.append(_lost(card))
                there |= {name for name in names if name}
        return found + missing

    def _named(self, card: Card) -> Card:
        before = self.cards.get((card.vendor, card.index))
        return card if card.is_up or before is None else _lost(before)


def _lost(card: Card) -> Card:
    return Card(
        index=card.index,
        uuid=card.uuid,
        pci_address=card.pci_address,
        name=card.name,
        vendor=card.vendor,
        driver_version=card.driver_version,
        is_up=False,
    )


def labels(card: Card) -> Dict[str, str]:
    """Who the card is, "" where that is unknown."""
    index = "" if card.index is None else str(card.index)
    return {"gpu": index, "uuid": card.uuid or "", "pci_address": card.pci_address or ""}


def samples(card: Card) -> List[Sample]:
    """Everything that is known of one card."""
    who = labels(card)
    info = {"name": card.name, "vendor": card.vendor, "driver_version": card.driver_version}
    found = [
        Sample("multigpu_gpu_info", {**who, **{k: v or "" for k, v in info.items()}}, 1),
        Sample("multigpu_gpu_up", who, float(card.is_up)),
    ]
    values = ((name, getattr(card, field)) for field, name in PLAIN.items())
    found += [Sample(f"multigpu_gpu_{n}", who, v) for n, v in values if v is not None]
    return [*found, *_states(card, who), *_errors(card, who), *_processes(card, who)]


def _states(card: Card, who: Dict[str, str]) -> Iterator[Sample]:
    if card.throttle_bits is not None:
        for bit, reason in THROTTLE_REASONS.items():
            value = float(bool(card.throttle_bits & bit))
            yield Sample("multigpu_gpu_throttled", {**who, "reason": reason}, value)
    action = card.recovery_action
    if action is not None:
        unnamed = {} if action in RECOVERY_ACTIONS else {action: f"code_{action}"}
        for code, name in {**RECOVERY_ACTIONS, **unnamed}.items():
            value = float(code == action)
            yield Sample("multigpu_gpu_recovery_action", {**who, "action": name}, value)


def _errors(card: Card, who: Dict[str, str]) -> Iterator[Sample]:
    for (error, counter), count in card.ecc_errors.items():
        more = {"error": error, "counter": counter}
        yield Sample("multigpu_gpu_ecc_errors_total", {**who, **more}, count)
    if card.remapped_rows is None:
        return
    corrected, uncorrected, pending, failed = card.remapped_rows
    for error, count in (("corrected", corrected), ("uncorrected", uncorrected)):
        yield Sample("multigpu_gpu_remapped_rows", {**who, "error": error}, count)
    yield Sample("multigpu_gpu_remapped_rows_pending", who, float(bool(pending)))
    yield Sample("multigpu_gpu_remapped_rows_failed", who, float(bool(failed)))


def _processes(card: Card, who: Dict[str, str]) -> Iterator[Sample]:
    if card.processes is None:
        return
    yield Sample("multigpu_gpu_processes", who, len(card.processes))
    held = [memory for _, memory in card.processes]
    if None not in held:
        yield Sample("multigpu_gpu_process_memory_bytes", who, sum(m or 0 for m in held))


def kernel_samples(log: Dict[str, Any], cards: Iterable[Card]) -> List[Sample]:
    """What the kernel log's collector counted (`kernel_log.py`), by card."""
    who = {card.pci_address: labels(card) for card in cards}
    found = [Sample("multigpu_kernel_log_lost_records_total", {}, log["lost_records"])]
    for address, counts in log["gpus"].items():
        card = who.get(address, {"pci_address": address})
        for code, seen in counts["xid"].items():
            found += _counted("xid_total", "xid_last", {**card, "code": code}, seen)
        for event, seen in counts["events"].items():
            more = {**card, "event": event}
            found += _counted("kernel_events_total", "kernel_event_last", more, seen)
    return found


def _counted(total: str, last: str, who: Dict[str, str], seen: Dict[str, Any]) -> List[Sample]:
    at = Sample(f"multigpu_gpu_{last}_timestamp_seconds", who, seen["last_at"])
    return [Sample(f"multigpu_gpu_{total}", who, seen["count"]), at]
