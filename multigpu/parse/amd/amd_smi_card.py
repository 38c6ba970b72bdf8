"""One card from amd-smi's nested keys, whatever commands and release they came from."""

from __future__ import annotations

import re

from multigpu import gfx
from multigpu.hardware import Gpu, GpuProcess, PcieLink, Vendor
from multigpu.parse.amd.rocm_smi_card import unique_id
from multigpu.parse.pci.device import address, generation
from multigpu.parse.shape import items, mapping, number, real, text, word

MIB = {"B": 2**-20, "KB": 2**-10, "MB": 1.0, "GB": 2.0**10, "TB": 2.0**20}
GENERATION = re.compile(r"Gen (\d)", re.ASCII)
UUID = re.compile(
    r"([0-9a-f]{2})ff[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-80([0-9a-f]{2})-([0-9a-f]{12})"
)


def card(index: int, entry: dict[str, object]) -> Gpu:
    """One card from its nested keys, whatever commands they came from."""
    device = cell(at(entry, "asic", "device_id"))
    model = gfx.model(device)
    total = _mib(at(entry, "vram", "size")) or _mib(at(entry, "mem_usage", "total_vram"))
    used = _mib(at(entry, "mem_usage", "used_vram"))
    target = (cell(at(entry, "asic", "target_graphics_version")) or "").lower()
    counts = mapping(entry.get("ecc"))
    return Gpu(
        index=index,
        uuid=_uuid(entry),
        name=cell(at(entry, "asic", "market_name")) or cell(at(entry, "board", "product_name")),
        vendor=Vendor.AMD,
        memory_mib=int(total) if total else None,
        memory_free_mib=int(total - used) if total and used is not None else None,
        memory_used_mib=int(used) if used is not None else None,
        pci_bus_id=address(cell(at(entry, "bus", "bdf") or entry.get("bdf")) or ""),
        pcie=_link(entry),
        numa_node=_node(at(entry, "numa", "node")),
        gfx=target if target.startswith("gfx") else (model.gfx if model else None),
        power_limit_w=_limit(entry, "socket_power", "socket_power_limit"),
        power_limit_max_w=_limit(entry, "max_power", "max_power_limit"),
        power_draw_w=_amount(
            at(entry, "power", "socket_power", "current_socket_power", "average_socket_power")
        ),
        temperature_c=count(at(entry, "temperature", "edge", "hotspot")),
        vbios_version=cell(at(entry, "vbios", "part_number", "version"))
        or cell(at(entry, "ifwi", "part_number", "version")),
        ecc=_ecc(entry),
        ecc_corrected=count(counts.get("total_correctable_count")),
        ecc_uncorrected=count(counts.get("total_uncorrectable_count")),
        compute_partition=cell(
            at(entry, "partition", "compute_partition", "accelerator_partition")
        ),
        memory_partition=cell(at(entry, "partition", "memory_partition"))
        or cell(at(entry, "memory_partition", "current")),
        processes=_processes(entry),
        unified_memory=True if model and model.unified_memory else None,
    )


def at(entry: dict[str, object], section: str, *keys: str) -> object:
    """The first of several keys of a section that says something; a section alone: its value."""
    if section in entry and not isinstance(entry[section], dict):
        return entry[section]
    values = mapping(entry[section]) if section in entry else {}
    known = (values.get(key) for key in keys)
    return next((value for value in known if cell(value) is not None or _is(value)), None)


def _is(value: object) -> bool:
    """True for a section or list that has something in it."""
    return bool(value) and isinstance(value, dict | list)


def cell(value: object) -> str | None:
    """A string that is no N/A; numbers as they are written."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return str(value)
    return word(text(value))


def _amount(value: object) -> float | None:
    """The number of a value with or without its unit."""
    inner = mapping(value).get("value", value) if isinstance(value, dict) else value
    return real(inner) if isinstance(inner, int | float) else number(cell(inner))


def count(value: object) -> int | None:
    amount = _amount(value)
    return None if amount is None else int(amount)


def _mib(value: object) -> float | None:
    """An amount of memory; without a unit MB."""
    amount = _amount(value)
    unit = cell(mapping(value).get("unit")) if isinstance(value, dict) else None
    if unit is None and (match := re.search(r"\b([KMGT]?B)\s*$", cell(value) or "")):
        unit = match[1]
    return None if amount is None or amount < 0 else amount * MIB.get(unit or "MB", 1.0)


def _node(value: object) -> int | None:
    node = count(value)
    return node if node is not None and 0 <= node < 1024 else None


def enabled(value: object) -> bool | None:
    return {"ENABLED": True, "DISABLED": False}.get((cell(value) or "").upper())


def _ecc(entry: dict[str, object]) -> bool | None:
    """Whether errors of the memory controllers (block UMC) are corrected and counted."""
    states = mapping(at(entry, "ras", "ecc_block_state"))
    return enabled({name.lower(): state for name, state in states.items()}.get("umc"))


def _limit(entry: dict[str, object], *keys: str) -> float | None:
    """A power limit; ROCm 7.1 and newer part them by `ppt0` and `ppt1`."""
    first = at(entry, "limit", "ppt0")
    return _amount(at({"limit": first}, "limit", *keys) or at(entry, "limit", *keys))


def _uuid(entry: dict[str, object]) -> str | None:
    """The unique id: the ASIC's serial number, which amd-smi's UUID holds too.

    `afff74a1-0000-1000-8054-e92b0a5d57c8` is 0xaf54e92b0a5d57c8 of a device 74a1.
    """
    serial = cell(at(entry, "asic", "asic_serial"))
    if serial and (found := unique_id(serial)):
        return found
    match = UUID.fullmatch((cell(entry.get("uuid")) or "").lower())
    return unique_id(match[1] + match[2] + match[3]) if match else None


def _link(entry: dict[str, object]) -> PcieLink:
    """Largest values from `static`, current ones and replays from `metric`."""
    version = GENERATION.match(cell(at(entry, "bus", "pcie_interface_version")) or "")
    fastest = _amount(at(entry, "bus", "max_pcie_speed"))
    current = _amount(at(entry, "pcie", "speed"))
    return PcieLink(
        gen_current=generation(current),
        gen_max=int(version[1]) if version else generation(fastest),
        width_current=count(at(entry, "pcie", "width")) or None,
        width_max=count(at(entry, "bus", "max_pcie_width")) or None,
        replays=count(at(entry, "pcie", "replay_count")),
    )


def _processes(entry: dict[str, object]) -> tuple[GpuProcess, ...]:
    found = []
    for item in items(entry.get("process_list")):
        process = mapping(mapping(item).get("process_info", item))
        pid = count(process.get("pid"))
        if pid is None or not 0 < pid < 1 << 31:
            continue
        held = process.get("vram_mem", at(process, "memory_usage", "vram_mem"))
        mib = _mib(held)
        used = int(mib) if mib is not None else None
        found.append(GpuProcess(pid, cell(process.get("name")), used))
    return tuple(found)
