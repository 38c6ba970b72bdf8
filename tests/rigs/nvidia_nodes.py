"""Names and cells of nvidia-smi's long output, in both its forms.

A `Node` has the XML's name, the words of `-q`, and a cell or children; a name that is None is not
printed in that form. `NA` stands for what the driver does not know.
"""

from __future__ import annotations

from dataclasses import dataclass

from multigpu.hardware import Gpu
from tests.rigs.dialect import Dialect

NA = "N/A"
LOST = "GPU is lost"
DEPRECATED = "Requested functionality has been deprecated"


@dataclass(frozen=True)
class Node:
    """One name with a cell, with children, or (in the text) with both."""

    xml: str | None
    words: str | None
    cell: object = None
    children: tuple[Node, ...] | None = None


def leaf(xml: str | None, words: str | None, cell: object, unit: str = "") -> Node:
    """A cell with its unit; None prints as N/A."""
    return Node(xml, words, NA if cell is None else f"{cell}{unit}")


def group(xml: str | None, words: str | None, *children: Node | None) -> Node:
    """Names under one heading; None stands for what this branch does not print."""
    return Node(xml, words, children=tuple(child for child in children if child is not None))


def since(branch: int, dialect: Dialect, node: Node) -> Node | None:
    """The node from that branch on."""
    return node if dialect.branch >= branch else None


def switched(value: bool | None) -> str:
    """Enabled, Disabled or N/A."""
    return NA if value is None else "Enabled" if value else "Disabled"


def yes(value: bool | None) -> str:
    """Yes, No or N/A."""
    return NA if value is None else "Yes" if value else "No"


def nvml_bus_id(address: str | None) -> str:
    """`00000000:41:00.0`: eight digits of domain, upper case."""
    return f"0000{address}".upper() if address else NA


def no_handle(gpu: Gpu, dialect: Dialect) -> str:
    """The line in the place of a lost card, as 610, 470 and older branches spell it."""
    at = f"{gpu.pci_bus_id}".upper()
    if dialect.branch >= 610:
        where = f"GPU{gpu.index}: {at}"
    else:
        where = f"GPU{at}" if dialect.branch >= 470 else f"GPU {at}"
    return f"Unable to determine the device handle for {where}: {gpu.error}"


def watts(value: float | None) -> str:
    """`350.00 W`."""
    return NA if value is None else f"{value:.2f} W"
