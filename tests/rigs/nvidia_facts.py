"""What nvidia-smi of a given branch prints about one card, as a tree with the names of both forms.

Written from the outputs of drivers 418 to 610: which branch has which element, under which name.
"""

from __future__ import annotations

from multigpu.hardware import Gpu, GpuProcess, MigDevice
from tests.rigs.dialect import Dialect
from tests.rigs.nvidia_health import ecc_errors, reasons, remapped, retired
from tests.rigs.nvidia_nodes import (
    DEPRECATED,
    Node,
    group,
    leaf,
    nvml_bus_id,
    since,
    switched,
    watts,
)
from tests.rigs.sysfs import pci_ids


def card(gpu: Gpu, dialect: Dialect, busy: int | None = None) -> tuple[Node, ...]:
    """Every name that the readers could look at, and some that must not mislead them.

    `busy` is the utilization in percent, left out where nobody tells.
    """
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
        None if busy is None else utilization(busy, branch),
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
        group(
            "max_clocks",
            "Max Clocks",
            leaf("sm_clock", "SM", gpu.sm_clock_max_mhz, " MHz"),
            leaf("mem_clock", "Memory", gpu.memory_clock_max_mhz, " MHz"),
        ),
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


def utilization(percent: int, branch: int) -> Node:
    """Of the cores alone."""
    words = "GPU" if branch >= 570 else "Gpu"
    return group("utilization", "Utilization", leaf("gpu_util", words, percent, " %"))


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
        leaf("pci_device_id", "Device Id", _device_id(gpu)),
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


def _device_id(gpu: Gpu) -> str:
    """`0x220410DE`: device, then vendor."""
    vendor, device = pci_ids(gpu)
    return f"0x{device[2:]}{vendor[2:]}".upper().replace("X", "x")


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
