"""A folder of saved outputs, read as one captured machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from multigpu.hardware import Host
from multigpu.parse import capture, kinds
from multigpu.parse.nvidia_smi.topo_matrix import read_topology
from multigpu.parse.reading import Kind, Reading

# Formats whose text the capture keeps under the probe's own command line.
PLACES = {"lspci-vv": capture.LSPCI, "kernel-log": capture.KERNEL_LOG}


@dataclass(frozen=True)
class Item:
    """One file of the folder; `kind` is None when nobody knows its format."""

    file: str
    kind: Kind | None
    reading: Reading[object] | None = None
    left_out: str | None = None


@dataclass(frozen=True)
class Folder:
    """What a folder holds: one machine from the outputs of tools, and every file by its format."""

    machine: Host
    items: tuple[Item, ...]
    tells: bool
    """Whether anything in it is of a machine; a model's files and logs of engines are not."""


def read_folder(
    texts: Mapping[str, str], name: str, parts: Mapping[str, object] | None = None
) -> Folder:
    """The machine that these files (name -> text) are outputs of.

    `parts` are further parts of a capture (`pci`, `kfd`), from trees of sysfs. Of two files of one
    format the first by name is used, and the other is said to be left out.
    """
    tools: dict[str, object] = {}
    items: list[Item] = []
    for file in sorted(texts):
        found = kinds.guess(texts[file])
        place = _place(found, texts[file])
        if place in tools:
            items.append(Item(file, found, left_out=f"a second {found.name}" if found else None))
            continue
        if place is not None:
            tools[place] = {"rc": 0, "stdout": texts[file].split("\n"), "stderr": []}
        items.append(Item(file, found, found.read(texts[file]) if found else None))
    machine = capture.host({"tools": tools, "partial": True, **(parts or {})}, name)
    return Folder(machine, tuple(items), bool(tools or parts))


def _place(kind: Kind | None, text: str) -> str | None:
    """Where the text stands in a capture's `tools`.

    Grants to write are told from those to read by the command line before them, where it was saved.
    """
    if kind is None:
        return None
    if kind.command == capture.P2P_READ and read_topology(text).asked == "-p2p w":
        return capture.P2P_WRITE
    return PLACES.get(kind.name, kind.command)
