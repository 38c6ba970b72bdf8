"""What ails a card: why it cannot be used, what holds its clocks down, its memory errors."""

from __future__ import annotations

import re

from multigpu.parse.nvidia_smi.paths import PATHS
from multigpu.parse.shape import whole, word

LOST = re.compile(r"GPU is lost|GPU requires reset")
BROKEN = {"ERR!", "Unknown Error"}

# Cells that a card which stopped answering fills with errors; one alone may be a failed sensor.
VITAL = (
    *("name", "uuid", "vbios_version", "temperature", "performance_state", "power_draw"),
    *("power_limit", "compute_mode"),
)

# `clocks_event_reason_sw_power_cap`, `clocks_event_reasons.sw_power_cap`, `hw slowdown/...`: what
# stands before the reason's own name (throttle up to driver 530, event since 535).
REASON_PARENTS = (
    *("clocks_event_reasons", "clocks_throttle_reasons"),
    *("clocks event reasons", "clocks throttle reasons"),
)
REASON_PREFIX = re.compile(r"^clocks_(?:event|throttle)_reason_")
REASON_WORDS = {"idle": "gpu_idle", "display_clock_setting": "display_clocks_setting"}

# Bits of clocks_event_reasons.active (nvml.h, nvmlClocksEventReason*).
REASON_BITS = {
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clocks_setting",
}
NOT_THROTTLING = {"gpu_idle", "none", "active", "supported"}


def fault(cells: dict[str, str], memory_accounted: bool) -> str | None:
    """Why this card cannot be used, in the driver's words; None for a card that answers.

    `memory_accounted` is False when its memory was asked for, and nothing explains its absence.
    """
    for cell in cells.values():
        if match := LOST.search(cell):
            return match[0]
    vital = {name: _raw(cells, PATHS[name]) for name in VITAL}
    broken = [cell for cell in vital.values() if cell in BROKEN]
    if len(broken) > 1 or vital["name"] in BROKEN:
        return broken[0]
    action = word(_raw(cells, PATHS["recovery_action"])) or ""
    if re.search(r"reset|reboot", action, re.IGNORECASE):
        return f"the driver asks for: {action}"
    if _raw(cells, PATHS["reset_required"]) == "Yes":
        return "the driver asks for: GPU reset"
    return None if memory_accounted else "the driver does not tell its memory"


def _raw(cells: dict[str, str], paths: tuple[str, ...]) -> str:
    """The cell as printed, errors and all, without brackets."""
    for path in paths:
        if path in cells:
            return cells[path].strip().strip("[]")
    return ""


def throttle_reasons(cells: dict[str, str]) -> tuple[str, ...]:
    """Active reasons in the order printed, named as the XML names them; idling is none."""
    found = []
    for path, cell in cells.items():
        if path.startswith(REASON_PARENTS) and cell.strip() == "Active":
            own = REASON_PREFIX.sub("", re.split(r"[/.]", path)[-1]).replace(" ", "_")
            found.append(REASON_WORDS.get(own, own))
    if not found:
        found = _reasons_of_mask(cells)
    return tuple(reason for reason in found if reason not in NOT_THROTTLING)


def _reasons_of_mask(cells: dict[str, str]) -> list[str]:
    """The mask of the CSV, where the reasons were not asked for one by one."""
    for path in ("clocks_event_reasons.active", "clocks_throttle_reasons.active"):
        if re.fullmatch(r"0x[0-9a-fA-F]{1,16}", cells.get(path, "").strip()):
            mask = int(cells[path].strip(), 16)
            return [reason for bit, reason in REASON_BITS.items() if mask & bit]
    return []


def ecc_errors(cells: dict[str, str], groups: tuple[tuple[str, ...], ...]) -> int | None:
    """The sum over the first group of paths of which any is printed."""
    for paths in groups:
        counts = [whole(word(cells.get(path))) for path in paths]
        seen = [count for count in counts if count is not None and count >= 0]
        if seen:
            return sum(seen)
    return None
