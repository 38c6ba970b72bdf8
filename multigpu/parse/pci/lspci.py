"""Reader of `lspci`, `lspci -nn` and `lspci -vvv`: one paragraph or line for every device.

pciutils before 3.6 prints `Speed 2.5GT/s, Width x16, TrErr-`, 3.6 and 3.7 `Speed 8GT/s (ok)`,
later ones a word only where something is less than it could be. Without root the capabilities of
`-vvv` read `<access denied>`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from multigpu.hardware import LeftOut
from multigpu.parse.pci import lspci_tree
from multigpu.parse.pci.cards import gpus, left_out
from multigpu.parse.pci.device import Device, Tree, address
from multigpu.parse.pci.lspci_fields import FIELDS, complete
from multigpu.parse.pci.lspci_names import class_of, identity
from multigpu.parse.reading import ANSI, Kind, Lines, Reading

ADDRESS = r"(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"
# Well-known scripts list the devices by IOMMU group, the group before each or above.
GROUP = r"(?:IOMMU Group \d{1,4}:? )?"
HEADER = re.compile(rf"^[ \t]*{GROUP}({ADDRESS}) (.{{3,100}}?): (.+)$", re.ASCII)
PROMPT = re.compile(r"[$#] (?:sudo )?lspci\b")


@dataclass(frozen=True)
class Listing:
    """The devices of one lspci, in its order; `parent` is known where bridges tell their buses."""

    devices: tuple[Device, ...] = ()

    @cached_property
    def tree(self) -> Tree:
        """The devices by address."""
        return {device.address: device for device in self.devices}

    @property
    def gpus(self) -> tuple[Device, ...]:
        """Cards to plan with."""
        return gpus(self.tree)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Display functions that are no cards to plan with, and why."""
        return left_out(self.tree)


def read_lspci(text: str) -> Reading[Listing]:
    """Every device of the text. A detail that matters here and cannot be read stays unread."""
    lines = Lines(text)
    drafts: dict[str, dict[str, Any]] = {}
    draft: dict[str, Any] | None = None
    for index, line in lines:
        if not line.strip():
            draft = None
        elif (header := HEADER.match(line)) and (name := address(header[1])):
            draft = drafts.setdefault(name, {"address": name})
            draft.update(_headed(header[2], header[3]))
            lines.mark(index)
        elif (draft is not None and _detail(draft, line)) or PROMPT.search(line):
            lines.mark(index)
    devices = tuple(_device(draft) for draft in drafts.values())
    return lines.reading(Listing(with_parents(devices)))


def _headed(kind: str, rest: str) -> dict[str, Any]:
    known = identity(rest)
    return {**known, "pci_class": class_of(kind, rest), "dead": known["revision"] == "ff"}


def _detail(draft: dict[str, Any], line: str) -> bool:
    """Take one line of a device in; False where it should have been read and could not be."""
    key, _, value = line.strip().partition(":")
    read = FIELDS.get(key[:6] if key.startswith("Region") else key[:3] if _is_bar(key) else key)
    if read is not None:
        return read(draft, key, value.strip())
    if key.startswith("!!! Unknown header type"):
        draft["dead"] = True
        return True
    return line[0] in " \t"


def _is_bar(key: str) -> bool:
    return key.startswith("BAR ")


def _device(draft: dict[str, Any]) -> Device:
    known = {key: value for key, value in draft.items() if not key.startswith("_")}
    return complete(Device(**known), draft)


def with_parents(devices: tuple[Device, ...]) -> tuple[Device, ...]:
    """The devices with the port above each, found by the number of the bus below that port."""
    below = {
        (device.address.rpartition(":")[0].rpartition(":")[0], device.secondary): device.address
        for device in devices
        if device.secondary
    }
    return tuple(
        replace(device, parent=below.get(_bus(device.address), device.parent))
        if _bus(device.address) in below
        else device
        for device in devices
    )


def _bus(name: str) -> tuple[str, int]:
    domain, bus, _ = name.split(":")
    return domain, int(bus, 16)


LISTED = re.compile(
    rf"^[ \t]*{GROUP}{ADDRESS} (?:[A-Z0-9][^:\n]{{2,60}}: \S|[0-9a-f]{{4}}: [0-9a-f]{{4}}:)",
    re.ASCII | re.MULTILINE,
)
DETAILED = re.compile(
    r"^[ \t]*(?:Subsystem|Control|Flags|DeviceName|Physical Slot|Interrupt|Region \d|Latency|"
    r"IOMMU group|NUMA node|Capabilities|Kernel driver in use|Kernel modules|!!! Unknown header "
    r"type)(?::| )",
    re.MULTILINE,
)
CAPABILITY = re.compile(
    r"^[ \t]+(?:DevCap|DevCtl|DevSta|LnkCap|LnkCtl|LnkSta|UESta|UEMsk|CESta|CEMsk|ACSCap|ACSCtl|"
    r"AERCap|L1SubCap|SltCap|SltSta|RootCtl)2?:[ \t]|"
    r"^[ \t]+(?:Capabilities: \[[0-9a-f]{2,3}(?: v\d{1,2})?\] |BAR \d: current size: )",
    re.MULTILINE,
)


def _recognise(detailed: bool) -> Callable[[str], float]:
    """`-vvv` has details below the lines of the devices, or is a piece of them."""

    def recognise(text: str) -> float:
        plain = ANSI.sub("", text[:200_000])
        details = bool(CAPABILITY.search(plain))
        if LISTED.search(plain):
            details = details or bool(DETAILED.search(plain))
            return 0.9 if details == detailed else 0.0
        return 0.7 if details and detailed else 0.0

    return recognise


def read_lspci_tree(text: str) -> Reading[Listing]:
    """`lspci -tv`: the same, without classes, but with the port above every device."""
    found = lspci_tree.read_tree(text)
    return Reading(Listing(found.value), found.unread, found.lines)


KINDS = (
    Kind("lspci-vv", "PCI devices in full", _recognise(True), read_lspci, "lspci -vvv"),
    Kind("lspci-nn", "PCI devices", _recognise(False), read_lspci, "lspci -nn"),
    Kind(
        "lspci-tv",
        "the tree of PCI devices",
        lspci_tree.recognise,
        read_lspci_tree,
        "lspci -tv",
    ),
)
