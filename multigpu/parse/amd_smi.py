"""What amd-smi prints: `list`, `static`, `metric`, `process` and `topology`, as text and `--json`.

Shapes: amdsmi's CHANGELOG and its CLI's source, ROCm 6.0 to 7.2. A value is a number, a string, or
`{"value": 64, "unit": "GB"}`; ROCm 6.4 and newer put the list under `gpu_data`. What amd-smi calls
MB is MiB: an MI300X shows 196592.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from multigpu import gfx
from multigpu.hardware import Gpu, GpuPair, GpuProcess, P2p, PcieLink, Vendor
from multigpu.parse import amd_smi_text, cut_json
from multigpu.parse.pci_device import address, generation
from multigpu.parse.reading import Kind, Lines, Reading, signature
from multigpu.parse.rocm_smi import unique_id
from multigpu.parse.shape import items, mapping, number, real, text, whole, word

MIB = {"B": 2**-20, "KB": 2**-10, "MB": 1.0, "GB": 2.0**10, "TB": 2.0**20}
GENERATION = re.compile(r"Gen (\d)", re.ASCII)
UUID = re.compile(
    r"([0-9a-f]{2})ff[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-80([0-9a-f]{2})-([0-9a-f]{12})"
)
BANDWIDTH = re.compile(r"(\d{1,9})-(\d{1,9})", re.ASCII)
BOX = re.compile(r"^\s{0,20}\|\s{0,4}AMD-SMI\s", re.MULTILINE)
USE_JSON = "this is amd-smi's table for people; take `amd-smi static --json` instead"


@dataclass(frozen=True)
class AmdSmi:
    """The cards by amd-smi's number, and their pairs. `refusal` says why a text was not read."""

    gpus: tuple[Gpu, ...] = ()
    pairs: tuple[GpuPair, ...] = ()
    driver: str | None = None
    refusal: str | None = None


def read_json(printed: str) -> Reading[AmdSmi]:
    """`amd-smi list|static|metric|process|topology --json`."""
    lines = Lines(printed)
    loaded = cut_json.load("\n".join(lines.texts))
    cut_json.mark(lines, loaded)
    entries = [mapping(entry) for entry in items(_list(loaded))]
    cards: dict[int, dict[str, object]] = {}
    for entry in entries:
        index = whole(_word(entry.get("gpu")))
        if index is not None and 0 <= index < 1024:
            cards[index] = {**cards.get(index, {}), **entry}
    return lines.reading(_value(cards))


def read_text(printed: str) -> Reading[AmdSmi]:
    """The indented blocks of one or several commands."""
    lines = Lines(printed)
    value = _value(dict(amd_smi_text.blocks(lines)))
    if not value.gpus and BOX.search(printed):
        return lines.reading(AmdSmi(refusal=USE_JSON))
    return lines.reading(value)


def _list(loaded: object) -> object:
    document = mapping(loaded)
    return document.get("gpu_data", [document]) if document else loaded


def _value(cards: dict[int, dict[str, object]]) -> AmdSmi:
    drivers = (_at(cards[i], "driver", "version", "driver_version") for i in sorted(cards))
    return AmdSmi(
        gpus=tuple(card(index, cards[index]) for index in sorted(cards)),
        pairs=_pairs(cards),
        driver=next((driver for driver in map(_word, drivers) if driver), None),
    )


def card(index: int, entry: dict[str, object]) -> Gpu:
    """One card from its nested keys, whatever commands they came from."""
    device = _word(_at(entry, "asic", "device_id"))
    model = gfx.model(device)
    total = _mib(_at(entry, "vram", "size")) or _mib(_at(entry, "mem_usage", "total_vram"))
    used = _mib(_at(entry, "mem_usage", "used_vram"))
    target = (_word(_at(entry, "asic", "target_graphics_version")) or "").lower()
    counts = mapping(entry.get("ecc"))
    return Gpu(
        index=index,
        uuid=_uuid(entry),
        name=_word(_at(entry, "asic", "market_name")) or _word(_at(entry, "board", "product_name")),
        vendor=Vendor.AMD,
        memory_mib=int(total) if total else None,
        memory_free_mib=int(total - used) if total and used is not None else None,
        memory_used_mib=int(used) if used is not None else None,
        pci_bus_id=address(_word(_at(entry, "bus", "bdf") or entry.get("bdf")) or ""),
        pcie=_link(entry),
        numa_node=_node(_at(entry, "numa", "node")),
        gfx=target if target.startswith("gfx") else (model.gfx if model else None),
        power_limit_w=_limit(entry, "socket_power", "socket_power_limit"),
        power_limit_max_w=_limit(entry, "max_power", "max_power_limit"),
        power_draw_w=_amount(
            _at(entry, "power", "socket_power", "current_socket_power", "average_socket_power")
        ),
        temperature_c=_whole(_at(entry, "temperature", "edge", "hotspot")),
        vbios_version=_word(_at(entry, "vbios", "part_number", "version"))
        or _word(_at(entry, "ifwi", "part_number", "version")),
        ecc=_ecc(entry),
        ecc_corrected=_whole(counts.get("total_correctable_count")),
        ecc_uncorrected=_whole(counts.get("total_uncorrectable_count")),
        compute_partition=_word(
            _at(entry, "partition", "compute_partition", "accelerator_partition")
        ),
        memory_partition=_word(_at(entry, "partition", "memory_partition")),
        processes=_processes(entry),
        unified_memory=True if model and model.unified_memory else None,
    )


def _at(entry: dict[str, object], section: str, *keys: str) -> object:
    """The first of several keys of a section that says something; a section alone: its value."""
    if section in entry and not isinstance(entry[section], dict):
        return entry[section]
    values = mapping(entry[section]) if section in entry else {}
    known = (values.get(key) for key in keys)
    return next((value for value in known if _word(value) is not None or _is(value)), None)


def _is(value: object) -> bool:
    """True for a section or list that has something in it."""
    return bool(value) and isinstance(value, dict | list)


def _word(value: object) -> str | None:
    """A string that is no N/A; numbers as they are written."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return str(value)
    return word(text(value))


def _amount(value: object) -> float | None:
    """The number of a value with or without its unit."""
    inner = mapping(value).get("value", value) if isinstance(value, dict) else value
    return real(inner) if isinstance(inner, int | float) else number(_word(inner))


def _whole(value: object) -> int | None:
    amount = _amount(value)
    return None if amount is None else int(amount)


def _mib(value: object) -> float | None:
    """An amount of memory; without a unit MB."""
    amount = _amount(value)
    unit = _word(mapping(value).get("unit")) if isinstance(value, dict) else None
    if unit is None and (match := re.search(r"\b([KMGT]?B)\s*$", _word(value) or "")):
        unit = match[1]
    return None if amount is None or amount < 0 else amount * MIB.get(unit or "MB", 1.0)


def _node(value: object) -> int | None:
    node = _whole(value)
    return node if node is not None and 0 <= node < 1024 else None


def _enabled(value: object) -> bool | None:
    return {"ENABLED": True, "DISABLED": False}.get((_word(value) or "").upper())


def _ecc(entry: dict[str, object]) -> bool | None:
    """Whether errors of the memory controllers (block UMC) are corrected and counted."""
    states = mapping(_at(entry, "ras", "ecc_block_state"))
    return _enabled({name.lower(): state for name, state in states.items()}.get("umc"))


def _limit(entry: dict[str, object], *keys: str) -> float | None:
    """A power limit; ROCm 7.1 and newer part them by `ppt0` and `ppt1`."""
    first = _at(entry, "limit", "ppt0")
    return _amount(_at({"limit": first}, "limit", *keys) or _at(entry, "limit", *keys))


def _uuid(entry: dict[str, object]) -> str | None:
    """The unique id: the ASIC's serial number, which amd-smi's UUID holds too.

    `afff74a1-0000-1000-8054-e92b0a5d57c8` is 0xaf54e92b0a5d57c8 of a device 74a1.
    """
    serial = _word(_at(entry, "asic", "asic_serial"))
    if serial and (found := unique_id(serial)):
        return found
    match = UUID.fullmatch((_word(entry.get("uuid")) or "").lower())
    return unique_id(match[1] + match[2] + match[3]) if match else None


def _link(entry: dict[str, object]) -> PcieLink:
    """Largest values from `static`, current ones and replays from `metric`."""
    version = GENERATION.match(_word(_at(entry, "bus", "pcie_interface_version")) or "")
    fastest = _amount(_at(entry, "bus", "max_pcie_speed"))
    current = _amount(_at(entry, "pcie", "speed"))
    return PcieLink(
        gen_current=generation(current),
        gen_max=int(version[1]) if version else generation(fastest),
        width_current=_whole(_at(entry, "pcie", "width")) or None,
        width_max=_whole(_at(entry, "bus", "max_pcie_width")) or None,
        replays=_whole(_at(entry, "pcie", "replay_count")),
    )


def _processes(entry: dict[str, object]) -> tuple[GpuProcess, ...]:
    found = []
    for item in items(entry.get("process_list")):
        process = mapping(mapping(item).get("process_info", item))
        pid = _whole(process.get("pid"))
        if pid is None or not 0 < pid < 1 << 31:
            continue
        held = process.get("vram_mem", _at(process, "memory_usage", "vram_mem"))
        mib = _mib(held)
        used = int(mib) if mib is not None else None
        found.append(GpuProcess(pid, _word(process.get("name")), used))
    return tuple(found)


def _pairs(cards: dict[int, dict[str, object]]) -> tuple[GpuPair, ...]:
    """`topology`: `links` per GPU (ROCm 6.1.1 and newer), before that one map per fact."""
    found: dict[tuple[int, int], GpuPair] = {}
    for a, entry in cards.items():
        for link in map(mapping, items(entry.get("links"))):
            b = _whole(link.get("gpu"))
            if b is not None and a != b:
                found.setdefault((min(a, b), max(a, b)), _pair(a, b, link))
        for key in mapping(entry.get("link_type")):
            match = re.fullmatch(r"gpu_(\d{1,3})", key, re.ASCII)
            if match and int(match[1]) != a:
                b, low, high = int(match[1]), min(a, int(match[1])), max(a, int(match[1]))
                found.setdefault((low, high), _pair(a, b, _old_link(entry, key)))
    return tuple(found[key] for key in sorted(found))


def _old_link(entry: dict[str, object], key: str) -> dict[str, object]:
    return {
        "link_type": mapping(entry.get("link_type")).get(key),
        "link_status": mapping(entry.get("link_accessibility")).get(key),
        "bandwidth": mapping(entry.get("numa_bandwidth")).get(key),
    }


def _pair(a: int, b: int, link: dict[str, object]) -> GpuPair:
    """Bandwidth reads `50000-100000`: MB/s of one link and of all links together."""
    kind = (_word(link.get("link_type")) or "").upper()
    rates = BANDWIDTH.fullmatch(_word(link.get("bandwidth")) or "")
    one, all_links = (int(rates[1]), int(rates[2])) if rates else (0, 0)
    reach = _enabled(link.get("link_status"))
    grant = None if reach is None else P2p.OK if reach else P2p.NOT_SUPPORTED
    xgmi = kind == "XGMI"
    return GpuPair(
        min(a, b),
        max(a, b),
        nvlinks=0,
        p2p_read=grant,
        p2p_write=grant,
        xgmi_links=max(1, all_links // one if one else 1) if xgmi else 0 if kind else None,
        xgmi_gb_s=all_links / 1000 if xgmi and all_links else None,
    )


JSON = signature(
    r'^\s*"gpu"\s*:\s*\d+',
    r'^\s*"(asic|bus|bdf|uuid|usage|mem_usage|power|links|link_type|process_list|vram|pcie|limit|'
    r'logical_gpu|clock|temperature|ecc|partition|board|driver|kfd_id)"\s*:',
    sure=0.92,
)
TEXT = signature(
    r"^\s*GPU:\s*\d+\s*$",
    r"^\s+(ASIC|BUS|BDF|UUID|USAGE|MEM_USAGE|POWER|CLOCK|TEMPERATURE|VRAM|PCIE|LIMIT|PROCESS_INFO|"
    r"PARTITION|ECC|FW_LIST|BOARD|DRIVER|RAS|NUMA):",
    sure=0.92,
)
TABLE = signature(r"^\s*\|\s*AMD-SMI\s", sure=0.9)


def _text_sure(printed: str) -> float:
    return max(TEXT(printed), TABLE(printed))


KINDS: tuple[Kind, ...] = (
    Kind("amd-smi-json", "amd-smi --json", JSON, read_json, "amd-smi static --json"),
    Kind("amd-smi", "amd-smi as text", _text_sure, read_text, "amd-smi static"),
)
