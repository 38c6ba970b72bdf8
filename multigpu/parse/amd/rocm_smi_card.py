"""One card from rocm-smi's key-value pairs, whatever release spelled the keys."""

from __future__ import annotations

import re

from multigpu import gfx
from multigpu.hardware import Gpu, PcieLink, Vendor
from multigpu.parse.pci.device import address, generation
from multigpu.parse.shape import number, text, whole, word

# Lower case, without the `:` that some keys end in. First that is there wins.
ALIASES = {
    "device": ("device id", "gpu id"),
    "revision": ("device rev",),
    "name": ("card series", "device name"),
    "uuid": ("unique id",),
    "total": ("vram total memory (b)",),
    "used": ("vram total used memory (b)",),
    "address": ("pci bus",),
    "numa": ("(topology) numa node",),
    "limit": ("max graphics package power (w)",),
    "draw": (
        "average graphics package power (w)",
        "current socket graphics package power (w)",
    ),
    "edge": ("temperature (sensor edge) (c)",),
    "junction": ("temperature (sensor junction) (c)",),
    "vbios": ("vbios version",),
    "gfx": ("gfx version",),
    "compute_partition": ("compute partition",),
    "memory_partition": ("memory partition",),
    "link": ("pcie clock level",),
    "replays": ("pcie replay count",),
}
LEVEL = re.compile(r"([\d.]{1,5})\s?GT/s x(\d{1,2})\b", re.ASCII)
GFX = re.compile(r"gfx[0-9a-f]{3,5}", re.IGNORECASE)


def strings(entry: dict[str, object]) -> dict[str, str]:
    """Keys in lower case without the colon at their end; numbers as text."""
    found = {}
    for key, value in entry.items():
        shown = str(value) if isinstance(value, int | float) else text(value)
        if shown is not None:
            found[key.strip().rstrip(":").lower()] = shown.strip()
    return found


def card(index: int, values: dict[str, str]) -> Gpu:
    """One card from its key-value pairs."""

    def first(what: str) -> str | None:
        known = (word(values.get(key)) for key in ALIASES[what])
        return next((value for value in known if value is not None), None)

    total, used = _mib(first("total")), _mib(first("used"))
    model = gfx.model(first("device"))
    return Gpu(
        index=index,
        uuid=unique_id(first("uuid")),
        name=_name(first("name"), values.get("device name")),
        vendor=Vendor.AMD,
        memory_mib=None if total is None else int(total),
        memory_free_mib=None if total is None or used is None else int(total - used),
        memory_used_mib=None if used is None else int(used),
        pci_bus_id=address(first("address") or ""),
        pcie=_link(first("link"), first("replays")),
        numa_node=_node(first("numa")),
        gfx=_gfx(first("gfx")) or (model.gfx if model else None),
        power_limit_w=number(first("limit")),
        power_draw_w=number(first("draw")),
        temperature_c=whole(first("edge") or first("junction")),
        vbios_version=first("vbios"),
        compute_partition=first("compute_partition"),
        memory_partition=first("memory_partition"),
        unified_memory=True if model and model.unified_memory else None,
    )


def unique_id(written: str | None) -> str | None:
    """The card's unique id as `0x` and 16 digits; cards that have none write 0 or N/A."""
    digits = (written or "").strip().lower().removeprefix("0x")
    if not re.fullmatch(r"[0-9a-f]{1,16}", digits) or not int(digits, 16):
        return None
    return f"0x{int(digits, 16):016x}"


def _name(series: str | None, device_name: str | None) -> str | None:
    """ROCm 4 and 5 print the vendor's number where pci.ids was not found."""
    for name in (series, word(device_name)):
        if name and not re.fullmatch(r"0x[0-9a-fA-F]{1,8}", name):
            return name
    return None


def _gfx(written: str | None) -> str | None:
    return written.lower() if written and GFX.fullmatch(written) else None


def _mib(amount: str | None) -> float | None:
    """Bytes as MiB."""
    value = int(amount) if amount and re.fullmatch(r"\d{1,16}", amount, re.ASCII) else None
    return None if value is None else value / 2**20


def _node(written: str | None) -> int | None:
    """-1 stands for a firmware that names no node."""
    value = whole(written)
    return value if value is not None and 0 <= value < 1024 else None


def _link(level: str | None, replays: str | None) -> PcieLink:
    """`1 (16.0GT/s x16)` is the level that is used now."""
    match = LEVEL.search(level or "")
    speed = number(match[1]) if match else None
    width = int(match[2]) if match else None
    return PcieLink(
        gen_current=generation(speed),
        width_current=width or None,
        replays=whole(replays),
    )
