"""PCI as sysfs shows it: the `pci` section of a capture. The door to the rooms about PCI."""

from __future__ import annotations

import re

from multigpu.parse.pci.cards import VENDORS, gpus, left_out
from multigpu.parse.pci.device import (
    Device,
    ResizableBar,
    Tree,
    address,
    generation,
    lanes,
    merged,
    ports_above,
)
from multigpu.parse.pci.link import limiting_port, link, resizable_bar
from multigpu.parse.shape import items, mapping, number, text, whole

__all__ = [
    "VENDORS",
    "Device",
    "ResizableBar",
    "Tree",
    "address",
    "gpus",
    "left_out",
    "limiting_port",
    "link",
    "merged",
    "ports_above",
    "resizable_bar",
    "tree",
]

COUNT = re.compile(r"^[ \t]*(\w{1,40})[ \t]+(\d{1,18})[ \t]*$", re.ASCII | re.MULTILINE)
RANGE = re.compile(
    r"^0x([0-9a-f]{1,16}) 0x([0-9a-f]{1,16}) 0x([0-9a-f]{1,16})\s*$", re.ASCII | re.IGNORECASE
)
REGIONS = 6


def tree(section: object) -> Tree:
    """The `pci` section of a capture by address."""
    devices = (_device(mapping(entry)) for entry in items(section))
    return {device.address: device for device in devices if device is not None}


def _device(entry: dict[str, object]) -> Device | None:
    known = {key: text(value) for key, value in entry.items()}
    name = address(known.get("address") or "")
    if name is None:
        return None
    numa = whole(known.get("numa_node"))
    return Device(
        address=name,
        parent=address(known.get("parent") or ""),
        vendor=known.get("vendor"),
        device=known.get("device"),
        pci_class=known.get("class"),
        driver=known.get("driver"),
        # sysfs writes -1 where the firmware names no node.
        numa_node=numa if numa is not None and numa >= 0 else None,
        gen_current=_gen(known.get("current_link_speed")),
        gen_max=_gen(known.get("max_link_speed")),
        width_current=lanes(whole(known.get("current_link_width"))),
        width_max=lanes(whole(known.get("max_link_width"))),
        subsystem_vendor=known.get("subsystem_vendor"),
        subsystem_device=known.get("subsystem_device"),
        aer_correctable=_errors(known.get("aer_dev_correctable")),
        aer_nonfatal=_errors(known.get("aer_dev_nonfatal")),
        aer_fatal=_errors(known.get("aer_dev_fatal")),
        region_bytes=_regions(known.get("resource")),
        resizable_bars=_resizable(known.get("resource1_resize")),
        local_cpulist=known.get("local_cpulist") or None,
    )


def _gen(speed: str | None) -> int | None:
    """`8 GT/s` (old kernels), `8.0 GT/s PCIe` (new), `Unknown`."""
    return generation(number(speed))


def _errors(counts: str | None) -> int | None:
    """The total of an `aer_dev_*` file (sysfs-bus-pci-devices-aer_stats), else the sum of it."""
    found = {name: int(count) for name, count in COUNT.findall(counts or "")}
    totals = [count for name, count in found.items() if name.startswith("TOTAL_")]
    if totals:
        return totals[0]
    return sum(found.values()) if found else None


def _regions(resource: str | None) -> tuple[int | None, ...]:
    """Sizes of the regions 0 to 5; each line of `resource` has start, end and flags in hex."""
    sizes: list[int | None] = []
    for line in (resource or "").splitlines()[:REGIONS]:
        match = RANGE.match(line)
        start, end, flags = (int(part, 16) for part in match.groups()) if match else (0, 0, 0)
        sizes.append(end - start + 1 if flags and end > start else None)
    while sizes and sizes[-1] is None:
        sizes.pop()
    return tuple(sizes)


def _resizable(sizes: str | None) -> tuple[ResizableBar, ...]:
    """Sizes that BAR 1 can have: bit n of the hex number stands for 2^n MiB (kernel 5.12+)."""
    match = re.fullmatch(r"\s*(?:0x)?([0-9a-fA-F]{1,16})\s*", sizes or "")
    if match is None:
        return ()
    bits = int(match[1], 16)
    return (ResizableBar(1, None, tuple(1 << n for n in range(64) if bits >> n & 1)),)
