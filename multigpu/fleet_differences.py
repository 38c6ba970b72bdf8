"""How hosts of one kind differ: facts of which most have the same value, and who has another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from multigpu.cautions.links import lanes
from multigpu.grants import granted
from multigpu.hardware import Gpu, Host
from multigpu.screen.text import natural


def topology(host: Host) -> str | None:
    """`NV4`, `NV4/SYS`, `PHB`: the kinds of ways between the cards; None when not seen."""
    kinds = {
        f"NV{pair.nvlinks}"
        if pair.nvlinks
        else f"XGMI{pair.xgmi_links}"
        if pair.xgmi_links
        else (pair.path.value if pair.path else "?")
        for pair in host.pairs
    }
    return "/".join(sorted(kinds)) or None


def _distinct(host: Host, fact: Callable[[Gpu], object], unit: str) -> str | None:
    """The distinct values of a fact of the cards that answer."""
    found = {fact(gpu) for gpu in host.gpus if gpu.error is None} - {None}
    return " and ".join(sorted((unit.format(v) for v in found), key=natural)) or None


def _grants(host: Host) -> str | None:
    words = {True: "granted", False: "refused"}
    found = {words[g] for g in map(granted, host.pairs) if g is not None}
    return " and ".join(sorted(found)) or None


TRAITS: dict[str, Callable[[Host], str | None]] = {
    "GPUs": lambda host: str(len(host.gpus)),
    "unusable GPUs": lambda host: str(len(host.gpus) - len(host.usable)),
    "driver": lambda host: host.driver,
    "ROCm": lambda host: host.rocm,
    "OS": lambda host: host.os,
    "VRAM": lambda host: _distinct(host, lambda gpu: gpu.memory_mib, "{} MiB"),
    "lanes": lambda host: _distinct(host, lambda gpu: lanes(gpu.pcie), "x{}"),
    "PCIe": lambda host: _distinct(host, lambda gpu: gpu.pcie.gen_max, "{}.0"),
    "power limit": lambda host: _distinct(host, lambda gpu: gpu.power_limit_w, "{:.0f} W"),
    "VBIOS": lambda host: _distinct(host, lambda gpu: gpu.vbios_version, "{}"),
    "ways between cards": topology,
    "P2P": _grants,
    # To 8 GiB: what firmware keeps for itself differs between equal machines.
    "RAM": lambda host: (
        f"about {round(host.memory_mib / 8192) * 8} GiB" if host.memory_mib else None
    ),
    "virtualization": lambda host: host.virtualization,
    "IOMMU": lambda host: host.iommu,
    "kernel module": lambda host: host.module_license,
}

PAIR_TRAITS = ("ways between cards", "P2P")


def family_of(host: Host) -> frozenset[str]:
    """The models of a host; cards that do not answer have no name and do not count."""
    return frozenset(gpu.name for gpu in host.gpus if gpu.name)


def differences(family: Sequence[Host]) -> list[tuple[str, str]]:
    """(host, how it differs) for each host that differs from more than half of its family."""
    parts: dict[int, list[str]] = {}
    for trait, fact in TRAITS.items():
        values = [fact(host) for host in family]
        usual, count = Counter(values).most_common(1)[0]
        if usual is None or count * 2 <= len(family):
            continue
        for place, value in enumerate(values):
            if value != usual and not _is_of_pairs(trait, family[place]):
                text = f"{trait} {value or 'not seen'}, most have {usual}"
                parts.setdefault(place, []).append(text)
    return [(family[place].name, "; ".join(texts)) for place, texts in parts.items()]


def _is_of_pairs(trait: str, host: Host) -> bool:
    """True for a fact about pairs on a host that has too few cards for one."""
    return trait in PAIR_TRAITS and len(host.usable) < 2
