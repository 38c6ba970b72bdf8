"""How cards are set up: MIG, partitions, power, compute mode, persistence."""

from __future__ import annotations

from collections.abc import Iterator

from multigpu.cautions.caution import (
    Caution,
    Severity,
    alike,
    amd_names,
    are,
    indices,
    listed,
    names,
)
from multigpu.hardware import Gpu, Host, Vendor


def _mig(host: Host) -> Iterator[Caution]:
    cut = [gpu for gpu in host.gpus if gpu.mig]
    if cut:
        cards = indices(cut)
        profiles = [device.profile for gpu in cut for device in gpu.mig_devices if device.profile]
        shown = ", ".join(f"{profiles.count(p)}x {p}" for p in dict.fromkeys(profiles))
        yield Caution(
            "mig-on",
            f"{names(cards)} {are(cards)} cut into MIG slices{shown and f' ({shown})'}",
            "slices have no NVLink and no P2P: "
            f"{are(cards, 'the card stays', 'the cards stay')} out of every plan",
            f"`nvidia-smi -i {listed(cards)} -mig 0` gives {are(cards, 'it', 'them')} back as a "
            "whole",
            needed="whole cards",
            gpus=cards,
            severity=Severity.LIMIT,
        )


def _partitions(host: Host) -> Iterator[Caution]:
    """AMD's compute partitions: one card shows as several."""
    found = alike(host.gpus, _partition)
    for (compute, memory), gpus in found.items():
        cards = indices(gpus)
        with_memory = f", {memory}" if memory else ""
        yield Caution(
            "compute-partition",
            f"{names(cards)} {are(cards, 'is a partition', 'are partitions')} of a card "
            f"({compute}{with_memory})",
            "each has a share of the card's memory and compute units; a large model needs several "
            "where one whole card would do",
            "`amd-smi set --gpu all --compute-partition SPX` makes whole cards again",
            needed="whole cards (SPX) for models larger than a share",
            gpus=cards,
            severity=Severity.LIMIT,
        )


def _partition(gpu: Gpu) -> tuple[str, str | None] | None:
    if gpu.compute_partition is None or gpu.compute_partition.upper() == "SPX":
        return None
    return gpu.compute_partition, gpu.memory_partition


def _power(host: Host) -> Iterator[Caution]:
    """A limit below the default; some 1 % below is rounding."""
    for (limit, default, vendor), gpus in alike(host.usable, _cap).items():
        cards = indices(gpus)
        set_back = (
            f"`nvidia-smi -i {listed(cards)} -pl {default:.0f}`"
            if vendor is Vendor.NVIDIA
            else f"`amd-smi set --gpu {amd_names(gpus)} --power-cap {default:.0f}`"
        )
        yield Caution(
            "power-cap",
            f"{names(cards)} {are(cards)} capped at {limit:.0f} W, default {default:.0f} W",
            "prefill and large batches; a split model runs at the pace of its slowest card",
            f"keep it if heat or the power supply ask for it, else {set_back}",
            gpus=cards,
        )


def _cap(gpu: Gpu) -> tuple[float, float, Vendor] | None:
    limit, default = gpu.power_limit_w, gpu.power_limit_default_w
    if limit is None or default is None or limit > 0.99 * default:
        return None
    return limit, default, gpu.vendor


def _compute_mode(host: Host) -> Iterator[Caution]:
    for mode, gpus in alike(host.gpus, _restricting_mode).items():
        cards = indices(gpus)
        prohibited = "prohibited" in mode.lower()
        yield Caution(
            "compute-mode",
            f"{names(cards)} {are(cards)} in compute mode {mode}",
            "no process may compute on it"
            if prohibited
            else "one process a card: a second service, a restart that overlaps, or a check on "
            "the side fails with `all CUDA-capable devices are busy`",
            f"`nvidia-smi -i {listed(cards)} -c 0` (Default)",
            needed="compute mode Default",
            gpus=cards,
            severity=Severity.BROKEN if prohibited else Severity.LIMIT,
        )


def _restricting_mode(gpu: Gpu) -> str | None:
    mode = gpu.compute_mode or "Default"
    return mode if mode.lower().startswith(("exclusive", "prohibited")) else None


def _persistence(host: Host) -> Iterator[Caution]:
    """Off costs a start-up of every card whenever the last process ends; one card hardly."""
    cards = [g.index for g in host.usable if g.vendor is Vendor.NVIDIA]
    off = [gpu.index for gpu in host.usable if gpu.persistence_mode is False]
    if off and len(cards) > 1:
        yield Caution(
            "persistence-off",
            f"persistence mode is off on {names(off)}",
            "every start after an idle time initialises the cards again (seconds a card), and "
            "settings such as power limits are lost in between",
            "`systemctl enable --now nvidia-persistenced`, or `nvidia-smi -pm 1` until the reboot",
            needed="persistence mode on",
            gpus=tuple(off),
            severity=Severity.NOTE,
        )


RULES = (_mig, _partitions, _power, _compute_mode, _persistence)
