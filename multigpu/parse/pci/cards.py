"""Which PCI functions are cards to plan with, and which only look like one."""

from __future__ import annotations

import re
from collections.abc import Iterable

from multigpu import gfx
from multigpu.hardware import LeftOut, Vendor
from multigpu.parse.pci.device import Device, Tree

PCI_ONLY = "known from PCI only"
"""How the error of a card begins whose driver's tool gave no output to a folder that was read."""

VENDORS = {"0x10de": Vendor.NVIDIA, "0x1002": Vendor.AMD}

# VGA, 3D, other display controllers, and processing accelerators (PCI class codes).
GPU_CLASSES = ("0x0300", "0x0302", "0x0380", "0x1200")
DISPLAY_CLASSES = ("0x03", "0x1200")

# Graphics inside AMD processors before Zen, which gfx.py does not list: Kaveri, Llano, Kabini to
# Stoney Ridge, Trinity.
AMD_INTEGRATED_FAMILIES = ("0x130", "0x131", "0x964", "0x98", "0x99")
# lspci without numbers tells the same by the processor's code name.
AMD_INTEGRATED_NAMES = re.compile(
    r"\[AMD/ATI\] (Raven|Picasso|Renoir|Lucienne|Cezanne|Barcelo|Rembrandt|Mendocino|Raphael|"
    r"Phoenix|HawkPoint|Strix|Krackan|Granite Ridge|VanGogh|Kaveri|Carrizo|Stoney)\b"
)

# Functions of a card that `lspci -tv` shows by name only.
NO_GRAPHICS = re.compile(
    r"Audio|USB|UCSI|Type-C|I2C|Serial|Bridge|Switch|SMBus|Ethernet|SATA|Port\b|Controller$"
)

MANAGEMENT = {"0x1a03": "ASPEED", "0x102b": "Matrox"}
EMULATED = {
    "0x1234": "QEMU",
    "0x1af4": "virtio",
    "0x1b36": "QXL",
    "0x1013": "Cirrus",
    "0x15ad": "VMware",
    "0x1414": "Hyper-V",
    "0x80ee": "VirtualBox",
}


def gpus(devices: Tree) -> tuple[Device, ...]:
    """Cards by address: NVIDIA and AMD display or accelerator functions, none integrated."""
    return tuple(device for device in in_order(devices) if is_gpu(device))


def in_order(devices: Tree) -> Iterable[Device]:
    """The devices by address; domains of more than four digits come last."""
    return (devices[name] for name in sorted(devices, key=lambda name: (len(name), name)))


def is_gpu(device: Device) -> bool:
    """True for a card to plan with. Without a class (`lspci -tv`) the name decides."""
    if device.vendor not in VENDORS or _integrated(device):
        return False
    if device.pci_class is not None:
        return device.pci_class.startswith(GPU_CLASSES)
    return bool(device.name) and not NO_GRAPHICS.search(device.name or "")


def left_out(devices: Tree) -> tuple[LeftOut, ...]:
    """Display functions that are no cards to plan with, and NVSwitches, each with the reason."""
    found = ((device, _reason(device)) for device in in_order(devices))
    return tuple(LeftOut(device.address, device.name, reason) for device, reason in found if reason)


def _reason(device: Device) -> str | None:
    """Why a function is no card; None for cards and for what does not look like one."""
    kind = device.pci_class or ""
    if device.vendor == "0x10de" and kind.startswith("0x0680"):
        return "NVSwitch: a bridge between GPUs"
    if is_gpu(device) or not (kind.startswith(DISPLAY_CLASSES) or _display_by_name(device)):
        return None
    vendor = device.vendor or ""
    if vendor in MANAGEMENT:
        return f"graphics of the board's management controller ({MANAGEMENT[vendor]})"
    if vendor in EMULATED:
        return f"emulated display of a virtual machine ({EMULATED[vendor]})"
    if _integrated(device):
        return "graphics inside the processor"
    return "display controller of a vendor other than NVIDIA and AMD"


def _display_by_name(device: Device) -> bool:
    name = device.name or ""
    return device.pci_class is None and ("Graphics" in name or _integrated(device))


def _integrated(device: Device) -> bool:
    """Intel's processor graphics are always 00:02.0."""
    number = device.device or ""
    if device.vendor == "0x8086":
        return device.address == "0000:00:02.0"
    if device.vendor != "0x1002":
        return False
    if device.device is None:
        return bool(AMD_INTEGRATED_NAMES.search(device.name or ""))
    model = gfx.model(device.device)
    known = model is not None and model.integrated
    return known or number.startswith(AMD_INTEGRATED_FAMILIES)
