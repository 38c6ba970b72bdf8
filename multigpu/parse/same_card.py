"""The same card in several outputs: told by UUID, else by PCI address, else by its index."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TypeVar

from multigpu.hardware import Gpu, PcieLink

T = TypeVar("T", Gpu, PcieLink)


def same_card(gpu: Gpu, others: tuple[Gpu, ...]) -> Gpu | None:
    """The card among others; None where it is not, or nothing tells which one it is."""
    for key in ("uuid", "pci_bus_id"):
        mine = getattr(gpu, key)
        if mine is not None and all(getattr(other, key) is not None for other in others):
            return next((other for other in others if getattr(other, key) == mine), None)
    return next((other for other in others if other.index == gpu.index), None)


def filled(gpu: Gpu, other: Gpu | None) -> Gpu:
    """The card with what only the other output knows of it."""
    if other is None or gpu.error is not None:
        return gpu
    return replace(_gaps(gpu, other), pcie=_gaps(gpu.pcie, other.pcie))


def _gaps(value: T, other: T) -> T:
    """The value with its unknown and empty fields from the other."""
    known = {
        field.name: getattr(other, field.name)
        for field in fields(value)
        if field.name != "error" and getattr(value, field.name) in (None, ())
    }
    return replace(value, **known)
