"""Hosts of the measurement table: cards, links and peer access as its lines state them."""

from __future__ import annotations

import re
from functools import cache

from multigpu.gpu_data import GpuData, named
from multigpu.hardware import Gpu, GpuPair, Host, P2p, Path, PcieLink, Vendor

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


def host_for(raw: dict[str, str]) -> tuple[Host | None, tuple[str, ...]]:
    """The host of a line, or why none can be made of it."""
    text = raw["hardware"]
    if UNLIKE.search(text):
        return None, ("unlike cards",)
    name = _name(text)
    count = re.search(r"(\d+)[x×]", text)
    if name is None or count is None:
        return None, ("the cards are not stated",)
    data = named(name)
    if data is None:
        return None, (f"no GPU data for {name}",)
    link = raw["interconnect"]
    watts = re.search(r"@(\d+)W|(\d+) ?W(?:/card|/GPU)? ?(?:cap|,|\))", text)
    limit = float(watts[1] or watts[2]) if watts else None
    lanes = re.search(r"x(\d+)(?: all| each|/x\d+)", text) or re.search(r"3\.0 x(\d+)", link)
    gen = re.search(r"(?:PCIe|Gen) ?(\d)\.0", f"{text} {link}")
    host = _host(
        data,
        int(count[1]),
        "NVSwitch" in link or ("NVLink" in link and "no NVLink" not in link),
        "P2P verified" in link or link == "patched PCIe P2P",
        int(lanes[1]) if lanes else None,
        int(gen[1]) if gen else None,
        limit,
    )
    return host, ()


def _name(text: str) -> str | None:
    return next((name for word, name in NAMES if word in text), None)


@cache
def _host(
    data: GpuData,
    count: int,
    nvlink: bool,
    p2p: bool,
    lanes: int | None,
    gen: int | None,
    limit: float | None,
) -> Host:
    """Like cards in a row; a bonded pair of GeForce cards, or all to all where NVSwitch joins."""
    width = lanes or data.pcie_lanes
    speed = gen or data.pcie_gen
    link = PcieLink(speed, speed, width, data.pcie_lanes, width_path=width)
    gpus = tuple(
        Gpu(
            index=i,
            uuid=f"GPU-{i}",
            name=data.name,
            vendor=data.vendor,
            memory_mib=data.memory_mib,
            compute_capability=data.compute_capability,
            gfx=data.gfx,
            pcie=link,
            power_limit_w=limit,
            power_limit_default_w=data.power_w,
        )
        for i in range(count)
    )
    pairs = tuple(
        _pair(a, b, data, nvlink, p2p or "GeForce" not in data.name)
        for a in range(count)
        for b in range(a + 1, count)
    )
    return Host(f"{count}x {data.name}", gpus=gpus, pairs=pairs)


def _pair(a: int, b: int, data: GpuData, nvlink: bool, p2p: bool) -> GpuPair:
    """NVLink joins GeForce and workstation cards in pairs, SXM boards all to all."""
    joined = nvlink and data.nvlink_gb_s > 0 and (data.nvlink_gb_s > 200 or a // 2 == b // 2)
    links = (4 if data.nvlink_gb_s < 200 else 18) if joined else 0
    grant = P2p.OK if p2p or joined or data.vendor is Vendor.AMD else P2p.CHIPSET_NOT_SUPPORTED
    rate = data.nvlink_gb_s / 2 if joined else None
    return GpuPair(a, b, Path.PHB, links, grant, rate, grant)
