"""What amd-smi of ROCm 6 and 7 prints about a simulated host: static, metric, list, topology."""

from __future__ import annotations

import json
from typing import Any

from multigpu.hardware import Gpu, GpuPair, Host
from tests.rigs.amd_ids import device_id, release, revision_id
from tests.rigs.dialect import Dialect

GT_PER_S: dict[int, float] = {1: 2.5, 2: 5, 3: 8, 4: 16, 5: 32}


def static(gpu: Gpu, dialect: Dialect) -> dict[str, Any]:
    """The keys of `amd-smi static`, values as --json writes them."""
    version = release(dialect.rocm)
    limits: dict[str, Any] = {
        "max_power": amount(gpu.power_limit_max_w, "W"),
        "min_power": amount(0, "W"),
        "socket_power": amount(gpu.power_limit_w, "W"),
    }
    if version >= (7, 0):
        limits = {
            "ppt0": {
                "max_power_limit": amount(gpu.power_limit_max_w, "W"),
                "min_power_limit": amount(0, "W"),
                "socket_power_limit": amount(gpu.power_limit_w, "W"),
            },
            "ppt1": {"max_power_limit": "N/A", "socket_power_limit": "N/A"},
        }
    asic = {
        "market_name": f"{gpu.name}",
        "vendor_id": "0x1002",
        "vendor_name": "Advanced Micro Devices Inc. [AMD/ATI]",
        "device_id": f"0x{device_id(gpu):04x}",
        "rev_id": f"0x{revision_id(gpu):02x}",
        "asic_serial": f"0x{int(gpu.uuid or '0', 16):016X}",
        "oam_id": "N/A",
    }
    if version >= (6, 3):
        asic["target_graphics_version"] = f"{gpu.gfx}"
    return {
        "asic": asic,
        "bus": {
            "bdf": gpu.pci_bus_id,
            "max_pcie_width": gpu.pcie.width_max,
            "max_pcie_speed": amount(GT_PER_S[gpu.pcie.gen_max or 1], "GT/s"),
            "pcie_interface_version": f"Gen {gpu.pcie.gen_max}",
            "slot_type": "OAM",
        },
        "vbios": {"name": "N/A", "part_number": gpu.vbios_version, "version": "N/A"},
        "limit": limits,
        "driver": {"name": "amdgpu", "version": "6.12.12"},
        "board": {"product_name": f"{gpu.name}", "manufacturer_name": "AMD"},
        "ras": {"ecc_block_state": {"UMC": "ENABLED" if gpu.ecc else "DISABLED"}},
        "partition": {
            "compute_partition": gpu.compute_partition or "N/A",
            "memory_partition": gpu.memory_partition or "N/A",
        },
        "numa": {"node": "N/A" if gpu.numa_node is None else gpu.numa_node, "affinity": 0},
        "vram": {"type": "HBM", "vendor": "N/A", "size": amount(gpu.memory_mib, "MB")},
    }


def metric(gpu: Gpu) -> dict[str, Any]:
    """The keys of `amd-smi metric`."""
    return {
        "usage": {"gfx_activity": amount(0, "%"), "vcn_activity": [amount(0, "%")]},
        "power": {"socket_power": amount(gpu.power_draw_w, "W"), "gfx_voltage": "N/A"},
        "temperature": {"edge": "N/A", "hotspot": amount(gpu.temperature_c, "C")},
        "pcie": {
            "width": gpu.pcie.width_current,
            "speed": amount(GT_PER_S[gpu.pcie.gen_current or 1], "GT/s"),
            "replay_count": gpu.pcie.replays,
        },
        "ecc": {
            "total_correctable_count": gpu.ecc_corrected,
            "total_uncorrectable_count": gpu.ecc_uncorrected,
        },
        "mem_usage": {
            "total_vram": amount(gpu.memory_mib, "MB"),
            "used_vram": amount(gpu.memory_used_mib, "MB"),
            "free_vram": amount(gpu.memory_free_mib, "MB"),
        },
    }


def process(gpu: Gpu) -> dict[str, Any]:
    """The keys of `amd-smi process`."""
    return {
        "process_list": [
            {
                "process_info": {
                    "name": p.name,
                    "pid": p.pid,
                    "memory_usage": {"vram_mem": amount((p.used_memory_mib or 0) << 20, "B")},
                }
            }
            for p in gpu.processes
        ]
    }


def amount(value: float | None, unit: str) -> Any:
    """A value with its unit; whole numbers without a point."""
    if value is None:
        return "N/A"
    return {"value": int(value) if value == int(value) else value, "unit": unit}


def amd_smi_json(host: Host, dialect: Dialect, *commands: str) -> str:
    """`amd-smi static --json`, or several commands' keys put together; ROCm 6.4 wraps the list."""
    entries = [
        {"gpu": gpu.index, **keys(gpu, dialect, commands or ("static",))} for gpu in host.gpus
    ]
    wrapped = release(dialect.rocm) >= (6, 4)
    return json.dumps({"gpu_data": entries} if wrapped else entries, indent=4) + "\n"


def amd_smi_text(host: Host, dialect: Dialect, *commands: str) -> str:
    """The same as text, one command after the other."""
    lines = []
    for command in commands or ("static",):
        for gpu in host.gpus:
            lines += [f"GPU: {gpu.index}", *indented(keys(gpu, dialect, (command,)), 1), ""]
    return "\n".join(lines) + "\n"


def keys(gpu: Gpu, dialect: Dialect, commands: tuple[str, ...]) -> dict[str, Any]:
    known = {
        "static": lambda: static(gpu, dialect),
        "metric": lambda: metric(gpu),
        "process": lambda: process(gpu),
        "list": lambda: {"bdf": gpu.pci_bus_id, "uuid": uuid(gpu)},
    }
    return {key: value for command in commands for key, value in known[command]().items()}


def uuid(gpu: Gpu) -> str:
    """amd-smi's UUID: the unique id with the device id woven in."""
    digits = f"{int(gpu.uuid or '0', 16):016x}"
    return f"{digits[:2]}ff{device_id(gpu):04x}-0000-1000-80{digits[2:4]}-{digits[4:]}"


def indented(values: dict[str, Any], depth: int) -> list[str]:
    """`KEY: VALUE` lines, sections four blanks deeper, lists in brackets."""
    margin, lines = "    " * depth, []
    for key, value in values.items():
        if key == "process_list":
            for item in value:
                lines += indented(item, depth)
        elif isinstance(value, dict) and "unit" in value:
            lines.append(f"{margin}{key.upper()}: {shown(value)}")
        elif isinstance(value, dict):
            lines += [f"{margin}{key.upper()}:", *indented(value, depth + 1)]
        elif isinstance(value, list):
            lines.append(f"{margin}{key.upper()}: [{', '.join(shown(v) for v in value)}]")
        else:
            lines.append(f"{margin}{key.upper()}: {value}")
    return lines


def shown(value: dict[str, Any]) -> str:
    unit = "°C" if value["unit"] == "C" else value["unit"]
    return f"{value['value']} {unit}"


def amd_smi_topology_json(host: Host, dialect: Dialect) -> str:
    """`amd-smi topology --json`; before 6.1.1 one map per fact, without the peers' addresses."""
    new = release(dialect.rocm) >= (6, 1, 1)
    entries = [new_topology(host, gpu) if new else old_topology(host, gpu) for gpu in host.gpus]
    return json.dumps(entries, indent=4) + "\n"


def new_topology(host: Host, gpu: Gpu) -> dict[str, Any]:
    return {
        "gpu": gpu.index,
        "bdf": gpu.pci_bus_id,
        "links": [
            {"gpu": other.index, "bdf": other.pci_bus_id, **link(host.pair(gpu.index, other.index))}
            for other in host.gpus
        ],
    }


def old_topology(host: Host, gpu: Gpu) -> dict[str, Any]:
    links = {f"gpu_{o.index}": link(host.pair(gpu.index, o.index)) for o in host.gpus}
    names = {
        "link_accessibility": "link_status",
        "weight": "weight",
        "hops": "num_hops",
        "link_type": "link_type",
        "numa_bandwidth": "bandwidth",
    }
    maps = {name: {o: values[key] for o, values in links.items()} for name, key in names.items()}
    return {"gpu": gpu.index, **maps}


def link(pair: GpuPair | None) -> dict[str, Any]:
    """One row's facts about a peer; `bandwidth` in MB/s of one link and of all together."""
    if pair is None:
        return {
            "weight": 0,
            "link_status": "ENABLED",
            "link_type": "SELF",
            "num_hops": 0,
            "bandwidth": "N/A",
        }
    rate = int((pair.xgmi_gb_s or 0) * 1000)
    return {
        "weight": 15 if pair.xgmi_links else 40,
        "link_status": "ENABLED" if pair.p2p_read == "OK" else "DISABLED",
        "link_type": "XGMI" if pair.xgmi_links else "PCIE",
        "num_hops": 1 if pair.xgmi_links else 2,
        "bandwidth": f"{rate // pair.xgmi_links}-{rate}" if pair.xgmi_links else "N/A",
    }


BOX = """\
+------------------------------------------------------------------------------+
| AMD-SMI 26.0.0+simulated  amdgpu version: 6.14.14  ROCm version: 7.0.0       |
| VBIOS version: 00000000                                                      |
| Platform: Linux Baremetal                                                    |
|-------------------------------------+----------------------------------------|
| BDF                        GPU-Name | Mem-Uti   Temp   UEC       Power-Usage |
| GPU  HIP-ID  OAM-ID  Partition-Mode | GFX-Uti    Fan               Mem-Usage |
|=====================================+========================================|
| 0000:05:00.0    AMD Instinct MI300X | 0 %      38 °C   0           134/750 W |
|   0       0       7        SPX/NPS1 | 0 %        N/A           283/196592 MB |
+-------------------------------------+----------------------------------------+
"""
