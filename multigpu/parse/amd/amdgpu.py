"""What the amdgpu driver shows of a card in sysfs: memory, power, partitions, errors.

File names and units: `Documentation/gpu/amdgpu` (driver-misc, thermal, ras) of Linux 6.12: memory
in bytes, power in microwatts, temperature in thousandths of a degree. A file that a card or a
kernel has not is absent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from multigpu.parse.amd.rocm_smi_card import unique_id
from multigpu.parse.reading import Reading, Unread
from multigpu.parse.shape import word

BYTES = ("mem_info_vram_total", "mem_info_vram_used", "mem_info_vis_vram_total")
MICROWATTS = ("power1_cap", "power1_cap_default", "power1_cap_max")
COUNTS = re.compile(r"ue:\s{0,8}(\d{1,15})\s{1,8}ce:\s{0,8}(\d{1,15})", re.ASCII | re.IGNORECASE)
PARTITION = re.compile(r"[SDTQC]PX|NPS\d{1,2}", re.ASCII)
RENDER = re.compile(r"renderD\d{1,4}", re.ASCII)
READ = {
    *BYTES,
    *MICROWATTS,
    *("power1_average", "power1_input", "temp1_input", "vbios_version", "unique_id"),
    *("current_compute_partition", "current_memory_partition", "product_name", "revision"),
    *("gpu_busy_percent", "power_dpm_force_performance_level", "ras/umc_err_count", "drm"),
    *("xgmi_hive_info/xgmi_hive_id", "pp_dpm_pcie"),
}


@dataclass(frozen=True)
class AmdgpuCard:
    """One card's files. `memory_visible_mib` is the window that the processor and peers reach."""

    memory_mib: int | None = None
    memory_used_mib: int | None = None
    memory_visible_mib: int | None = None
    unique_id: str | None = None
    product_name: str | None = None
    revision: str | None = None
    vbios_version: str | None = None
    compute_partition: str | None = None
    memory_partition: str | None = None
    power_limit_w: float | None = None
    power_limit_default_w: float | None = None
    power_limit_max_w: float | None = None
    power_draw_w: float | None = None
    temperature_c: int | None = None
    busy_percent: int | None = None
    performance_level: str | None = None
    hive_id: str | None = None
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    render_node: str | None = None


def read_amdgpu(cards: Mapping[str, Mapping[str, str]]) -> Reading[dict[str, AmdgpuCard]]:
    """PCI address -> card, from PCI address -> {file: text}."""
    found = {address: _card(files) for address, files in cards.items()}
    unread = tuple(
        Unread(1, f"{address}/{name}"[:200])
        for address, files in cards.items()
        for name in files
        if name not in READ
    )
    return Reading(found, unread, sum(len(files) for files in cards.values()))


def _card(files: Mapping[str, str]) -> AmdgpuCard:
    total, used, visible = (_mib(files.get(name)) for name in BYTES)
    cap, default, largest = (_scaled(files.get(name), 1e6) for name in MICROWATTS)
    draw = _scaled(files.get("power1_average"), 1e6)
    celsius = _scaled(files.get("temp1_input"), 1e3)
    counts = COUNTS.search(files.get("ras/umc_err_count", ""))
    render = RENDER.search(files.get("drm", ""))
    hive = _count(files.get("xgmi_hive_info/xgmi_hive_id"), 20)
    return AmdgpuCard(
        memory_mib=total or None,
        memory_used_mib=used,
        memory_visible_mib=visible or None,
        unique_id=unique_id(files.get("unique_id")),
        product_name=word(files.get("product_name")),
        revision=word(files.get("revision")),
        vbios_version=word(files.get("vbios_version")),
        compute_partition=_partition(files.get("current_compute_partition")),
        memory_partition=_partition(files.get("current_memory_partition")),
        power_limit_w=cap or None,
        power_limit_default_w=default or None,
        power_limit_max_w=largest or None,
        power_draw_w=_scaled(files.get("power1_input"), 1e6) if draw is None else draw,
        temperature_c=None if celsius is None else int(celsius),
        busy_percent=_count(files.get("gpu_busy_percent"), 3),
        performance_level=word(files.get("power_dpm_force_performance_level")),
        hive_id=f"0x{hive:016x}" if hive and hive < 1 << 64 else None,
        ecc_corrected=int(counts[2]) if counts else None,
        ecc_uncorrected=int(counts[1]) if counts else None,
        render_node=f"/dev/dri/{render[0]}" if render else None,
    )


def _count(written: str | None, digits: int = 18) -> int | None:
    match = re.fullmatch(rf"\s{{0,8}}(\d{{1,{digits}}})\s{{0,8}}", written or "", re.ASCII)
    return int(match[1]) if match else None


def _mib(written: str | None) -> int | None:
    count = _count(written)
    return None if count is None else count >> 20


def _scaled(written: str | None, scale: float) -> float | None:
    match = re.fullmatch(r"\s{0,8}(-?\d{1,15})\s{0,8}", written or "", re.ASCII)
    return int(match[1]) / scale if match else None


def _partition(written: str | None) -> str | None:
    match = PARTITION.fullmatch((written or "").strip().upper())
    return match[0] if match else None
