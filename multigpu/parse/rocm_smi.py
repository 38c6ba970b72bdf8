"""What rocm-smi prints: `--json` of ROCm 4.3 to 7, its tables, and its `GPU[0] : key: value` lines.

In JSON every value is a string, `card0`.. are the cards, and `system` is none. Key names drift
between releases; the ones read here are listed in `ALIASES`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import combinations

from multigpu import gfx
from multigpu.hardware import Gpu, GpuPair, PcieLink, Vendor
from multigpu.parse import cut_json, rocm_smi_text
from multigpu.parse.pci_device import address, generation
from multigpu.parse.reading import Kind, Lines, Reading, Unread, signature
from multigpu.parse.shape import mapping, number, text, whole, word

# Lower case, without the `:` that some keys end in. First that is there wins.
ALIASES = {
    "device": ("device id", "gpu id"),
    "revision": ("device rev",),
    "name": ("card series", "device name"),
    "uuid": ("unique id",),
    "total": ("vram total memory (b)",),
    "used": ("vram total used memory (b)",),
    "address": ("pci bus",),
    "numa": ("(topology) numa node",),
    "limit": ("max graphics package power (w)",),
    "draw": (
        "average graphics package power (w)",
        "current socket graphics package power (w)",
    ),
    "edge": ("temperature (sensor edge) (c)",),
    "junction": ("temperature (sensor junction) (c)",),
    "vbios": ("vbios version",),
    "gfx": ("gfx version",),
    "compute_partition": ("compute partition",),
    "memory_partition": ("memory partition",),
    "link": ("pcie clock level",),
    "replays": ("pcie replay count",),
}
LEVEL = re.compile(r"([\d.]{1,5})\s?GT/s x(\d{1,2})\b", re.ASCII)
CARD = re.compile(r"card(\d{1,4})", re.ASCII)
PAIR = re.compile(
    r"\(Topology\) (Link type|Hops) between DRM devices (\d{1,4}) and (\d{1,4})", re.ASCII
)
GFX = re.compile(r"gfx[0-9a-f]{3,5}", re.IGNORECASE)


@dataclass(frozen=True)
class RocmSmi:
    """The cards by rocm-smi's index, their pairs, and the version of the amdgpu driver."""

    gpus: tuple[Gpu, ...] = ()
    pairs: tuple[GpuPair, ...] = ()
    driver: str | None = None


def read_json(printed: str) -> Reading[RocmSmi]:
    """`rocm-smi ... --json`."""
    lines = Lines(printed)
    loaded = cut_json.load("\n".join(lines.texts))
    cut_json.mark(lines, loaded)
    document = mapping(loaded)
    cards, strange = {}, []
    for key, entry in document.items():
        match = CARD.fullmatch(key)
        if match and isinstance(entry, dict):
            cards[int(match[1])] = strings(entry)
        elif key != "system" or not isinstance(entry, dict):
            strange.append(Unread(1, f"{key}: {entry!r}"[:200]))
    system = strings(mapping(document.get("system")))
    reading = lines.reading(
        RocmSmi(
            gpus=tuple(card(index, cards[index]) for index in sorted(cards)),
            pairs=pairs_of(system),
            driver=word(system.get("driver version")),
        )
    )
    return replace(reading, unread=(*reading.unread, *strange))


def strings(entry: dict[str, object]) -> dict[str, str]:
    """Keys in lower case without the colon at their end; numbers as text."""
    found = {}
    for key, value in entry.items():
        shown = str(value) if isinstance(value, int | float) else text(value)
        if shown is not None:
            found[key.strip().rstrip(":").lower()] = shown.strip()
    return found


def card(index: int, values: dict[str, str]) -> Gpu:
    """One card from its key-value pairs."""

    def first(what: str) -> str | None:
        known = (word(values.get(key)) for key in ALIASES[what])
        return next((value for value in known if value is not None), None)

    total, used = _mib(first("total")), _mib(first("used"))
    model = gfx.model(first("device"))
    return Gpu(
        index=index,
        uuid=unique_id(first("uuid")),
        name=_name(first("name"), values.get("device name")),
        vendor=Vendor.AMD,
        memory_mib=None if total is None else int(total),
        memory_free_mib=None if total is None or used is None else int(total - used),
        memory_used_mib=None if used is None else int(used),
        pci_bus_id=address(first("address") or ""),
        pcie=_link(first("link"), first("replays")),
        numa_node=_node(first("numa")),
        gfx=_gfx(first("gfx")) or (model.gfx if model else None),
        power_limit_w=number(first("limit")),
        power_draw_w=number(first("draw")),
        temperature_c=whole(first("edge") or first("junction")),
        vbios_version=first("vbios"),
        compute_partition=first("compute_partition"),
        memory_partition=first("memory_partition"),
        unified_memory=True if model and model.unified_memory else None,
    )


def unique_id(written: str | None) -> str | None:
    """The card's unique id as `0x` and 16 digits; cards that have none write 0 or N/A."""
    digits = (written or "").strip().lower().removeprefix("0x")
    if not re.fullmatch(r"[0-9a-f]{1,16}", digits) or not int(digits, 16):
        return None
    return f"0x{int(digits, 16):016x}"


def _name(series: str | None, device_name: str | None) -> str | None:
    """ROCm 4 and 5 print the vendor's number where pci.ids was not found."""
    for name in (series, word(device_name)):
        if name and not re.fullmatch(r"0x[0-9a-fA-F]{1,8}", name):
            return name
    return None


def _gfx(written: str | None) -> str | None:
    return written.lower() if written and GFX.fullmatch(written) else None


def _mib(amount: str | None) -> float | None:
    """Bytes as MiB."""
    value = int(amount) if amount and re.fullmatch(r"\d{1,16}", amount, re.ASCII) else None
    return None if value is None else value / 2**20


def _node(written: str | None) -> int | None:
    """-1 stands for a firmware that names no node."""
    value = whole(written)
    return value if value is not None and 0 <= value < 1024 else None


def _link(level: str | None, replays: str | None) -> PcieLink:
    """`1 (16.0GT/s x16)` is the level that is used now."""
    match = LEVEL.search(level or "")
    speed = number(match[1]) if match else None
    width = int(match[2]) if match else None
    return PcieLink(
        gen_current=generation(speed),
        width_current=width or None,
        replays=whole(replays),
    )


def pairs_of(system: dict[str, str]) -> tuple[GpuPair, ...]:
    """Pairs from the keys of `--showtopo --json`; hops and type of every pair."""
    types: dict[tuple[int, int], str] = {}
    for key, value in system.items():
        if (match := re.match(PAIR.pattern, key, re.IGNORECASE | re.ASCII)) and "type" in match[1]:
            a, b = sorted((int(match[2]), int(match[3])))
            if a != b:
                types[a, b] = value
    return tuple(pair_of(a, b, types[a, b]) for a, b in sorted(types))


def pair_of(a: int, b: int, link_type: str) -> GpuPair:
    """rocm-smi tells XGMI from PCIE, not the number of links nor the PCIe class."""
    links = {"XGMI": 1, "PCIE": 0}.get(link_type.strip().upper())
    return GpuPair(a, b, nvlinks=0, xgmi_links=links)


def read_text(printed: str) -> Reading[RocmSmi]:
    """The default table, `GPU[0] : key: value` lines and the tables of --showtopo, in any mix."""
    lines = Lines(printed)
    table = rocm_smi_text.concise(lines)
    shown, driver = rocm_smi_text.key_values(lines)
    matrix = rocm_smi_text.link_types(lines)
    gpus = {index: _row(index, row) for index, row in table.items()}
    for index, values in shown.items():
        gpus[index] = _merged(gpus.get(index), card(index, strings(dict(values))))
    known = {index for pair in matrix for index in pair}
    for index in known:
        gpus.setdefault(index, Gpu(index, vendor=Vendor.AMD))
    pairs = [
        pair_of(a, b, matrix[a, b]) for a, b in combinations(sorted(known), 2) if (a, b) in matrix
    ]
    ordered = tuple(gpus[index] for index in sorted(gpus))
    return lines.reading(RocmSmi(ordered, tuple(pairs), driver))


def _row(index: int, row: rocm_smi_text.Row) -> Gpu:
    model = gfx.model(row.device)
    return Gpu(
        index=index,
        name=row.name,
        vendor=Vendor.AMD,
        gfx=model.gfx if model else None,
        power_limit_w=row.power_limit_w,
        power_draw_w=row.power_draw_w,
        temperature_c=row.temperature_c,
        compute_partition=row.compute_partition,
        memory_partition=row.memory_partition,
        unified_memory=True if model and model.unified_memory else None,
    )


def _merged(row: Gpu | None, shown: Gpu) -> Gpu:
    """Two outputs about one card: the lines win, the table fills what they leave out."""
    if row is None:
        return shown
    absent = {k: v for k, v in vars(row).items() if getattr(shown, k) is None and v is not None}
    return replace(shown, **absent)


JSON_CARD = signature(r'^\s*"card\d+"\s*:\s*\{', sure=0.9)
JSON_KEYS = signature(
    r'^\s*"(VRAM Total Memory \(B\)|GPU use \(%\)|Card [Ss]eries|\(Topology\) Numa Node|'
    r'Average Graphics Package Power \(W\)|VBIOS version|Driver version|Unique ID)"\s*:',
    sure=0.8,
)
TABLE = signature(
    r"ROCm System Management Interface|End of ROCm SMI Log|^\s*(GPU|Device)\s.*PwrCap\s+VRAM%|"
    r"^\s*\d+\s.*\s\d+[Mm]hz\s.*\s(auto|low|high|manual|unknown)\s.*%\s+\d+%\s*$|"
    r"^GPU\[\d+\]\s*:\s*\S",
    sure=0.9,
)
TOPOLOGY = signature(
    r"(Weight|Hops|Link Type) between two GPUs|\(Topology\) .* between DRM devices", sure=0.93
)


def _json_sure(printed: str) -> float:
    return max(JSON_CARD(printed), JSON_KEYS(printed))


def _topology_sure(printed: str) -> float:
    return 0.0 if _json_sure(printed) else TOPOLOGY(printed)


KINDS: tuple[Kind, ...] = (
    Kind(
        "rocm-smi-json", "rocm-smi --json", _json_sure, read_json, "rocm-smi --showallinfo --json"
    ),
    Kind(
        "rocm-smi-showtopo", "rocm-smi --showtopo", _topology_sure, read_text, "rocm-smi --showtopo"
    ),
    Kind("rocm-smi", "rocm-smi, its table or its lines", TABLE, read_text, "rocm-smi"),
)
