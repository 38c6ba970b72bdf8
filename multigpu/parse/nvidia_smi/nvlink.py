"""Reader of `nvidia-smi nvlink -s`: the rate of every NVLink of every GPU.

A card without NVLink, with inactive links or in MIG mode prints a sentence instead of links.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from multigpu.parse.reading import Kind, Lines, Reading, signature
from multigpu.parse.shape import number

GPU_LINE = re.compile(r"^\s*GPU (\d{1,4}):(.*)$", re.ASCII)
UUID = re.compile(r"\(UUID: *([A-Za-z0-9-]{1,80})", re.ASCII)
LINK_LINE = re.compile(r"^\s*Link \d{1,3}:(.*)$", re.ASCII)
INACTIVE = re.compile(r"inactive", re.IGNORECASE)
# What drivers 450 to 610 say of a card without rates.
REFUSALS = re.compile(
    r"does not have or support Nvlink|Unable to retrieve NVLink information|"
    r"Nvlink queries are not supported|all links are inactive",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Nvlinks:
    """The NVLinks of one GPU, in GB/s and in one direction; None for one that is inactive.

    `refusal` is what the tool says instead of rates.
    """

    index: int
    uuid: str | None = None
    name: str | None = None
    gb_s: tuple[float | None, ...] = ()
    refusal: str | None = None


def read_nvlink_status(text: str) -> Reading[tuple[Nvlinks, ...]]:
    """Every GPU in the text; links before the first GPU's line stay unread."""
    lines = Lines(text)
    found: dict[int, Nvlinks] = {}
    rates: dict[int, list[float | None]] = {}
    index: int | None = None
    for number_of_line, line in lines:
        if match := GPU_LINE.match(line):
            index = int(match[1])
            found.setdefault(index, _headed(index, match[2]))
        elif index is None:
            continue
        elif match := LINK_LINE.match(line):
            rate = _rate(match[1].strip())
            if rate is None and not INACTIVE.search(match[1]):
                continue
            rates.setdefault(index, []).append(rate)
        elif REFUSALS.search(line):
            found[index] = replace(found[index], refusal=line.strip()[:200])
        else:
            continue
        lines.mark(number_of_line)
    gpus = (replace(gpu, gb_s=tuple(rates.get(gpu.index, ()))) for gpu in found.values())
    return lines.reading(tuple(gpus))


def _headed(index: int, rest: str) -> Nvlinks:
    """The GPU by its own line: `NVIDIA A100-SXM4-80GB (UUID: GPU-...)`."""
    name, uuid = rest.partition(" (UUID")[0].strip(), UUID.search(rest)
    return Nvlinks(index, uuid[1] if uuid else None, name or None)


def _rate(cell: str) -> float | None:
    """`25 GB/s`, `26.562 GB/s`; None for `<inactive>` and for any other unit."""
    return number(cell) if cell.endswith("GB/s") else None


def read_nvlink(text: str) -> dict[int, tuple[float, ...]]:
    """GPU index -> GB/s of each active link in one direction; empty where it has none."""
    found = read_nvlink_status(text).value
    return {gpu.index: tuple(rate for rate in gpu.gb_s if rate is not None) for gpu in found}


RATE = r"\d{1,4}(?:\.\d{1,6})? GB/s"
LISTED = signature(
    r"^[ \t]*GPU \d{1,4}: .{0,200}$",
    rf"^[ \t]*Link \d{{1,3}}: (?:{RATE}|<inactive>)|(?i:{REFUSALS.pattern})",
)
PIECE = signature(rf"^[ \t]+Link \d{{1,3}}: {RATE}[ \t\r]*$", sure=0.6)

KIND = Kind(
    "nvidia-smi-nvlink-s",
    "rates of the NVLinks (nvlink -s)",
    lambda text: LISTED(text) or PIECE(text),
    read_nvlink_status,
    "nvidia-smi nvlink -s",
)
