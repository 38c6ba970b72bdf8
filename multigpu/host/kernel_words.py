"""Which lines of the kernel log are about a GPU: the few that the host itself counts.

The formats are those that `multigpu.parse.kernel` reads on the controller, which is not here; tests
hold the two to the same captured logs. Sources: NVIDIA open-gpu-kernel-modules (Xid, fallen off the
bus), Linux drivers/gpu/drm/amd/amdgpu.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Optional

_AT = r"((?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}(?:\.[0-7])?)"


def _rule(pattern: str) -> "re.Pattern[str]":
    return re.compile(pattern.replace("ADDRESS", _AT), re.ASCII | re.IGNORECASE)


XID = _rule(r"NVRM: *Xid \((?:PCI:)?ADDRESS(?: GPU-I:[0-9a-f]+)?\): (\d{1,4})(?!\d),?\s?(.*)$")
OFF_THE_BUS = _rule(r"NVRM: .{0,40}?ADDRESS:? .{0,80}?((?:GPU )?has fallen off the bus.*)$")
INIT_FAILED = _rule(r"NVRM: GPU ADDRESS: (RmInitAdapter failed.*)$")
_AMDGPU = (
    ("init-failed", r"Fatal error during GPU init|amdgpu_device_ip_init failed"),
    ("amdgpu-reset", r"GPU reset(?: begin|\(\d+\)| end| failed|,? ?succeeded)"),
    ("amdgpu-reset", r"Starting \S{1,40} ring reset|Ring \S{1,40} reset \w"),
    ("amdgpu-reset", r"VRAM is lost due to GPU reset"),
    ("amdgpu-timeout", r"ring \S{1,40} timeout, "),
    ("amdgpu-ras", r"(?<!\S)\d+ (?:new )?uncorrectable hardware errors? detected"),
    ("amdgpu-ras", r"uncorrectable hardware error ?\(ERREVENT_ATHUB_INTERRUPT\)"),
)
EVENTS = (
    ("off-the-bus", OFF_THE_BUS),
    ("init-failed", INIT_FAILED),
    *(
        (kind, _rule(rf"amdgpu ADDRESS: (?:amdgpu: )?.{{0,40}}?((?:{words}).*)$"))
        for kind, words in _AMDGPU
    ),
)


class Event(NamedTuple):
    """A line about one card; `xid` for Xids, else `event` is the kind."""

    pci_address: str
    xid: Optional[int]
    event: Optional[str]
    text: str


def event(line: str) -> Optional[Event]:
    """What a line says of a card, None when it is about none."""
    if "NVRM:" not in line and "amdgpu" not in line:
        return None
    found = XID.search(line)
    if found:
        return Event(address(found[1]), int(found[2]), None, found[3].strip())
    for kind, rule in EVENTS:
        match = rule.search(line)
        if match:
            return Event(address(match[1]), None, kind, match[2].strip())
    return None


def address(written: str) -> str:
    """`PCI:0000:01:00`, `01:00.0` and `00000000:01:00.0` as sysfs writes it: `0000:01:00.0`."""
    parts = written.lower().split(":")
    domain = int(parts[-3], 16) if len(parts) > 2 else 0
    device, _, function = parts[-1].partition(".")
    return f"{domain:04x}:{parts[-2]}:{device}.{function or '0'}"
