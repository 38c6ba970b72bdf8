"""Reader of `lspci -tv`: the tree of buses, drawn with `-`, `+`, `|` and a backslash.

Bridges stand without name and without class; what hangs below them begins behind their bus number:
`+-01.1-[01]--+-00.0  NVIDIA Corporation ...` (pciutils ls-tree.c).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from multigpu.parse.pci.device import Device
from multigpu.parse.pci.lspci_names import identity
from multigpu.parse.reading import ANSI, Lines, Reading

BUS = re.compile(r"\[(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}|\?\?)(?:-[0-9a-f]{2})?\]-?", re.ASCII)
DEVICE = re.compile(r"([0-9a-f]{2})\.([0-7])(?![0-9a-f])", re.ASCII)
START = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2}):(?=[0-9a-f]{2}\.[0-7])", re.ASCII)
REGION = re.compile(r"^[ |]*(?:Region \d: )?(?:\[\w+\] )?(?:Memory at|I/O ports at) ")
PROMPT = re.compile(r"[$#] (?:sudo )?lspci\b")
DRAWN = re.compile(
    r"^[-+|\\ ]*-\[[0-9a-f]{4,8}:[0-9a-f]{2}\]-|"
    r"^[ |]*[+\\]-[0-9a-f]{2}\.[0-7](?:-\[[0-9a-f]{2}| {2}\S|$)",
    re.ASCII | re.MULTILINE,
)


@dataclass(frozen=True)
class Place:
    """Where the next device hangs: its bus, and the port above it."""

    domain: str = "0000"
    bus: str | None = None
    bridge: str | None = None


def read_tree(text: str) -> Reading[tuple[Device, ...]]:
    """Every device of the tree with its port above; a line that fits no branch stays unread."""
    lines = Lines(text)
    branches: dict[int, Place] = {}
    devices: dict[str, Device] = {}
    for index, line in lines:
        if _walk(line.rstrip(), branches, devices) or PROMPT.search(line) or REGION.match(line):
            lines.mark(index)
    return lines.reading(tuple(devices.values()))


def _walk(line: str, branches: dict[int, Place], devices: dict[str, Device]) -> bool:
    """Follow one line from left to right; False where it is not part of the tree."""
    at = len(line) - len(line.lstrip(" |"))
    place = _begin(line, at, branches)
    if place is None:
        return False
    found = False
    while at < len(line):
        if line[at] in "+\\":
            branches[at] = place
            at += 1
        elif line[at] == "-":
            at += 1
        elif start := START.match(line, at):
            place, at = Place(start[1], start[2]), start.end()
        elif bus := BUS.match(line, at):
            place, at = replace(place, domain=bus[1] or place.domain, bus=bus[2]), bus.end()
            _open(devices, place)
            found = True
        elif (match := DEVICE.match(line, at)) and place.bus not in (None, "??"):
            name = f"{place.domain}:{place.bus}:{match[1]}.{match[2]}"
            devices[name] = _device(name, place, line[match.end() :])
            place, at, found = Place(place.domain, None, name), match.end(), True
            if line[at : at + 2] != "-[":
                return True
        else:
            return found
    return found


def _begin(line: str, at: int, branches: dict[int, Place]) -> Place | None:
    """The place at which a line starts: a branch that was left open, or the root."""
    if line[at : at + 1] in ("+", "\\"):
        return branches.get(at)
    if line[at : at + 2] in ("-[", "-+") or START.match(line, at):
        branches.clear()
        return Place()
    return None


def _open(devices: dict[str, Device], place: Place) -> None:
    """Tell the bridge above which bus hangs below it."""
    bridge = devices.get(place.bridge or "")
    if bridge is not None and bridge.secondary is None and place.bus not in (None, "??"):
        devices[bridge.address] = replace(bridge, secondary=int(place.bus or "0", 16))


def _device(name: str, place: Place, rest: str) -> Device:
    described = rest[2:] if rest.startswith("  ") else ""
    return Device(name, parent=place.bridge, **identity(described))


def recognise(text: str) -> float:
    """Sure of a drawn tree."""
    return 0.9 if DRAWN.search(ANSI.sub("", text[:200_000])) else 0.0
