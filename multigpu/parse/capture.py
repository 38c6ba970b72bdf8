"""Read a captured machine: the JSON document that `multigpu/host/probe.py` prints.

The text may come from a login shell that prints around it; a document without its end marker is
never half believed.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict

from multigpu.errors import CaptureError
from multigpu.hardware import Gpu, Host
from multigpu.parse import pci, topology, units
from multigpu.parse.cards import QUERY, Cards, read_cards
from multigpu.parse.shape import Tool, items, mapping, text, tool
from multigpu.parse.system import System, read_system

SCHEMA = 1
END = "multigpu-capture-end"

TOPOLOGY = "nvidia-smi topo -m"
TOPOLOGY_PCIE = "nvidia-smi topo -mp"
P2P_READ = "nvidia-smi topo -p2p r"
P2P_WRITE = "nvidia-smi topo -p2p w"
NVLINK = "nvidia-smi nvlink -s"
VIRTUALIZATION = "systemd-detect-virt"
SYSTEMCTL = "systemctl --version"
UNITS = "systemctl show"
LICENSE = "modinfo -F license nvidia"
LSPCI = "lspci -vvv -D -nn"
KERNEL_LOG = "journalctl -k"

BEGIN = re.compile(r'\{\s*"schema"\s*:')


def read(text: str, name: str) -> Host:
    """The machine in one probe's output. Raises CaptureError with one sentence when it is cut."""
    return host(document(text, name), name)


def document(text: str, name: str) -> dict[str, object]:
    """The JSON document, with the lines that a profile or a motd printed around it left out."""
    if not text.strip():
        raise CaptureError(f"{name}: the probe printed nothing; run it on the host to see why")
    start = BEGIN.search(text)
    if start is None:
        first = text.strip().splitlines()[0][:100]
        raise CaptureError(
            f"{name}: no captured machine in the output, which begins: {first!a}; look at what "
            "python3 and the login shell print there"
        )
    try:
        value, _ = json.JSONDecoder().raw_decode(text, start.start())
    except (ValueError, RecursionError):
        value = None
    found = mapping(value)
    if value is not None and found.get("schema") != SCHEMA:
        raise CaptureError(
            f"{name}: the capture has schema {_shown(found.get('schema'))}, this release reads "
            f"schema {SCHEMA}; take it again with this release's probe"
        )
    if found.get("end") != END:
        raise CaptureError(f"{name}: the capture is cut: its end marker is missing; take it again")
    return found


def _shown(value: object) -> str:
    return repr(value)[:40]


def host(captured: dict[str, object], name: str) -> Host:
    """The machine in a whole document; parts that are missing or misshapen stay None."""
    tools = mapping(captured.get("tools"))
    system = read_system(captured, tool(tools, VIRTUALIZATION), tool(tools, SYSTEMCTL))
    devices = pci.tree(captured.get("pci"))
    cards = read_cards(tools, devices, captured.get("processes"), system.virtualization)
    pairs = topology.read_pairs(
        *(tool(tools, command).stdout for command in (TOPOLOGY, TOPOLOGY_PCIE, P2P_READ, NVLINK))
    )
    known = {gpu.index for gpu in cards.gpus}
    facts = {**asdict(system), "driver": cards.driver or system.driver}
    return Host(
        name=name,
        gpus=cards.gpus,
        pairs=tuple(pair for pair in pairs if {pair.a, pair.b} <= known),
        cuda=cards.cuda,
        units=units.read_units(tool(tools, UNITS).stdout, captured.get("main_processes")),
        files=units.read_files(captured.get("managed")),
        paths=units.read_paths(captured.get("paths")),
        simulated=cards.simulated or captured.get("simulated") is True,
        problems=(*cards.problems, *_blind_spots(captured, tools, system, cards)),
        **facts,
    )


def _blind_spots(
    captured: dict[str, object], tools: dict[str, object], system: System, cards: Cards
) -> tuple[str, ...]:
    """What else the probe could not see, one sentence each."""
    found = []
    usable = [gpu for gpu in cards.gpus if gpu.error is None]
    if len(usable) > 1 and tool(tools, QUERY).ok:
        found += _blind_topology(tool(tools, TOPOLOGY), usable)
    if system.systemd is None:
        found.append(
            "systemd did not tell its version; needed: systemd to run services; do: use a host "
            "that runs it"
        )
    late = [text(part) or "?" for part in items(captured.get("incomplete"))]
    if late:
        found.append(
            f"the probe had to leave out {', '.join(late)}: no answer in time; needed: all of it; "
            "do: take it again, and look for stuck processes (state D) on the host"
        )
    return tuple(found)


def _blind_topology(topo: Tool, usable: list[Gpu]) -> list[str]:
    if len(usable) > 1 and not topology.read_matrix(topo.stdout):
        return [
            f'`nvidia-smi topo -m` gave no matrix ("{topo.said}"); needed: how the cards are '
            "connected; do: run it on the host"
        ]
    return []
