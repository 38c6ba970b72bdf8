"""What amd-smi prints: `list`, `static`, `metric`, `process` and `topology`, as text and `--json`.

Shapes: amdsmi's CHANGELOG and its CLI's source, ROCm 6.0 to 7.2. A value is a number, a string, or
`{"value": 64, "unit": "GB"}`; ROCm 6.4 and newer put the list under `gpu_data`. What amd-smi calls
MB is MiB: an MI300X shows 196592.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from multigpu.hardware import Gpu, GpuPair, P2p
from multigpu.parse import cut_json
from multigpu.parse.amd import amd_smi_text
from multigpu.parse.amd.amd_smi_card import at, card, cell, count, enabled
from multigpu.parse.reading import Kind, Lines, Reading, signature
from multigpu.parse.shape import items, mapping

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
        index = count(entry.get("gpu"))
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
    drivers = (at(cards[i], "driver", "version", "driver_version") for i in sorted(cards))
    return AmdSmi(
        gpus=tuple(card(index, cards[index]) for index in sorted(cards)),
        pairs=_pairs(cards),
        driver=next((driver for driver in map(cell, drivers) if driver), None),
    )


def _pairs(cards: dict[int, dict[str, object]]) -> tuple[GpuPair, ...]:
    """`topology`: `links` per GPU (ROCm 6.1.1 and newer), before that one map per fact."""
    found: dict[tuple[int, int], GpuPair] = {}
    for a, entry in cards.items():
        for link in map(mapping, items(entry.get("links"))):
            b = count(link.get("gpu"))
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
    kind = (cell(link.get("link_type")) or "").upper()
    rates = BANDWIDTH.fullmatch(cell(link.get("bandwidth")) or "")
    one, all_links = (int(rates[1]), int(rates[2])) if rates else (0, 0)
    reach = enabled(link.get("link_status"))
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
    r'^[ \t]*"gpu"[ \t]*:[ \t]*\d+',
    r'^[ \t]*"(asic|bus|bdf|uuid|usage|mem_usage|power|links|link_type|process_list|vram|pcie|'
    r'limit|logical_gpu|clock|temperature|ecc|partition|board|driver|kfd_id)"[ \t]*:',
    sure=0.92,
)
TEXT = signature(
    r"^[ \t]*GPU:[ \t]*\d+[ \t]*$",
    r"^[ \t]+(ASIC|BUS|BDF|UUID|USAGE|MEM_USAGE|POWER|CLOCK|TEMPERATURE|VRAM|PCIE|LIMIT|"
    r"PROCESS_INFO|PARTITION|MEMORY_PARTITION|ECC|FW_LIST|BOARD|DRIVER|RAS|NUMA):",
    sure=0.92,
)
PIECE = signature(
    r"^[ \t]+(MARKET_NAME|ASIC_SERIAL|MAX_PCIE_WIDTH|PCIE_INTERFACE_VERSION|"
    r"SLOWDOWN_HOTSPOT_TEMPERATURE|SHUTDOWN_VRAM_TEMPERATURE|ECC_BLOCK_STATE|COMPUTE_PARTITION|POLICY_DESCRIPTION|XGMI_PLPD|"
    r"CACHE_PROPERTIES|MAX_NUM_CU_SHARED|NUM_CACHE_INSTANCE|PCIE_BIF|XGMI_WAFL|GFX_ACTIVITY|"
    r"SOCKET_POWER|THROTTLE_STATUS|CLK_LOCKED|DEEP_SLEEP|TOTAL_VRAM|USED_VRAM):",
    sure=0.6,
)
TABLE = signature(r"^[ \t]*\|[ \t]*AMD-SMI\s", sure=0.9)


def _text_sure(printed: str) -> float:
    return max(TEXT(printed), TABLE(printed), PIECE(printed))


KINDS: tuple[Kind, ...] = (
    Kind("amd-smi-json", "amd-smi --json", JSON, read_json, "amd-smi static --json"),
    Kind("amd-smi", "amd-smi as text", _text_sure, read_text, "amd-smi static"),
)
