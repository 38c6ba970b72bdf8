"""Lines of `lspci -vvv` that matter here, by the word before their colon.

Each reader takes the draft of a device, that word and what stands behind the colon, writes what it
found into the draft (keys are fields of Device, `_` begins a note), and says whether it could read
the line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from multigpu.parse.pci.device import Device, ResizableBar, generation, lanes
from multigpu.parse.shape import number, whole

Draft = dict[str, Any]

LINK = re.compile(
    r"Speed (unknown|[\d.]{1,6}GT/s)(?: \(\w{1,20}\))?, Width x(\d{1,3})(?!\d)", re.ASCII
)
ASPM = re.compile(r"^ASPM ([^;]{1,40});")
EXPRESS = re.compile(r"^\[\w{1,4}\] Express (?:\(v\d{1,2}\) )?([^(,]{3,60})", re.ASCII)
EXTENDED = re.compile(r"^\[\w{3,4} v\d{1,2}\]", re.ASCII)
SECONDARY = re.compile(r"secondary=([0-9a-f]{2})(?![0-9a-f])", re.ASCII)
FLAG_SET = re.compile(r"(\w{1,30})\+", re.ASCII)
REDIRECT = re.compile(r"ReqRedir([+-]) CmpltRedir([+-])")
SIZE = re.compile(r"\[size=(\d{1,6})([KMGT]?)\]", re.ASCII)
BAR_SIZES = re.compile(r"^current size: (\S{1,12}), supported: ?(.*)$")
BAR_SIZE = re.compile(r"^(\d{1,6})(KB|MB|GB|TB)$", re.ASCII)
IDS = re.compile(r"\[([0-9a-f]{4}):([0-9a-f]{4})\]$", re.ASCII)

BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
MIB = {"MB": 1, "GB": 1 << 10, "TB": 1 << 20}


def _link(suffix: str) -> Callable[[Draft, str, str], bool]:
    def read(draft: Draft, key: str, value: str) -> bool:
        match = LINK.search(value)
        if match:
            draft[f"gen_{suffix}"] = generation(number(match[1].removesuffix("GT/s")))
            draft[f"width_{suffix}"] = lanes(whole(match[2]))
        return match is not None

    return read


def _aspm(draft: Draft, key: str, value: str) -> bool:
    if match := ASPM.match(value):
        draft["aspm"] = match[1].strip()
    return match is not None


def _capability(draft: Draft, key: str, value: str) -> bool:
    draft["_capability"] = value
    if match := EXPRESS.match(value):
        draft["port"] = match[1].strip()
    if EXTENDED.match(value):
        draft["_extended"] = True
    if "Access Control Services" in value:
        draft["_acs"] = True
    return True


def _bus(draft: Draft, key: str, value: str) -> bool:
    if match := SECONDARY.search(value):
        draft["secondary"] = int(match[1], 16)
    return match is not None


def _region(draft: Draft, key: str, value: str) -> bool:
    index = whole(key.removeprefix("Region "))
    if index is None or not 0 <= index <= 5:
        return False
    if size := SIZE.search(value):
        known = [*draft.get("region_bytes", ())]
        known += [None] * (index + 1 - len(known))
        known[index] = int(size[1]) * BYTES[size[2]]
        draft["region_bytes"] = tuple(known)
    return True


def _bar(draft: Draft, key: str, value: str) -> bool:
    """A line of "Physical Resizable BAR"; the virtual one beside it belongs to SR-IOV."""
    if "Physical Resizable BAR" not in draft.get("_capability", ""):
        return True
    index, match = whole(key.removeprefix("BAR ")), BAR_SIZES.match(value)
    if index is None or not 0 <= index <= 5 or match is None:
        return False
    supported = tuple(mib for size in match[2].split() if (mib := _mib(size)) is not None)
    bar = ResizableBar(index, _mib(match[1]), supported)
    known = draft.get("resizable_bars", ())
    if all(other.bar != index for other in known):
        draft["resizable_bars"] = (*known, bar)
    return True


def _mib(size: str) -> int | None:
    match = BAR_SIZE.match(size)
    return int(match[1]) * MIB[match[2]] if match and match[2] in MIB else None


def _correctable(draft: Draft, key: str, value: str) -> bool:
    """Bits that were set since they were last cleared; the kernel clears them as it reports."""
    if not re.match(r"RxErr[+-]", value):
        return False
    draft["aer_correctable_seen"] = tuple(FLAG_SET.findall(value))
    return True


def _acs(draft: Draft, key: str, value: str) -> bool:
    if match := REDIRECT.search(value):
        draft["acs_redirect"] = "+" in match.groups()
    return match is not None


def _whole(field: str) -> Callable[[Draft, str, str], bool]:
    def read(draft: Draft, key: str, value: str) -> bool:
        count = whole(value)
        if count is not None and count >= 0:
            draft[field] = count
        return count is not None

    return read


def _driver(draft: Draft, key: str, value: str) -> bool:
    if value:
        draft["driver"] = value
    return bool(value)


def _modules(draft: Draft, key: str, value: str) -> bool:
    draft["_whole"] = True
    return True


def _subsystem(draft: Draft, key: str, value: str) -> bool:
    if match := IDS.search(value):
        draft["subsystem_vendor"], draft["subsystem_device"] = (f"0x{n}" for n in match.groups())
    return True


FIELDS: dict[str, Callable[[Draft, str, str], bool]] = {
    "LnkCap": _link("max"),
    "LnkSta": _link("current"),
    "LnkCtl": _aspm,
    "Capabilities": _capability,
    "Bus": _bus,
    "Region": _region,
    "BAR": _bar,
    "CESta": _correctable,
    "ACSCtl": _acs,
    "NUMA node": _whole("numa_node"),
    "IOMMU group": _whole("iommu_group"),
    "Kernel driver in use": _driver,
    "Kernel modules": _modules,
    "Subsystem": _subsystem,
}


def complete(device: Device, draft: Draft) -> Device:
    """The device with what its whole paragraph tells.

    A port whose extended capabilities were shown to the end, with no Access Control Services among
    them, cannot redirect; in a paragraph that is cut they may only be missing.
    """
    shown = draft.get("_extended") and ("driver" in draft or "_whole" in draft)
    if device.acs_redirect is None and shown and not draft.get("_acs") and device.secondary:
        return replace(device, acs_redirect=False)
    return device
