"""Other outputs of nvidia-smi beside the XML, for machines that a person saved by hand.

The fullest output gives the cards, the others fill what it leaves open; the same card is told by
UUID, else by PCI address, else by its index.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import TypeVar

from multigpu.hardware import Gpu, PcieLink
from multigpu.parse.nvidia_smi.card import Query
from multigpu.parse.nvidia_smi.listing import read_list
from multigpu.parse.nvidia_smi.query_gpu import read_query_gpu
from multigpu.parse.nvidia_smi.table import read_table
from multigpu.parse.nvidia_smi.text import read_text
from multigpu.parse.reading import Reading
from multigpu.parse.shape import tool

# Command -> reader, the fullest first.
OUTPUTS: dict[str, Callable[[str], Reading[Query]]] = {
    "nvidia-smi -q": read_text,
    "nvidia-smi --query-gpu": read_query_gpu,
    "nvidia-smi": read_table,
    "nvidia-smi -L": read_list,
}

T = TypeVar("T", Gpu, PcieLink)


def completed(query: Query, tools: dict[str, object]) -> Query:
    """The cards of the XML with what other outputs know; their cards where there is no XML."""
    for command, read in OUTPUTS.items():
        if (record := tool(tools, command)).stdout.strip():
            query = _merged(query, read(record.stdout).value)
    return query


def _merged(query: Query, other: Query) -> Query:
    if not query.gpus:
        return replace(other, driver=query.driver or other.driver, cuda=query.cuda or other.cuda)
    return replace(
        query,
        driver=query.driver or other.driver,
        cuda=query.cuda or other.cuda,
        simulated=query.simulated or other.simulated,
        gpus=tuple(_filled(gpu, _same(gpu, other.gpus)) for gpu in query.gpus),
    )


def _same(gpu: Gpu, others: tuple[Gpu, ...]) -> Gpu | None:
    for key in ("uuid", "pci_bus_id"):
        mine = getattr(gpu, key)
        if mine is not None and all(getattr(other, key) is not None for other in others):
            return next((other for other in others if getattr(other, key) == mine), None)
    return next((other for other in others if other.index == gpu.index), None)


def _filled(gpu: Gpu, other: Gpu | None) -> Gpu:
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
