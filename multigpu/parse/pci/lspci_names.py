"""What lspci calls a device: class, vendor and name, with numbers (`-nn`, `-n`) or without."""

from __future__ import annotations

import re
from typing import Any

# Vendors whose functions matter here, as pci.ids spells them; the longest beginning comes first.
VENDOR_NAMES = (
    ("nvidia corporation", "0x10de"),
    ("advanced micro devices, inc. [amd/ati]", "0x1002"),
    ("advanced micro devices [amd] nee ati", "0x1002"),
    ("ati technologies", "0x1002"),
    ("advanced micro devices", "0x1022"),
    ("intel corporation", "0x8086"),
    ("aspeed technology", "0x1a03"),
    ("matrox electronics", "0x102b"),
    ("cirrus logic", "0x1013"),
    ("vmware", "0x15ad"),
    ("microsoft corporation", "0x1414"),
    ("innotek", "0x80ee"),
    ("plx technology", "0x10b5"),
    ("broadcom / lsi", "0x1000"),
    ("mellanox technologies", "0x15b3"),
    ("microsemi", "0x11f8"),
    ("pmc-sierra", "0x11f8"),
)
# Red Hat has two vendor ids; the name tells which.
RED_HAT = (("virtio", "0x1af4"), ("qxl", "0x1b36"), ("qemu", "0x1b36"))

CLASS_NAMES = {
    "VGA compatible controller": "0x030000",
    "XGA compatible controller": "0x030100",
    "3D controller": "0x030200",
    "Display controller": "0x038000",
    "Processing accelerators": "0x120000",
    "Host bridge": "0x060000",
    "ISA bridge": "0x060100",
    "PCI bridge": "0x060400",
    "Bridge": "0x068000",
    "Audio device": "0x040300",
    "USB controller": "0x0c0300",
    "Serial bus controller": "0x0c8000",
    "Ethernet controller": "0x020000",
    "Infiniband controller": "0x020700",
    "Non-Volatile memory controller": "0x010800",
    "SATA controller": "0x010600",
}

IDS = re.compile(r"\[([0-9a-f]{4}):([0-9a-f]{4})\]", re.ASCII)
BARE_IDS = re.compile(r"^(?:Device )?([0-9a-f]{4}):([0-9a-f]{4})(?= |$)", re.ASCII)
UNRESOLVED = re.compile(r" Device (?:\[|([0-9a-f]{4})$)", re.ASCII)
REVISION = re.compile(r" \(rev ([0-9a-f]{2})\)", re.ASCII)
PROG_IF = re.compile(r" \(prog-if ([0-9a-f]{2})", re.ASCII)
CLASS_NUMBER = re.compile(r"(?:^|^Class |\[)([0-9a-f]{4})\]?$", re.ASCII)


def identity(written: str) -> dict[str, Any]:
    """Vendor, device, name and revision out of what stands behind the class; fields of Device.

    `NVIDIA Corporation GA102 [GeForce RTX 3090] [10de:2204] (rev a1)`, `NVIDIA Corporation Device
    2330 (rev a1)`, `Device 10de:2330`, `10de:2330` (`lspci -n`).
    """
    written = written.rstrip()
    revision = REVISION.search(written)
    plain = written[: revision.start()] if revision else written.partition(" (prog-if ")[0]
    ids = list(IDS.finditer(plain))
    bare = BARE_IDS.match(plain)
    name = plain[: ids[-1].start()] if ids else plain
    vendor, device = _numbers(name, plain)
    if ids:
        vendor, device = (f"0x{number}" for number in ids[-1].groups())
    elif bare:
        vendor, device = (f"0x{number}" for number in bare.groups())
    return {
        "vendor": vendor,
        "device": device,
        "name": None if bare else name.strip() or None,
        "revision": revision[1] if revision else None,
    }


def _numbers(name: str, plain: str) -> tuple[str | None, str | None]:
    """Vendor and device of a name without numbers, as far as the name tells them."""
    low = name.lower()
    vendor = next((number for start, number in VENDOR_NAMES if low.startswith(start)), None)
    if low.startswith("red hat"):
        vendor = next((number for part, number in RED_HAT if part in low), None)
    unresolved = UNRESOLVED.search(plain)
    device = f"0x{unresolved[1]}" if unresolved and unresolved[1] else None
    return vendor, device


def class_of(written: str, rest: str) -> str | None:
    """The class as sysfs spells it: `VGA compatible controller [0300]` with `(prog-if 00` ahead."""
    number = CLASS_NUMBER.search(written)
    known = f"0x{number[1]}00" if number else CLASS_NAMES.get(written)
    programming = PROG_IF.search(rest)
    if known and programming and programming[1] != "ff":
        return known[:-2] + programming[1]
    return known
