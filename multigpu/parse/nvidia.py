"""Readers of `nvidia-smi -q -x` (drivers 418 to 610) and of its small CSV query.

Element names repeat under different parents (`total` stands in fb, bar1, ecc and MIG), so paths are
always whole. A card whose block cannot be read, or that the driver has lost, keeps its row.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from multigpu.hardware import Gpu, GpuProcess, PcieLink
from multigpu.parse import pci
from multigpu.parse.shape import number, whole, word

LOST = re.compile(r"GPU is lost|GPU requires reset")
GPU_BLOCK = re.compile(r'<gpu id="([^"<>]{1,40})">(.*?)(</gpu>|(?=<gpu id=)|\Z)', re.DOTALL)
HANDLE = re.compile(r"Unable to determine the device handle for GPU\s*([0-9A-Fa-f:.]+):\s*(.+)")

# What `product_architecture` says, where the driver is too old to be asked for compute_cap, and the
# exceptions by product name (CUDA programming guide, table of compute capabilities).
ARCHITECTURES: dict[str, tuple[int, int]] = {
    "Maxwell": (5, 2),
    "Pascal": (6, 1),
    "Volta": (7, 0),
    "Turing": (7, 5),
    "Ampere": (8, 6),
    "Ada Lovelace": (8, 9),
    "Hopper": (9, 0),
    "Blackwell": (12, 0),
}
EXCEPTIONS: tuple[tuple[str, str, tuple[int, int]], ...] = (
    ("Pascal", r"\bP100\b", (6, 0)),
    ("Ampere", r"\b(A100|A800|A30|CMP 170HX)", (8, 0)),
    ("Blackwell", r"\bG?B[12]00\b", (10, 0)),
    ("Blackwell", r"\bG?B300\b", (10, 3)),
    ("Blackwell", r"\bGB10\b", (12, 1)),
)


@dataclass(frozen=True)
class Query:
    """What one `nvidia-smi -q -x` says. Cards stand in the order printed; `index` counts them."""

    driver: str | None = None
    cuda: str | None = None
    gpus: tuple[Gpu, ...] = ()
    simulated: bool = False
    whole: bool = False


def read_query(text: str) -> Query:
    """The XML of `nvidia-smi -q -x`, also when it was cut or has a warning printed around it."""
    body = _body(text)
    root = _parse(body)
    if root is None:
        return _read_pieces(body, "<!-- simulated" in text)
    blocks = root.findall("gpu")
    return Query(
        driver=_word(root, "driver_version"),
        cuda=_word(root, "cuda_version"),
        gpus=tuple(_gpu(index, block) for index, block in enumerate(blocks)),
        simulated="<!-- simulated" in text,
        whole=True,
    )


def _body(text: str) -> str:
    """From the root element on: nvidia-smi prints warnings (infoROM) after and before the XML."""
    start, end = text.find("<nvidia_smi_log"), text.rfind("</nvidia_smi_log>")
    if start < 0:
        return ""
    return text[start : end + len("</nvidia_smi_log>")] if end > start else text[start:]


def _parse(body: str) -> ET.Element | None:
    """No DTD reaches this parser: the text begins at the root element."""
    try:
        return ET.fromstring(body)
    except (ET.ParseError, ValueError):
        return None


def _read_pieces(body: str, simulated: bool) -> Query:
    """Card by card, for a document that is cut or has garbage in one card's block."""
    cards = []
    for index, (bus_id, inside, end) in enumerate(GPU_BLOCK.findall(body)):
        block = _parse(f"<gpu>{inside}</gpu>") if end == "</gpu>" else None
        if block is None:
            error = "its part of nvidia-smi -q -x cannot be read"
            cards.append(Gpu(index, pci_bus_id=pci.address(bus_id), error=error))
        else:
            block.set("id", bus_id)
            cards.append(_gpu(index, block))
    return Query(
        driver=_between(body, "driver_version"),
        cuda=_between(body, "cuda_version"),
        gpus=tuple(cards),
        simulated=simulated,
    )


def _between(body: str, name: str) -> str | None:
    match = re.search(rf"<{name}>([^<]*)</{name}>", body)
    return word(match[1]) if match else None


def _gpu(index: int, block: ET.Element) -> Gpu:
    name = _word(block, "product_name")
    error = _error(block)
    return Gpu(
        index=index,
        uuid=_word(block, "uuid"),
        name=name,
        memory_mib=_whole(block, "fb_memory_usage/total"),
        memory_free_mib=_whole(block, "fb_memory_usage/free"),
        memory_reserved_mib=_whole(block, "fb_memory_usage/reserved"),
        pci_bus_id=pci.address(block.get("id") or "") or pci.address(_word(block, BUS_ID) or ""),
        pcie=_link(block),
        compute_capability=compute_capability(_word(block, "product_architecture"), name),
        power_limit_w=_power(block, "current_power_limit", "power_limit"),
        power_limit_default_w=_power(block, "default_power_limit", "default_power_limit"),
        ecc=_switch(block, "ecc_mode/current_ecc"),
        mig=_switch(block, "mig_mode/current_mig"),
        # display_attached reads Yes on H100 and L40S boards without a connector (drivers 580, 595).
        display_attached=_switch(block, "display_active"),
        processes=_processes(block),
        error=error,
    )


BUS_ID = "pci/pci_bus_id"


def _error(block: ET.Element) -> str | None:
    """Why this card cannot be used, in the driver's words; None for a card that answers."""
    for element in block.iter():
        if element.text and (match := LOST.search(element.text)):
            return match[0]
    action = _word(block, "gpu_recovery_action")
    if action and re.search(r"reset|reboot", action, re.IGNORECASE):
        return f"the driver asks for: {action}"
    if _whole(block, "fb_memory_usage/total") is None:
        return "the driver does not tell its memory"
    return None


def _link(block: ET.Element) -> PcieLink:
    base = "pci/pci_gpu_link_info"
    return PcieLink(
        gen_current=_whole(block, f"{base}/pcie_gen/current_link_gen"),
        gen_max=_whole(block, f"{base}/pcie_gen/max_link_gen"),
        width_current=_whole(block, f"{base}/link_widths/current_link_width"),
        width_max=_whole(block, f"{base}/link_widths/max_link_width"),
    )


def _power(block: ET.Element, new: str, old: str) -> float | None:
    """Watts from gpu_power_readings (driver 535 and newer) or power_readings (older)."""
    value = number(_word(block, f"gpu_power_readings/{new}"))
    return value if value is not None else number(_word(block, f"power_readings/{old}"))


def _processes(block: ET.Element) -> tuple[GpuProcess, ...]:
    found = []
    for info in block.findall("processes/process_info"):
        pid = _whole(info, "pid")
        if pid is not None:
            name, used = _word(info, "process_name"), _whole(info, "used_memory")
            found.append(GpuProcess(pid, name, used))
    return tuple(found)


def _word(element: ET.Element, path: str) -> str | None:
    return word(element.findtext(path))


def _whole(element: ET.Element, path: str) -> int | None:
    return whole(_word(element, path))


def _switch(element: ET.Element, path: str) -> bool | None:
    return {"Enabled": True, "Disabled": False}.get(_word(element, path) or "")


def compute_capability(architecture: str | None, name: str | None) -> tuple[int, int] | None:
    """By architecture and product name; None for an architecture that is not in the table."""
    for family, pattern, capability in EXCEPTIONS:
        if family == architecture and re.search(pattern, name or ""):
            return capability
    return ARCHITECTURES.get(architecture or "")


@dataclass(frozen=True)
class Numbered:
    """One row of `--query-gpu=index,pci.bus_id,compute_cap`."""

    index: int
    compute_capability: tuple[int, int] | None


def read_numbers(csv: str) -> dict[str, Numbered]:
    """PCI address -> NVML index and compute capability; lines of another shape are passed over."""
    found: dict[str, Numbered] = {}
    for line in csv.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        index, bus_id = whole(cells[0]), pci.address(cells[1]) if len(cells) == 3 else None
        if index is not None and bus_id is not None:
            match = re.fullmatch(r"(\d{1,3})\.(\d{1,2})", cells[2], re.ASCII)
            found[bus_id] = Numbered(index, (int(match[1]), int(match[2])) if match else None)
    return found


def read_refusals(text: str) -> dict[str, str]:
    """PCI address -> the driver's words for cards that nvidia-smi has no handle of."""
    refusals = {}
    for where, words in HANDLE.findall(text):
        bus_id = pci.address(where) if ":" in where else None
        if bus_id is not None:
            refusals[bus_id] = words.strip()
    return refusals
