"""Read a captured machine: the JSON document that `multigpu/host/probe/` prints.

The text may come from a login shell that prints around it; a document without its end marker is
never half believed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace

from multigpu.errors import CaptureError
from multigpu.hardware import Gpu, GpuPair, Host, KernelEvent, Vendor
from multigpu.parse import pci, toolchain, units
from multigpu.parse.amd.seen import STATIC
from multigpu.parse.cards import NVLINK, QUERY, TOPOLOGY, Cards, read_cards
from multigpu.parse.kernel.kernel_log import read_kernel
from multigpu.parse.nvidia_smi import topology
from multigpu.parse.nvidia_smi.topo_matrix import read_topology
from multigpu.parse.pci import lspci
from multigpu.parse.shape import Tool, items, mapping, text, tool, word
from multigpu.parse.system import System, read_system

SCHEMA = 1
END = "multigpu-capture-end"

TOPOLOGY_PCIE = "nvidia-smi topo -mp"
P2P_READ = "nvidia-smi topo -p2p r"
P2P_WRITE = "nvidia-smi topo -p2p w"
VIRTUALIZATION = "systemd-detect-virt"
SYSTEMCTL = "systemctl --version"
UNITS = "systemctl show"
LICENSE = "modinfo -F license nvidia"
LSPCI = "lspci -vvv -D -nn"
KERNEL_LOG = "journalctl -k"

# The fullest first; a probe runs only that one.
LISTINGS = {
    LSPCI: lspci.read_lspci,
    "lspci -nn": lspci.read_lspci,
    "lspci -tv": lspci.read_lspci_tree,
}

# What a folder of saved outputs should hold, so that nothing has to stay unknown.
PARTS = (QUERY, TOPOLOGY, P2P_READ, NVLINK, LSPCI, KERNEL_LOG)
AMD_PARTS = (STATIC, "rocm-smi --showtopo", LSPCI, KERNEL_LOG)

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
    for command, read_listing in LISTINGS.items():
        devices = pci.merged(devices, read_listing(tool(tools, command).stdout).value.tree)
    cards = read_cards(captured, devices, system.virtualization)
    events = read_kernel(tool(tools, KERNEL_LOG).stdout).value
    known = {gpu.index for gpu in cards.gpus}
    pairs = (*_pairs(tools), *cards.pairs)
    files = mapping(captured.get("files"))
    facts = {**asdict(system), "driver": cards.driver or system.driver}
    return Host(
        name=name,
        gpus=tuple(narrowed(sharing(gpu, system), events) for gpu in cards.gpus),
        pairs=tuple(pair for pair in pairs if {pair.a, pair.b} <= known),
        cuda=cards.cuda,
        units=units.read_units(tool(tools, UNITS).stdout, captured.get("main_processes")),
        files=units.read_files(captured.get("managed")),
        paths=units.read_paths(captured.get("paths")),
        toolchain=toolchain.read_toolchain(captured.get("toolchain")),
        runtimes=toolchain.read_runtimes(captured.get("runtimes")),
        generations=toolchain.read_generations(captured.get("runtimes")),
        simulated=cards.simulated or captured.get("simulated") is True,
        partial=captured.get("partial") is True,
        left_out=(*pci.left_out(devices), *cards.left_out),
        kernel_events=events,
        nics=read_topology(tool(tools, TOPOLOGY).stdout).nics,
        product=word(text(files.get("/sys/class/dmi/id/product_name"))),
        module_license=word(tool(tools, LICENSE).stdout),
        registry_dwords=registry_dwords(text(files.get("/proc/driver/nvidia/params"))),
        unseen=tuple(unseen(captured, tools, system, cards)),
        problems=(*cards.problems, *_blind_spots(captured, tools, system, cards)),
        **facts,
    )


def sharing(gpu: Gpu, system: System) -> Gpu:
    """A GPU without memory of its own has the processor's: what is free there is free for it."""
    if not gpu.unified_memory or gpu.memory_mib is not None:
        return gpu
    free = gpu.memory_free_mib or system.memory_available_mib
    return replace(gpu, memory_mib=system.memory_mib, memory_free_mib=free)


def narrowed(gpu: Gpu, events: tuple[KernelEvent, ...]) -> Gpu:
    """The card with the hop that the kernel says limits it, where the ports above were not seen."""
    links = [e.pcie for e in events if e.pcie is not None and e.address == gpu.pci_bus_id]
    said = links[-1] if links and gpu.pci_bus_id and not gpu.pcie.hops else None
    if said is None or said.at is None or (said.width or 99) >= (said.width_capable or 0):
        return gpu
    width_max = gpu.pcie.width_max or said.width_capable
    link = replace(gpu.pcie, limited_at=said.at, width_path=said.width, width_max=width_max)
    return replace(gpu, pcie=link)


def _pairs(tools: dict[str, object]) -> tuple[GpuPair, ...]:
    """What nvidia-smi says of every pair."""
    commands = (TOPOLOGY, TOPOLOGY_PCIE, P2P_READ, NVLINK, P2P_WRITE)
    return topology.read_pairs(*(tool(tools, command).stdout for command in commands))


def registry_dwords(params: str | None) -> str | None:
    """The driver's registry keys, `RegistryDwords: "a=1;b=2"` of /proc/driver/nvidia/params."""
    match = re.search(r'^RegistryDwords: "([^"\n]{1,2000})"', params or "", re.MULTILINE)
    return match[1] if match else None


def unseen(
    captured: dict[str, object], tools: dict[str, object], system: System, cards: Cards
) -> Iterator[str]:
    """What was not looked at, or may not be seen by this user; no fault of the machine."""
    several = len([gpu for gpu in cards.gpus if gpu.error is None]) > 1
    if captured.get("partial") is True:
        amd = any(gpu.vendor is Vendor.AMD for gpu in cards.gpus)
        parts = AMD_PARTS if amd else PARTS
        read = {QUERY} if any(gpu.error is None for gpu in cards.gpus) else set()
        yield from (c for c in parts if c not in read and tool(tools, c).missing)
        return
    log, listing = tool(tools, KERNEL_LOG), tool(tools, LSPCI)
    if not log.ok or (not log.stdout.strip() and system.uid != 0 and not log.missing):
        yield f"kernel log ({'needs root' if system.uid else 'not readable'})"
    if several and listing.missing:
        yield "ACS on the way between the cards (lspci is not installed)"
    elif several and system.uid != 0 and not any(map(_acs_seen, cards.gpus)):
        yield "ACS on the way between the cards (lspci needs root)"


def _acs_seen(gpu: Gpu) -> bool:
    return any(hop.acs_redirect is not None for hop in gpu.pcie.hops)


def _blind_spots(
    captured: dict[str, object], tools: dict[str, object], system: System, cards: Cards
) -> tuple[str, ...]:
    """What else the probe could not see, one sentence each."""
    if captured.get("partial") is True:
        return ()
    found = []
    usable = [g for g in cards.gpus if g.error is None and g.vendor is Vendor.NVIDIA]
    if len(usable) > 1 and tool(tools, QUERY).ok:
        found += _blind_topology(tool(tools, TOPOLOGY))
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


def _blind_topology(topo: Tool) -> list[str]:
    """Several cards, and no matrix of them."""
    if not topology.read_matrix(topo.stdout):
        return [
            f'`nvidia-smi topo -m` gave no matrix ("{topo.said}"); needed: how the cards are '
            "connected; do: run it on the host"
        ]
    return []
