"""Where nvidia-smi prints each fact of a card: one table of paths for XML, `-q` text and CSV.

Paths are `pci/replay_counter` in XML, `pci/replays since reset` in text (lower case), `pstate` in
CSV (the header without its unit). Names repeat under different parents (`total` stands in fb, bar1,
ecc and MIG), so paths are always whole. Read in outputs of drivers 384 to 610; the CSV names are
those of `nvidia-smi --help-query-gpu`.
"""

from __future__ import annotations

# Gpu field (or what it is made of) -> paths, the one to believe first. XML, then text, then CSV.
_FB = ("fb_memory_usage", "fb memory usage", "memory")
_GEN = ("pci/pci_gpu_link_info/pcie_gen", "pci/gpu link info/pcie generation", "pcie.link.gen")
_WIDTH = ("pci/pci_gpu_link_info/link_widths", "pci/gpu link info/link width", "pcie.link.width")
_POWER = ("gpu_power_readings", "power_readings", "gpu power readings", "power readings")
_REMAPPED = ("remapped_rows", "remapped rows")
_SINGLE = "multiple_single_bit_retirement"

PATHS: dict[str, tuple[str, ...]] = {
    "index": ("index",),
    "uuid": ("uuid", "gpu uuid", "gpu_uuid"),
    "name": ("product_name", "product name", "name", "gpu_name"),
    "architecture": ("product_architecture", "product architecture"),
    "compute_cap": ("compute_cap",),
    "vbios_version": ("vbios_version", "vbios version"),
    "bus_id": ("pci/pci_bus_id", "pci/bus id", "pci.bus_id", "gpu_bus_id"),
    "persistence_mode": ("persistence_mode", "persistence mode"),
    # display_attached reads Yes on H100 and L40S boards without a connector (drivers 580, 595).
    "display_active": ("display_active", "display active"),
    "addressing_mode": ("addressing_mode", "addressing mode"),
    "c2c_mode": ("c2c_mode", "gpu c2c mode", "c2c.mode"),
    "virtualization": (
        "gpu_virtualization_mode/virtualization_mode",
        "gpu virtualization mode/virtualization mode",
    ),
    "mig": ("mig_mode/current_mig", "mig mode/current", "mig.mode.current"),
    "reset_required": ("gpu_reset_status/reset_required", "gpu reset status/reset required"),
    "recovery_action": ("gpu_recovery_action", "gpu recovery action"),
    "performance_state": ("performance_state", "performance state", "pstate"),
    "compute_mode": ("compute_mode", "compute mode"),
    "temperature": ("temperature/gpu_temp", "temperature/gpu current temp", "temperature.gpu"),
    "memory_total": (f"{_FB[0]}/total", f"{_FB[1]}/total", f"{_FB[2]}.total"),
    "memory_reserved": (f"{_FB[0]}/reserved", f"{_FB[1]}/reserved", f"{_FB[2]}.reserved"),
    "memory_used": (f"{_FB[0]}/used", f"{_FB[1]}/used", f"{_FB[2]}.used"),
    "memory_free": (f"{_FB[0]}/free", f"{_FB[1]}/free", f"{_FB[2]}.free"),
    "bar1": ("bar1_memory_usage/total", "bar1 memory usage/total"),
    "gen_current": (f"{_GEN[0]}/current_link_gen", f"{_GEN[1]}/current", f"{_GEN[2]}.current"),
    "gen_max": (f"{_GEN[0]}/max_link_gen", f"{_GEN[1]}/max", f"{_GEN[2]}.max"),
    "gen_gpu_max": (
        f"{_GEN[0]}/max_device_link_gen",
        f"{_GEN[1]}/device max",
        f"{_GEN[2]}.gpumax",
    ),
    "gen_host_max": (f"{_GEN[0]}/max_host_link_gen", f"{_GEN[1]}/host max", f"{_GEN[2]}.hostmax"),
    "width_current": (
        f"{_WIDTH[0]}/current_link_width",
        f"{_WIDTH[1]}/current",
        f"{_WIDTH[2]}.current",
    ),
    "width_max": (f"{_WIDTH[0]}/max_link_width", f"{_WIDTH[1]}/max", f"{_WIDTH[2]}.max"),
    "replays": ("pci/replay_counter", "pci/replays since reset"),
    # Since driver 570 the card's own limit is the current one; before 535 it is power_limit.
    "power_limit": (
        f"{_POWER[0]}/current_power_limit",
        f"{_POWER[1]}/power_limit",
        f"{_POWER[2]}/current power limit",
        f"{_POWER[3]}/power limit",
        "power.limit",
    ),
    "power_limit_default": (
        f"{_POWER[0]}/default_power_limit",
        f"{_POWER[1]}/default_power_limit",
        f"{_POWER[2]}/default power limit",
        f"{_POWER[3]}/default power limit",
        "power.default_limit",
    ),
    "power_limit_max": (
        f"{_POWER[0]}/max_power_limit",
        f"{_POWER[1]}/max_power_limit",
        f"{_POWER[2]}/max power limit",
        f"{_POWER[3]}/max power limit",
        "power.max_limit",
    ),
    # One second's average is what power.draw means on Ampere and newer; older cards have the other.
    "power_draw": (
        f"{_POWER[0]}/average_power_draw",
        f"{_POWER[0]}/power_draw",
        f"{_POWER[0]}/instant_power_draw",
        f"{_POWER[1]}/power_draw",
        f"{_POWER[2]}/average power draw",
        f"{_POWER[2]}/power draw",
        f"{_POWER[2]}/instantaneous power draw",
        f"{_POWER[3]}/power draw",
        "power.draw",
        "power.draw.average",
        "power.draw.instant",
    ),
    "memory_clock_max": (
        "max_clocks/mem_clock",
        "max clocks/memory",
        "clocks.max.memory",
        "clocks.max.mem",
    ),
    "sm_clock_max": ("max_clocks/sm_clock", "max clocks/sm", "clocks.max.sm"),
    "ecc": ("ecc_mode/current_ecc", "ecc mode/current", "ecc.mode.current"),
    "remapped_corr": (
        f"{_REMAPPED[0]}/remapped_row_corr",
        f"{_REMAPPED[1]}/correctable error",
        "remapped_rows.correctable",
    ),
    "remapped_unc": (
        f"{_REMAPPED[0]}/remapped_row_unc",
        f"{_REMAPPED[1]}/uncorrectable error",
        "remapped_rows.uncorrectable",
    ),
    "remapped_pending": (
        f"{_REMAPPED[0]}/remapped_row_pending",
        f"{_REMAPPED[1]}/pending",
        "remapped_rows.pending",
    ),
    "remapped_failure": (
        f"{_REMAPPED[0]}/remapped_row_failure",
        f"{_REMAPPED[1]}/remapping failure occurred",
        "remapped_rows.failure",
    ),
    "retired_single": (
        f"retired_pages/{_SINGLE}/retired_count",
        "retired pages/single bit ecc",
        "retired_pages.single_bit_ecc.count",
        "retired_pages.sbe",
    ),
    "retired_double": (
        "retired_pages/double_bit_retirement/retired_count",
        "retired pages/double bit ecc",
        "retired_pages.double_bit.count",
        "retired_pages.dbe",
    ),
    "retired_pending": (
        "retired_pages/pending_blacklist",
        "retired_pages/pending_retirement",
        "retired pages/pending page blacklist",
        "retired_pages.pending",
    ),
    "fabric_state": ("fabric/state", "fabric.state"),
}

# Of a process, of a MIG device; the paths of these start at their own block.
PID = ("pid", "process id")
PROCESS_NAME = ("process_name", "process id/name")
USED_MEMORY = ("used_memory", "process id/used gpu memory")
SLICE_INDEX = ("index",)
SLICE_UUID = ("uuid", "mig uuid")
SLICE_MEMORY = (
    "fb_memory_usage/total",
    "shared_fb_memory_usage/total",
    "fb memory usage/total",
    "shared fb memory usage/total",
)

# Volatile ECC counts: the total where the driver prints one (up to Volta, and CSV), else the sum of
# what it prints (Turing and newer; the parity and SEC-DED parts since driver 550).
_ECC = ("ecc_errors/volatile", "ecc errors/volatile", "ecc.errors")
ECC_CORRECTED: tuple[tuple[str, ...], ...] = (
    (
        f"{_ECC[0]}/single_bit/total",
        f"{_ECC[1]}/single bit/total",
        f"{_ECC[2]}.corrected.volatile.total",
    ),
    (
        f"{_ECC[0]}/sram_correctable",
        f"{_ECC[0]}/dram_correctable",
        f"{_ECC[1]}/sram correctable",
        f"{_ECC[1]}/dram correctable",
        f"{_ECC[2]}.corrected.volatile.sram",
        f"{_ECC[2]}.corrected.volatile.dram",
    ),
)
ECC_UNCORRECTED: tuple[tuple[str, ...], ...] = (
    (
        f"{_ECC[0]}/double_bit/total",
        f"{_ECC[1]}/double bit/total",
        f"{_ECC[2]}.uncorrected.volatile.total",
    ),
    (
        f"{_ECC[0]}/sram_uncorrectable",
        f"{_ECC[0]}/sram_uncorrectable_parity",
        f"{_ECC[0]}/sram_uncorrectable_secded",
        f"{_ECC[0]}/dram_uncorrectable",
        f"{_ECC[1]}/sram uncorrectable",
        f"{_ECC[1]}/sram uncorrectable parity",
        f"{_ECC[1]}/sram uncorrectable sec-ded",
        f"{_ECC[1]}/dram uncorrectable",
        f"{_ECC[2]}.uncorrected.volatile.sram",
        f"{_ECC[2]}.uncorrected.volatile.dram",
    ),
)
