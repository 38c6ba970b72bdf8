"""Hosts of the measurement table: cards, links and peer access as its lines state them."""

from __future__ import annotations

import re
from functools import cache

from multigpu.errors import WishError
from multigpu.gpus.what_if import host
from multigpu.hardware import Host

# What the table calls a card, and what multigpu/data/gpus.toml calls it.
NAMES = (
    ("h100_sxm", "H100 SXM"),
    ("H100 80GB", "H100 SXM"),
    ("h200_sxm", "H200 SXM"),
    ("H200 141GB", "H200 SXM"),
    ("R9700", "Radeon AI PRO R9700"),
    ("RTX PRO 6000", "RTX PRO 6000 Blackwell"),
    ("RTX 5000 Ada", "RTX 5000 Ada"),
    ("A100 40GB", "A100 40GB"),
    ("L40S", "L40S"),
    ("3090 Ti", "RTX 3090 Ti"),
    ("3090", "RTX 3090"),
    ("3060", "RTX 3060"),
    ("4090", "RTX 4090"),
    ("5090", "RTX 5090"),
    ("A5000", "RTX A5000"),
    ("A16", "A16"),
)
UNLIKE = re.compile(r"mixed|\+ *(?:1× )?(?:RTX|NVIDIA|3080|5070)|MIXED-ARCH|3080|B580|A5000", re.I)
PUBLISHERS = ("amd-r9700-vllm-toolboxes", "server-benchmark", "aiconfigurator", "localmaxxing")


def rig_of(raw: dict[str, str]) -> str:
    """Whose machine it was: the publisher's account where it is named, and the card."""
    text, source = raw["hardware"], raw["source"]
    card = _name(text) or "unknown card"
    owner = re.search(r"@([\w-]+)", text)
    if owner is not None and owner[1] not in ("220W", "250W"):
        return f"club-3090 {owner[1].lower()}"
    for publisher in PUBLISHERS:
        if publisher in source:
            return f"{publisher} {card}"
    return f"{re.sub(r'^github ', '', source).split(' ')[0]} {card}"


def machine_of(raw: dict[str, str]) -> str | None:
    """The rig where it is one machine. Rows of localmaxxing come from anyone: only some say whose.

    Their notes name a machine by its board, by a bridge, or by the places of the cards in it.
    """
    if "localmaxxing" not in raw["source"]:
        return rig_of(raw)
    signs = ("7810, Dual Intel Xeon", "RTX 3090 NVLink", '"device=4,5"')
    for sign in signs:
        if sign in raw["note"] or sign in raw["runtime_flags"]:
            return f"{rig_of(raw)} ({sign.split(',')[0]})"
    return None


def host_for(raw: dict[str, str]) -> tuple[Host | None, tuple[str, ...]]:
    """The host of a line, or why none can be made of it."""
    text = raw["hardware"]
    if UNLIKE.search(text):
        return None, ("unlike cards",)
    name = _name(text)
    count = re.search(r"(\d+)[x×]", text)
    if name is None or count is None:
        return None, ("the cards are not stated",)
    link = raw["interconnect"]
    watts = re.search(r"@(\d+)W|(\d+) ?W(?:/card|/GPU)? ?(?:cap|,|\))", text)
    cap = f" @{watts[1] or watts[2]}W" if watts else ""
    lanes = re.search(r"x(\d+)(?: all| each|/x\d+)", text) or re.search(r"3\.0 x(\d+)", link)
    gen = re.search(r"(?:PCIe|Gen) ?(\d)\.0", f"{text} {link}")
    slot = (f"gen{gen[1]} " if gen else "") + (f"x{lanes[1]}" if lanes else "")
    try:
        bridged = "NVLink" in link and "no NVLink" not in link and "SXM" not in name
        patched = True if "P2P verified" in link or link == "patched PCIe P2P" else None
        return _host(f"{count[1]}x {name}{cap}", slot.strip() or None, bridged, patched), ()
    except WishError as error:
        return None, (str(error),)


@cache
def _host(gpus: str, pcie: str | None, nvlink: bool, p2p: bool | None) -> Host:
    """One object for equal hosts: what is summed per host is summed once."""
    return host(gpus, pcie, nvlink=nvlink, p2p=p2p)


def _name(text: str) -> str | None:
    return next((name for word, name in NAMES if word in text), None)
