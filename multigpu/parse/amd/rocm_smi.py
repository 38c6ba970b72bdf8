"""What rocm-smi prints: `--json` of ROCm 4.3 to 7, its tables, and its `GPU[0] : key: value` lines.

In JSON every value is a string, `card0`.. are the cards, and `system` is none. Key names drift
between releases (see rocm_smi_card).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import combinations

from multigpu import gfx
from multigpu.hardware import Gpu, GpuPair, Vendor
from multigpu.parse import cut_json
from multigpu.parse.amd import rocm_smi_csv, rocm_smi_text
from multigpu.parse.amd.rocm_smi_card import card, strings
from multigpu.parse.reading import Kind, Lines, Reading, Unread, signature
from multigpu.parse.shape import mapping, word

CARD = re.compile(r"card(\d{1,4})", re.ASCII)
PAIR = re.compile(
    r"\(Topology\) (Link type|Hops) between DRM devices (\d{1,4}) and (\d{1,4})", re.ASCII
)


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


def read_csv(printed: str) -> Reading[RocmSmi]:
    """`rocm-smi ... --csv`."""
    found = rocm_smi_csv.read_cards(printed)
    return Reading(RocmSmi(found.value), found.unread, found.lines)


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
    for index, cells in rocm_smi_text.hardware(lines).items():
        shown[index] = {**cells, **shown.get(index, {})}
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


# The tool prints its JSON in one line; copies are often indented.
JSON_CARD = signature(r'^[ \t]*\{?[ \t]*"card\d+"[ \t]*:[ \t]*\{', sure=0.9)
JSON_KEYS = signature(
    r'^[ \t]*"(VRAM Total |GPU (use|memory use) \(%\)|GPU OverDrive value|Card (series|model|SKU)"|'
    r'Card (Series|Model)"|'
    r"\(Topology\) |(Average|Max|Current Socket) Graphics Package Power|Driver version|Unique ID|"
    r"Temperature \(Sensor |(VIS_VRAM|GTT) Total |PCIe Replay Count|[a-z]{1,8}clk clock |"
    r'[A-Z0-9 ]{2,12} firmware version")[^"]*"?[ \t]*:[ \t]*"',
    sure=0.8,
)
TABLE = signature(
    r"ROCm System Management Interface|End of ROCm SMI Log|"
    r"^[ \t]*(GPU|Device)[ \t].{0,200}PwrCap[ \t]+VRAM%|"
    r"^[ \t]{0,20}\d{1,3}[ \t].{0,120}[Mm]hz.{0,40}(auto|low|high|manual).{0,40}%[ \t]+\d+%[ \t]*$|"
    r"^GPU\[\d+\][ \t]*:[ \t]*\S",
    sure=0.9,
)
TOPOLOGY = signature(r"(Weight|Hops|Link Type|Link accessibility) between two GPUs", sure=0.93)


def _json_sure(printed: str) -> float:
    return max(JSON_CARD(printed), JSON_KEYS(printed))


def _topology_sure(printed: str) -> float:
    return 0.0 if _json_sure(printed) else TOPOLOGY(printed)


KINDS: tuple[Kind, ...] = (
    Kind(
        "rocm-smi-json", "rocm-smi --json", _json_sure, read_json, "rocm-smi --showallinfo --json"
    ),
    Kind("rocm-smi-csv", "rocm-smi --csv", rocm_smi_csv.recognise, read_csv),
    Kind(
        "rocm-smi-showtopo", "rocm-smi --showtopo", _topology_sure, read_text, "rocm-smi --showtopo"
    ),
    Kind("rocm-smi", "rocm-smi, its table or its lines", TABLE, read_text, "rocm-smi"),
)
