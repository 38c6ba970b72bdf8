"""AMD cards by PCI id: the name that LLVM and ROCm give the architecture, and the product's name.

Names are those of libdrm's `data/amdgpu.ids` (device and revision id), architectures those of
LLVM's AMDGPU guide (processor table) and of `gfx_target_version` in Linux' amdgpu driver. Only
cards that models are served with, and graphics inside processors, which no plan counts on.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """What a PCI device id tells. `names` has one entry per revision id, 0 for any other."""

    gfx: str
    names: dict[int, str]
    integrated: bool = False
    unified_memory: bool = False


def _card(gfx: str, name: str, **revisions: str) -> Model:
    """A card; revisions are written `c8="..."`."""
    return Model(gfx, {0: name, **{int(key[1:], 16): value for key, value in revisions.items()}})


def _inside(gfx: str, name: str) -> Model:
    return Model(gfx, {0: name}, integrated=True)


MODELS: dict[int, Model] = {
    0x6860: _card("gfx900", "AMD Radeon Instinct MI25"),
    0x687F: _card("gfx900", "AMD Radeon RX Vega"),
    0x66A0: _card("gfx906", "AMD Radeon Instinct MI60 / MI50"),
    0x66A1: _card("gfx906", "AMD Radeon Instinct MI60 / MI50", x06="AMD Radeon Pro VII"),
    0x66AF: _card("gfx906", "AMD Radeon VII"),
    0x738C: _card("gfx908", "AMD Instinct MI100"),
    0x738E: _card("gfx908", "AMD Instinct MI100"),
    0x7408: _card("gfx90a", "AMD Instinct MI250X"),
    0x740C: _card("gfx90a", "AMD Instinct MI250X / MI250"),
    0x740F: _card("gfx90a", "AMD Instinct MI210"),
    0x74A0: Model("gfx942", {0: "AMD Instinct MI300A"}, unified_memory=True),
    0x74A1: _card("gfx942", "AMD Instinct MI300X"),
    0x74A2: _card("gfx942", "AMD Instinct MI308X"),
    0x74A5: _card("gfx942", "AMD Instinct MI325X"),
    0x74A8: _card("gfx942", "AMD Instinct MI308X HF"),
    0x74A9: _card("gfx942", "AMD Instinct MI300X HF"),
    0x74B5: _card("gfx942", "AMD Instinct MI300X VF"),
    0x74B6: _card("gfx942", "AMD Instinct MI308X"),
    0x74B9: _card("gfx942", "AMD Instinct MI325X VF"),
    0x74BD: _card("gfx942", "AMD Instinct MI300X HF"),
    0x75A0: _card("gfx950", "AMD Instinct MI350X"),
    0x75A3: _card("gfx950", "AMD Instinct MI355X"),
    0x75B0: _card("gfx950", "AMD Instinct MI350X VF"),
    0x75B3: _card("gfx950", "AMD Instinct MI355X VF"),
    0x73A1: _card("gfx1030", "AMD Radeon Pro V620"),
    0x73A3: _card("gfx1030", "AMD Radeon Pro W6800"),
    0x73A5: _card("gfx1030", "AMD Radeon RX 6950 XT"),
    0x73AF: _card("gfx1030", "AMD Radeon RX 6900 XT"),
    0x73BF: _card(
        "gfx1030",
        "AMD Radeon RX 6800 / 6900 series",
        xc0="AMD Radeon RX 6900 XT",
        xc1="AMD Radeon RX 6800 XT",
        xc3="AMD Radeon RX 6800",
    ),
    0x73DF: _card(
        "gfx1031",
        "AMD Radeon RX 6700 series",
        xc1="AMD Radeon RX 6700 XT",
        xc5="AMD Radeon RX 6700 XT",
    ),
    0x73EF: _card("gfx1032", "AMD Radeon RX 6650 XT"),
    0x73FF: _card(
        "gfx1032",
        "AMD Radeon RX 6600 series",
        xc1="AMD Radeon RX 6600 XT",
        xc7="AMD Radeon RX 6600",
    ),
    0x7448: _card("gfx1100", "AMD Radeon Pro W7900"),
    0x7449: _card("gfx1100", "AMD Radeon Pro W7800 48GB"),
    0x744A: _card("gfx1100", "AMD Radeon Pro W7900 Dual Slot"),
    0x744B: _card("gfx1100", "AMD Radeon Pro W7900D"),
    0x744C: _card(
        "gfx1100",
        "AMD Radeon RX 7900 series",
        xc8="AMD Radeon RX 7900 XTX",
        xcc="AMD Radeon RX 7900 XT",
        xce="AMD Radeon RX 7900 GRE",
        xcf="AMD Radeon RX 7900M",
    ),
    0x745E: _card("gfx1100", "AMD Radeon Pro W7800"),
    0x7460: _card("gfx1101", "AMD Radeon Pro V710"),
    0x7461: _card("gfx1101", "AMD Radeon Pro V710 MxGPU"),
    0x7470: _card("gfx1101", "AMD Radeon Pro W7700"),
    0x747E: _card(
        "gfx1101",
        "AMD Radeon RX 7700 / 7800 series",
        xc8="AMD Radeon RX 7800 XT",
        xff="AMD Radeon RX 7700 XT",
    ),
    0x7480: _card(
        "gfx1102",
        "AMD Radeon RX 7600 series",
        xc0="AMD Radeon RX 7600 XT",
        xcf="AMD Radeon RX 7600",
    ),
    0x7489: _card("gfx1102", "AMD Radeon Pro W7500"),
    0x7550: _card(
        "gfx1201",
        "AMD Radeon RX 9070 series",
        xc0="AMD Radeon RX 9070 XT",
        xc2="AMD Radeon RX 9070 GRE",
        xc3="AMD Radeon RX 9070",
    ),
    0x7551: _card(
        "gfx1201",
        "AMD Radeon AI PRO R9700",
        xc8="AMD Radeon AI PRO R9600D",
    ),
    0x7590: _card(
        "gfx1200",
        "AMD Radeon RX 9060 series",
        xc0="AMD Radeon RX 9060 XT",
        xc7="AMD Radeon RX 9060",
    ),
    0x15D8: _inside("gfx902", "Picasso"),
    0x15DD: _inside("gfx902", "Raven Ridge"),
    0x15E7: _inside("gfx90c", "Barcelo"),
    0x1636: _inside("gfx90c", "Renoir"),
    0x1638: _inside("gfx90c", "Cezanne"),
    0x164C: _inside("gfx90c", "Lucienne"),
    0x163F: _inside("gfx1033", "Van Gogh"),
    0x164D: _inside("gfx1035", "Rembrandt"),
    0x1681: _inside("gfx1035", "Rembrandt"),
    0x164E: _inside("gfx1036", "Raphael"),
    0x13C0: _inside("gfx1036", "Granite Ridge"),
    0x1506: _inside("gfx1037", "Mendocino"),
    0x15BF: _inside("gfx1103", "Phoenix"),
    0x15C8: _inside("gfx1103", "Phoenix"),
    0x1900: _inside("gfx1103", "Hawk Point"),
    0x1901: _inside("gfx1103", "Hawk Point"),
    0x150E: _inside("gfx1150", "Strix Point"),
    0x1586: _inside("gfx1151", "Strix Halo"),
    0x1114: _inside("gfx1152", "Krackan Point"),
}


def model(device: str | None) -> Model | None:
    """What is known of a PCI device id written `0x744c`; None for one that is not in the table."""
    number = _hex(device)
    return None if number is None else MODELS.get(number)


def product_name(device: str | None, revision: str | None = None) -> str | None:
    """Marketing name; several products share a device id and differ by the revision (`0xc8`)."""
    found = model(device)
    if found is None:
        return None
    return found.names.get(_hex(revision) or 0, found.names[0])


def gfx_of_target_version(version: int | None) -> str | None:
    """KFD's gfx_target_version as LLVM writes it: 90402 is gfx942, 90010 gfx90a, 110000 gfx1100.

    Two decimal digits each for minor version and stepping, printed in hexadecimal; 0 is a CPU.
    """
    if version is None or not 0 < version < 1_000_000:
        return None
    major, minor, stepping = version // 10_000, version // 100 % 100, version % 100
    if minor > 15 or stepping > 15:
        return None
    return f"gfx{major}{minor:x}{stepping:x}"


def _hex(written: str | None) -> int | None:
    digits = (written or "").strip().lower().removeprefix("0x")
    if not digits or len(digits) > 8 or not set(digits) <= set("0123456789abcdef"):
        return None
    return int(digits, 16)
