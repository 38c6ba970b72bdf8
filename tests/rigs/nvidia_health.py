"""What nvidia-smi prints of a card's health: what holds its clocks down, and its memory errors."""

from __future__ import annotations

from multigpu.hardware import Gpu
from tests.rigs.nvidia_nodes import Node, group, leaf, yes

REASONS = (
    ("gpu_idle", "Idle"),
    ("applications_clocks_setting", "Applications Clocks Setting"),
    ("sw_power_cap", "SW Power Cap"),
    ("hw_slowdown", "HW Slowdown"),
    ("hw_thermal_slowdown", "HW Thermal Slowdown"),
    ("hw_power_brake_slowdown", "HW Power Brake Slowdown"),
    ("sync_boost", "Sync Boost"),
    ("sw_thermal_slowdown", "SW Thermal Slowdown"),
    ("display_clocks_setting", "Display Clock Setting"),
)
UNDER_HW_SLOWDOWN = {"hw_thermal_slowdown", "hw_power_brake_slowdown"}


def reasons(gpu: Gpu, branch: int) -> Node:
    """Two of the reasons stand under HW Slowdown in the text; idle when nothing else holds."""
    kind = "event" if branch >= 535 else "throttle"
    active = {*gpu.throttle_reasons} or {"gpu_idle"}
    heading = f"Clocks {kind.capitalize()} Reasons"
    nodes = [
        leaf(
            f"clocks_{kind}_reason_{name}",
            f"    {words}" if name in UNDER_HW_SLOWDOWN else words,
            "Active" if name in active else "Not Active",
        )
        for name, words in REASONS
    ]
    return group(f"clocks_{kind}_reasons", heading, *nodes)


def ecc_errors(gpu: Gpu, branch: int) -> Node:
    """Single and double bit up to Volta; SRAM and DRAM since Turing, parity apart since 550."""
    good, bad = gpu.ecc_corrected, gpu.ecc_uncorrected
    if gpu.architecture in ("Pascal", "Volta"):
        counts: tuple[Node, ...] = (
            _bits("single_bit", "Single Bit", good),
            _bits("double_bit", "Double Bit", bad),
        )
    else:
        none = None if bad is None else 0
        parity = (
            leaf("sram_uncorrectable_parity", "SRAM Uncorrectable Parity", none),
            leaf("sram_uncorrectable_secded", "SRAM Uncorrectable SEC-DED", none),
        )
        counts = (
            leaf("sram_correctable", "SRAM Correctable", None if good is None else good // 2),
            *(
                parity
                if branch >= 550
                else [leaf("sram_uncorrectable", "SRAM Uncorrectable", none)]
            ),
            leaf(
                "dram_correctable", "DRAM Correctable", None if good is None else good - good // 2
            ),
            leaf("dram_uncorrectable", "DRAM Uncorrectable", bad),
        )
    aggregate = leaf("dram_correctable", "DRAM Correctable", 99)
    return group(
        "ecc_errors",
        "ECC Errors",
        group("volatile", "Volatile", *counts),
        group("aggregate", "Aggregate", aggregate),
    )


def _bits(xml: str, words: str, total: int | None) -> Node:
    return group(
        xml,
        words,
        leaf("device_memory", "Device Memory", total),
        leaf("register_file", "Register File", None if total is None else 0),
        leaf("total", "Total", total),
    )


def retired(gpu: Gpu) -> Node:
    """The XML counts in elements of their own."""
    count = gpu.retired_pages
    double = None if count is None else count // 3
    single = None if count is None or double is None else count - double
    pending = yes(gpu.retired_pages_pending)
    return group(
        "retired_pages",
        "Retired Pages",
        group("multiple_single_bit_retirement", None, leaf("retired_count", None, single)),
        group("double_bit_retirement", None, leaf("retired_count", None, double)),
        leaf("pending_blacklist", None, pending),
        leaf(None, "Single Bit ECC", single),
        leaf(None, "Double Bit ECC", double),
        leaf(None, "Pending Page Blacklist", pending),
    )


def remapped(gpu: Gpu) -> Node:
    """N/A in one word where the card has no row remapper."""
    rows = gpu.remapped_rows
    if rows is None:
        return leaf("remapped_rows", "Remapped Rows", None)
    return group(
        "remapped_rows",
        "Remapped Rows",
        leaf("remapped_row_corr", "Correctable Error", rows.correctable),
        leaf("remapped_row_unc", "Uncorrectable Error", rows.uncorrectable),
        leaf("remapped_row_pending", "Pending", yes(rows.pending)),
        leaf("remapped_row_failure", "Remapping Failure Occurred", yes(rows.failure)),
    )
