"""What rocm-smi of ROCm 4.3 to 7 prints about a simulated host: JSON, table, topology, lines."""

from __future__ import annotations

import csv
import io
import json

from multigpu.hardware import Gpu, Host
from tests.rigs.amd_ids import device_id, release, revision_id, table
from tests.rigs.dialect import Dialect

GT_PER_S = {1: "2.5", 2: "5.0", 3: "8.0", 4: "16.0", 5: "32.0"}
LOW_POWER = (
    "WARNING: AMD GPU device(s) is/are in a low-power state. Check power control/runtime_status"
)


def rocm_smi_json(host: Host, dialect: Dialect) -> str:
    """`rocm-smi --showallinfo --showtopo --showmeminfo all --json`: warnings, then one line."""
    cards = {f"card{gpu.index}": card(gpu, release(dialect.rocm)) for gpu in host.gpus}
    system = {"Driver version": "6.3.6"}
    for pair in host.pairs:
        between = f"between DRM devices {pair.a} and {pair.b}"
        system[f"(Topology) Weight {between}"] = "15" if pair.xgmi_links else "40"
        system[f"(Topology) Hops {between}"] = "1" if pair.xgmi_links else "2"
        system[f"(Topology) Link type {between}"] = "XGMI" if pair.xgmi_links else "PCIE"
    warning = f"{LOW_POWER}\n\n" if release(dialect.rocm) >= (6, 1) else ""
    return warning + json.dumps({**cards, "system": system}) + "\n"


def rocm_smi_csv(host: Host, dialect: Dialect) -> str:
    """`rocm-smi --showallinfo --showmeminfo all --csv`: a column per key, a row per card."""
    cards = [card(gpu, release(dialect.rocm)) for gpu in host.gpus]
    keys = list(dict.fromkeys(key for keys in cards for key in keys))
    printed = io.StringIO()
    table = csv.writer(printed, lineterminator="\n")
    table.writerow(["device", *keys])
    for gpu, values in zip(host.gpus, cards, strict=True):
        table.writerow([f"card{gpu.index}", *(values.get(key, "N/A") for key in keys)])
    return f"{printed.getvalue()}\n"


def card(gpu: Gpu, version: tuple[int, ...]) -> dict[str, str]:
    """One card's keys in the spelling of a release; every value is a string."""
    total, used = (gpu.memory_mib or 0) << 20, (gpu.memory_used_mib or 0) << 20
    width, gen = gpu.pcie.width_current, gpu.pcie.gen_current
    power = "Average" if version < (6, 0) else "Current Socket"
    new = version >= (6, 1, 2)
    keys = {
        **identity(gpu, version),
        "Unique ID": f"{int(gpu.uuid or '0', 16):#x}",
        "VBIOS version": gpu.vbios_version or "N/A",
        "Temperature (Sensor edge) (C)": "N/A" if gpu.gfx == "gfx942" else f"{gpu.temperature_c}.0",
        "Temperature (Sensor junction) (C)": f"{gpu.temperature_c}.0",
        "sclk clock speed:": "(300Mhz)",
        "sclk clock level:": "0",
        "pcie clock level": f"1 ({GT_PER_S[gen or 1]}GT/s x{width})",
        "Performance Level": "auto",
        "Max Graphics Package Power (W)": f"{gpu.power_limit_w}",
        f"{power} Graphics Package Power (W)": f"{gpu.power_draw_w}",
        "0": "2.5GT/s x1",
        "1": f"{GT_PER_S[gen or 1]}GT/s x{width} *",
        "GPU use (%)": "0",
        "GPU Memory Allocated (VRAM%)" if new else "GPU memory use (%)": "3",
        "PCIe Replay Count": f"{gpu.pcie.replays}",
        "PCI Bus": (gpu.pci_bus_id or "").upper(),
        "VRAM Total Memory (B)": str(total),
        "VRAM Total Used Memory (B)": str(used),
        "(Topology) Numa Node": str(-1 if gpu.numa_node is None else gpu.numa_node),
        "(Topology) Numa Affinity": "4294967295",
    }
    if version >= (5, 7) and gpu.compute_partition:
        keys["Compute Partition"] = gpu.compute_partition
        keys["Memory Partition"] = gpu.memory_partition or "N/A"
    return keys


def identity(gpu: Gpu, version: tuple[int, ...]) -> dict[str, str]:
    """Ids and names. Without pci.ids ROCm 4.3 shows the vendor's number as the card's series."""
    device = f"{device_id(gpu):#x}"
    if version < (6, 0):
        series = "0x1002" if version < (5, 0) else f"{gpu.name}"
        return {"GPU ID": device, "Card series": series, "Card model": "0x1002"}
    if version < (6, 1, 2):
        return {
            "Device ID": device,
            "Device Rev": f"{revision_id(gpu):#x}",
            "Card series": f"{gpu.name}",
        }
    return {
        "Device Name": f"{gpu.name}",
        "Device ID": device,
        "Device Rev": f"{revision_id(gpu):#04x}",
        "Subsystem ID": "0x0c34",
        "GUID": str(20000 + gpu.index),
        "Card Series": f"{gpu.name}",
        "Card Model": device,
        "Node ID": str(gpu.index + 1),
        "GFX Version": f"{gpu.gfx}",
    }


def rocm_smi_lines(host: Host, dialect: Dialect) -> str:
    """`rocm-smi --showallinfo` without --json: a line per key."""
    lines = [title("ROCm System Management Interface"), title("Concise Info")]
    for gpu in host.gpus:
        values = card(gpu, release(dialect.rocm)).items()
        lines += [f"GPU[{gpu.index}]\t\t: {key.rstrip(':')}: \t\t{value}" for key, value in values]
    return "\n".join([*lines, "Driver version: 6.3.6", title("End of ROCm SMI Log"), ""])


def rocm_smi_table(host: Host, dialect: Dialect) -> str:
    """`rocm-smi`: a line per card, two in 6.0 and 6.1, and one with node and ids in 6.2."""
    version = release(dialect.rocm)
    if version < (6, 0):
        rows = [["GPU", *COLUMNS[:2], "SCLK", "MCLK", "Fan", "Perf", "PwrCap", "VRAM%", "GPU%"]]
        rows += [old_row(gpu) for gpu in host.gpus]
        body = table(rows)
    elif version < (6, 1, 2):
        body = two_lines(host)
    else:
        body = with_ids(host)
    rule = "=" * max(len(line) for line in body)
    warning = [LOW_POWER, "", "Exception caught: map::at"] if version >= (6, 1) else []
    head = [title("ROCm System Management Interface"), title("Concise Info")]
    return "\n".join([*warning, *head, *body, rule, title("End of ROCm SMI Log"), ""])


COLUMNS = ("Temp", "AvgPwr")
NEW_COLUMNS = (
    *("Temp", "Power", "Partitions", "SCLK", "MCLK", "Fan", "Perf", "PwrCap", "VRAM%", "GPU%"),
)


def old_row(gpu: Gpu) -> list[str]:
    return [
        *(str(gpu.index), f"{gpu.temperature_c}.0c", f"{gpu.power_draw_w}W", "1319Mhz", "800Mhz"),
        *("0.0%", "auto", f"{gpu.power_limit_w}W", "  0%", " 0%"),
    ]


def two_lines(host: Host) -> list[str]:
    """6.0 and 6.1: the name, cut to 20 characters, stands below."""
    rows = [["Device", "[Model : Revision]", *NEW_COLUMNS]]
    rows += [["", "Name (20 chars)", "(Edge)", "(Avg)", "(Mem, Compute)", *[""] * 7]]
    for gpu in host.gpus:
        ids = f"[0x{device_id(gpu):04x} : 0x{revision_id(gpu):02x}]"
        rows += [[str(gpu.index), ids, *state(gpu, new=False)]]
        rows += [["", f"{gpu.name}"[:20], *[""] * 10]]
    return table(rows)


def with_ids(host: Host) -> list[str]:
    """6.2 and newer: KFD's node, the device id and a number that ROCm gives the card."""
    rows = [["Device", "Node", "IDs", *NEW_COLUMNS]]
    rows += [["", "", "(DID,     GUID)", "(Edge)", "(Socket)", "(Mem, Compute, ID)", *[""] * 7]]
    for gpu in host.gpus:
        ids = f"0x{device_id(gpu):04x},   {20000 + gpu.index}"
        rows += [[str(gpu.index), str(gpu.index + 1), ids, *state(gpu, new=True)]]
    return table(rows)


def state(gpu: Gpu, new: bool) -> list[str]:
    modes = f"{gpu.memory_partition or 'N/A'}, {gpu.compute_partition or 'N/A'}"
    return [
        *(f"{gpu.temperature_c}.0°C", f"{gpu.power_draw_w}W", f"{modes}, 0" if new else modes),
        *("132Mhz", "900Mhz", "0%", "auto", f"{gpu.power_limit_w}W", "17%", "0%"),
    ]


def rocm_smi_topo(host: Host, dialect: Dialect) -> str:
    """`rocm-smi --showtopo`: matrices of weight, hops and link type, and the NUMA nodes."""
    lines = [title("ROCm System Management Interface")]
    for name, same, xgmi, pcie in (
        ("Weight", "0", "15", "40"),
        ("Hops", "0", "1", "2"),
        ("Link Type", "0", "XGMI", "PCIE"),
    ):
        lines += [title(f"{name} between two GPUs"), *matrix(host, same, xgmi, pcie), ""]
    lines.append(title("Numa Nodes"))
    for gpu in host.gpus:
        node = -1 if gpu.numa_node is None else gpu.numa_node
        lines.append(f"GPU[{gpu.index}]\t\t: (Topology) Numa Node: {node}")
        lines.append(f"GPU[{gpu.index}]\t\t: (Topology) Numa Affinity: {node}")
    return "\n".join([*lines, title("End of ROCm SMI Log"), ""])


def matrix(host: Host, same: str, xgmi: str, pcie: str) -> list[str]:
    labels = [f"GPU{gpu.index}".ljust(13) for gpu in host.gpus]
    lines = ["       " + "".join(labels)]
    for row in host.gpus:
        cells = [
            same
            if row.index == column.index
            else xgmi
            if (pair := host.pair(row.index, column.index)) and pair.xgmi_links
            else pcie
            for column in host.gpus
        ]
        lines.append(f"GPU{row.index}".ljust(7) + "".join(cell.ljust(13) for cell in cells))
    return lines


def title(text: str) -> str:
    return f" {text} ".center(80, "=")
