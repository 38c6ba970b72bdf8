"""The table of GPU models, `multigpu/data/gpus.toml`, and how a name finds its row."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

from multigpu.gpus import gpu_names
from multigpu.hardware import Vendor

SIZE_TOLERANCE = 0.08
"""A card of 24 GB reports 22.5 to 24 GiB: ECC and the driver take their part."""


@dataclass(frozen=True)
class GpuData:
    """One GPU model. Dense arithmetic in TFLOP/s (INT8: TOP/s), None where the card has none.

    `fp16_tflops` is what matrix units do in float16 or bfloat16 with float32 sums (GeForce: half of
    the figure with float16 sums); without matrix units the faster of float16 and float32.
    `nvlink_gb_s` is the sum of both directions over all links of one card (NVLink, or AMD's
    Infinity Fabric); 0 where it has none. `pcie_gen` and `pcie_lanes` are the card's own best.
    `memory_gbit_s` is the data rate of one pin of the memory bus, `multiprocessors` counts SMs or
    compute units, `boost_mhz` is the clock of the arithmetic, `unified_memory` tells cards without
    memory of their own, `fabric` those whose board joins every card to every other (NVSwitch,
    Infinity Fabric of an OAM board). `note` says what is special, `source` where the figures come
    from.
    """

    name: str
    vendor: Vendor
    memory_mib: int
    memory_bandwidth_gb_s: float
    fp16_tflops: float
    fp8_tflops: float | None = None
    int8_tops: float | None = None
    fp4_tflops: float | None = None
    compute_capability: tuple[int, int] | None = None
    gfx: str | None = None
    pcie_gen: int | None = None
    pcie_lanes: int = 16
    nvlink_gb_s: float = 0.0
    power_w: float | None = None
    source: str = ""
    memory_bus_width_bits: int | None = None
    memory_gbit_s: float | None = None
    multiprocessors: int | None = None
    boost_mhz: int | None = None
    fma_per_clock: int | None = None
    unified_memory: bool = False
    fabric: bool = False
    needs_size: bool = False
    aliases: tuple[str, ...] = ()
    note: str = ""


def named(text: str) -> GpuData | None:
    """The model that a person or a driver calls so (`RTX 3090`, `NVIDIA GeForce RTX 3090`).

    A memory size in the text picks the variant. None for an unknown name and for one that several
    models share; `near` names them.
    """
    found = matches(text)
    return found[0] if len(found) == 1 else None


def matches(text: str) -> tuple[GpuData, ...]:
    """Every model that a text may mean: none, one, or the variants it does not tell apart."""
    exact = _index().get(gpu_names.exact_key(text), ())
    if exact:
        return tuple(each for each in exact if not each.needs_size) or exact
    size = gpu_names.size_gb(text)
    found = _index().get(gpu_names.key(text), ())
    if size is None:
        return tuple(each for each in found if not each.needs_size)
    return tuple(each for each in found if has_size(each, size * 1024))


def near(text: str, most: int = 3) -> tuple[str, ...]:
    """Names of models that a text may have meant, the nearest first."""
    variants = matches(text) or _index().get(gpu_names.key(text), ())
    if variants:
        return tuple(each.name for each in variants[:most])
    key = gpu_names.key(text)
    holding = [other for other in _index() if len(key) > 3 and key in other]
    keys = [*holding, *get_close_matches(key, list(_index()), n=3 * most, cutoff=0.6)]
    names = dict.fromkeys(each.name for key in keys for each in _index()[key])
    return tuple(names)[:most]


@cache
def models() -> tuple[GpuData, ...]:
    """Every model of the table, in its order."""
    text = (files("multigpu") / "data" / "gpus.toml").read_text(encoding="utf-8")
    return tuple(
        _model({**_shared(family), **row})
        for family in tomllib.loads(text)["family"]
        for row in family["gpus"]
    )


def _shared(family: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in family.items() if key != "gpus"}


def _model(row: dict[str, Any]) -> GpuData:
    major, _, minor = row.pop("compute_capability", "").partition(".")
    return GpuData(
        vendor=Vendor(row.pop("vendor")),
        compute_capability=(int(major), int(minor)) if major else None,
        memory_bandwidth_gb_s=row.pop("bandwidth_gb_s"),
        memory_bus_width_bits=row.pop("bus_bits"),
        memory_gbit_s=row.pop("gbit_s"),
        aliases=tuple(row.pop("aliases", ())),
        **row,
    )


def by_key(text: str) -> tuple[GpuData, ...]:
    """Every model of a name, whatever its memory."""
    return _index().get(gpu_names.exact_key(text)) or _index().get(gpu_names.key(text), ())


@cache
def _index() -> dict[str, tuple[GpuData, ...]]:
    """Key -> models that go by it."""
    found: dict[str, dict[str, GpuData]] = {}
    for each in models():
        for key in _keys(each):
            found.setdefault(key, {})[each.name] = each
    return {key: tuple(named.values()) for key, named in found.items()}


def _keys(each: GpuData) -> Iterable[str]:
    for name in (each.name, *each.aliases):
        yield gpu_names.exact_key(name)
        key = gpu_names.key(name)
        yield key
        short = gpu_names.short(key)
        if short is not None:
            yield short


def has_size(each: GpuData, memory_mib: float) -> bool:
    """Whether a card that reports so much memory, or is sold with it, can be of this model."""
    if each.unified_memory:
        return True
    return abs(each.memory_mib / memory_mib - 1) <= SIZE_TOLERANCE
