"""What nvidia-smi of a given branch prints about one card, as a tree with the names of both forms.

Written from the outputs of drivers 418 to 610: which branch has which element, under which name.
A `Node` has the XML's name, the words of `-q`, and a cell or children; a name that is None is not
printed in that form. `NA` stands for what the driver does not know.
"""

from __future__ import annotations

from dataclasses import dataclass

from multigpu.hardware import Gpu, GpuProcess, MigDevice
from tests.rigs.dialect import Dialect

NA = "N/A"
DEPRECATED = "Requested functionality has been deprecated"
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


@dataclass(frozen=True)
class Node:
    """One name with a cell, with children, or (in the text) with both."""

    xml: str | None
    words: str | None
    cell: object = None
    children: tuple[Node, ...] | None = None


def leaf(xml: str | None, words: str | None, cell: object, unit: str = "") -> Node:
    """A cell with its unit; None prints as N/A."""
    return Node(xml, words, NA if cell is None else f"{cell}{unit}")


def group(xml: str | None, words: str | None, *children: Node | None) -> Node:
    """Names under one heading; None stands for what this branch does not print."""
    return Node(xml, words, children=tuple(child for child in children if child is not None))


def since(branch: int, dialect: Dialect, node: Node) -> Node | None:
    """The node from that branch on."""
    return node if dialect.branch >= branch else None


def switched(value: bool | None) -> str:
    """Enabled, Disabled or N/A."""
    return NA if value is None else "Enabled" if value else "Disabled"


def yes(value: bool | None) -> str:
    """Yes, No or N/A."""
    return NA if value is None else "Yes" if value else "No"


def nvml_bus_id(address: str | None) -> str:
    """`00000000:41:00.0`: eight digits of domain, upper case."""
    return f"0000{address}".upper() if address else NA


def watts(value: float | None) -> str:
    """`350.00 W`."""
    return NA if value is None else f"{value:.2f} W"


def card(gpu: Gpu, dialect: Dialect) -> tuple[Node, ...]:
    """Every name that the readers could look at, and some that must not mislead them."""
    branch = dialect.branch
    nodes = (
        leaf("product_name", "Product Name", gpu.name),
        leaf("product_brand", "Product Brand", "NVIDIA"),
        since(510, dialect, leaf("product_architecture", "Product Architecture", gpu.architecture)),
        leaf("display_mode", "Display Mode", DEPRECATED if branch >= 580 else "Enabled"),
        since(580, dialect, leaf("display_attached", "Display Attached", "Yes")),
        leaf("display_active", "Display Active", switched(gpu.display_attached)),
        leaf("persistence_mode", "Persistence Mode", switched(gpu.persistence_mode)),
        since(535, dialect, leaf("addressing_mode", "Addressing Mode", _addressing(gpu, branch))),
        since(450, dialect, mig_mode(gpu)),
        leaf("serial", "Serial Number", None),
        leaf("uuid", "GPU UUID", gpu.uuid),
        leaf("minor_number", "Minor Number", 7 - gpu.index % 8),
        leaf("vbios_version", "VBIOS Version", gpu.vbios_version),
        since(555, dialect, leaf("c2c_mode", "GPU C2C Mode", "Disabled")),
        group(
            "gpu_virtualization_mode",
            "GPU Virtualization Mode",
            leaf("virtualization_mode", "Virtualization Mode", "None"),
        ),
        since(
            570, dialect, leaf("gpu_recovery_action", "GPU Recovery Action", gpu.recovery_action)
        ),
        pci(gpu, dialect),
        leaf("fan_speed", "Fan Speed", None),
        leaf("performance_state", "Performance State", gpu.performance_state),
        reasons(gpu, branch),
        memory(gpu, dialect),
        group(
            "bar1_memory_usage",
            "BAR1 Memory Usage",
            leaf("total", "Total", gpu.bar1_memory_mib, " MiB"),
            leaf("used", "Used", 1, " MiB"),
        ),
        leaf("compute_mode", "Compute Mode", gpu.compute_mode),
        group(
            "ecc_mode",
            "ECC Mode" if branch >= 535 else "Ecc Mode",
            leaf("current_ecc", "Current", switched(gpu.ecc)),
            leaf("pending_ecc", "Pending", switched(gpu.ecc)),
        ),
        ecc_errors(gpu, branch),
        retired(gpu),
        since(450, dialect, remapped(gpu)),
        group(
            "temperature",
            "Temperature",
            leaf("gpu_temp", "GPU Current Temp", gpu.temperature_c, " C"),
            leaf("gpu_temp_max_threshold", "GPU Shutdown Temp", 98, " C"),
        ),
        *power(gpu, branch),
        group("clocks", "Clocks", leaf("sm_clock", "SM", "210 MHz")),
        group("max_clocks", "Max Clocks", leaf("sm_clock", "SM", "2100 MHz")),
        since(
            525,
            dialect,
            group(
                "fabric",
                "Fabric",
                leaf("state", "State", gpu.fabric_state),
                leaf("status", "Status", None),
            ),
        ),
    )
    return tuple(node for node in nodes if node is not None)


def _addressing(gpu: Gpu, branch: int) -> str:
    if gpu.unified_memory:
        return "ATS"
    return "HMM" if branch >= 570 else "None"


def mig_mode(gpu: Gpu) -> Node:
    """Current and pending."""
    return group(
        "mig_mode",
        "MIG Mode",
        leaf("current_mig", "Current", switched(gpu.mig)),
        leaf("pending_mig", "Pending", switched(gpu.mig)),
    )


def pci(gpu: Gpu, dialect: Dialect) -> Node:
    """Address, link and replays."""
    link, at = gpu.pcie, nvml_bus_id(gpu.pci_bus_id)
    return group(
        "pci",
        "PCI",
        leaf("pci_bus", "Bus", f"0x{at[9:11]}"),
        leaf("pci_device_id", "Device Id", "0x220410DE"),
        leaf("pci_bus_id", "Bus Id", at),
        group(
            "pci_gpu_link_info",
            "GPU Link Info",
            group(
                "pcie_gen",
                "PCIe Generation",
                leaf("max_link_gen", "Max", link.gen_max),
                leaf("current_link_gen", "Current", link.gen_current),
                since(525, dialect, leaf("device_current_link_gen", "Device Current", 1)),
                since(525, dialect, leaf("max_device_link_gen", "Device Max", link.gen_gpu_max)),
                since(525, dialect, leaf("max_host_link_gen", "Host Max", link.gen_host_max)),
            ),
            group(
                "link_widths",
                "Link Width",
                leaf("max_link_width", "Max", link.width_max, "x"),
                leaf("current_link_width", "Current", link.width_current, "x"),
            ),
        ),
        leaf("replay_counter", "Replays Since Reset", link.replays),
        leaf("tx_util", "Tx Throughput", "0 KB/s"),
    )


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


def memory(gpu: Gpu, dialect: Dialect) -> Node:
    """The framebuffer; `reserved` since 510, counted as used before."""
    return group(
        "fb_memory_usage",
        "FB Memory Usage",
        leaf("total", "Total", gpu.memory_mib, " MiB"),
        since(510, dialect, leaf("reserved", "Reserved", gpu.memory_reserved_mib, " MiB")),
        leaf("used", "Used", gpu.memory_used_mib, " MiB"),
        leaf("free", "Free", gpu.memory_free_mib, " MiB"),
    )


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


def power(gpu: Gpu, branch: int) -> tuple[Node, ...]:
    """`power_readings` up to 530; since 535 the GPU and the module apart, draw in two since 570."""
    draw, limit = watts(gpu.power_draw_w), watts(gpu.power_limit_w)
    default = leaf("default_power_limit", "Default Power Limit", watts(gpu.power_limit_default_w))
    largest = leaf("max_power_limit", "Max Power Limit", watts(gpu.power_limit_max_w))
    if branch < 535:
        cells = (
            leaf("power_draw", "Power Draw", draw),
            leaf("power_limit", "Power Limit", limit),
            default,
            leaf("enforced_power_limit", "Enforced Power Limit", limit),
            largest,
        )
        return (group("power_readings", "Power Readings", *cells),)
    draws = (leaf("power_draw", "Power Draw", draw),)
    if branch >= 570:
        draws = (
            leaf("average_power_draw", "Average Power Draw", draw),
            leaf("instant_power_draw", "Instantaneous Power Draw", "1.00 W"),
        )
    current = leaf("current_power_limit", "Current Power Limit", limit)
    asked = leaf("requested_power_limit", "Requested Power Limit", limit)
    none = leaf("current_power_limit", "Current Power Limit", None)
    return (
        group("gpu_power_readings", "GPU Power Readings", *draws, current, asked, default, largest),
        # The text has a blank behind this heading.
        group("gpu_memory_power_readings", "GPU Memory Power Readings ", draws[0]),
        group("module_power_readings", "Module Power Readings", none),
    )


def mig_device(device: MigDevice, dialect: Dialect) -> Node:
    """No profile and no uuid in this output; shared memory is called so since 580."""
    shared = "Shared FB Memory Usage" if dialect.branch >= 580 else "FB Memory Usage"
    return group(
        "mig_device",
        "MIG Device",
        leaf("index", "Index", device.index),
        leaf("gpu_instance_id", "GPU Instance ID", device.index + 7),
        leaf("compute_instance_id", "Compute Instance ID", 0),
        group("fb_memory_usage", shared, leaf("total", "Total", device.memory_mib, " MiB")),
    )


def process(held: GpuProcess, dialect: Dialect) -> Node:
    """Instance ids since 450."""
    return group(
        "process_info",
        None,
        since(450, dialect, leaf("gpu_instance_id", "GPU instance ID", None)),
        since(450, dialect, leaf("compute_instance_id", "Compute instance ID", None)),
        leaf("pid", "Process ID", held.pid),
        leaf("type", "    Type", "C"),
        leaf("process_name", "    Name", held.name or ""),
        leaf("used_memory", "    Used GPU Memory", held.used_memory_mib, " MiB"),
    )
