"""The sections that the probe takes of a simulated AMD host: KFD, amdgpu, processes, PCI."""

from __future__ import annotations

from typing import Any

from multigpu.hardware import Gpu, GpuPair, Host, P2p
from tests.rigs.amd_ids import device_id, revision_id

TARGETS = {"gfx908": 90008, "gfx90a": 90010, "gfx942": 90402, "gfx1100": 110000, "gfx1201": 120001}
GT_PER_S = {1: "2.5", 2: "5.0", 3: "8.0", 4: "16.0", 5: "32.0"}
CPU_LINK, PCIE, XGMI = 1, 2, 11


def properties(**values: int) -> str:
    return "\n".join(f"{name} {value}" for name, value in values.items())


def node_of(host: Host, gpu: Gpu) -> int:
    """KFD numbers the processor's NUMA nodes first, then the cards as HIP counts them."""
    return (host.numa_nodes or 1) + (gpu.hip_index or 0)


def gpu_id(gpu: Gpu) -> int:
    return 31000 + gpu.index


def location(gpu: Gpu) -> int:
    _, bus, rest = (gpu.pci_bus_id or "").split(":")
    return int(bus, 16) << 8 | int(rest[:2], 16) << 3 | int(rest[3])


def kfd_section(host: Host) -> dict[str, str]:
    """Relative path -> text, as below /sys/class/kfd/kfd/topology/nodes."""
    files: dict[str, str] = {}
    for node in range(host.numa_nodes or 1):
        files[f"{node}/properties"] = properties(
            cpu_cores_count=32, simd_count=0, mem_banks_count=1, p2p_links_count=0
        )
        files[f"{node}/gpu_id"] = "0"
    for gpu in host.gpus:
        node = node_of(host, gpu)
        files[f"{node}/properties"] = gpu_properties(gpu)
        files[f"{node}/gpu_id"] = str(gpu_id(gpu))
        files[f"{node}/name"] = "simulated"
        size = (gpu.memory_mib or 0) << 20
        files[f"{node}/mem_banks/0/properties"] = properties(
            heap_type=1,
            size_in_bytes=size,
            flags=0,
            width=gpu.memory_bus_width_bits or 0,
            mem_clk_max=gpu.memory_clock_max_mhz or 0,
        )
        files[f"{node}/io_links/0/properties"] = link(
            PCIE, node, gpu.numa_node or 0, 20, 312, 32000
        )
    for pair in host.pairs:
        files.update(pair_links(host, pair))
    return files


def gpu_properties(gpu: Gpu) -> str:
    return properties(
        cpu_cores_count=0,
        simd_count=4 * (gpu.multiprocessors or 104),
        simd_per_cu=4 if gpu.multiprocessors else 0,
        max_engine_clk_fcompute=gpu.sm_clock_max_mhz or 0,
        io_links_count=1,
        p2p_links_count=0,
        gfx_target_version=TARGETS[gpu.gfx or ""],
        vendor_id=0x1002,
        device_id=device_id(gpu),
        location_id=location(gpu),
        domain=int((gpu.pci_bus_id or "0").split(":")[0], 16),
        drm_render_minor=int((gpu.render_node or "0")[-3:]),
        hive_id=0,
        local_mem_size=0,
        unique_id=int(gpu.uuid or "0", 16),
        num_xcc=1,
    )


def link(kind: int, a: int, b: int, weight: int, smallest: int, largest: int) -> str:
    return properties(
        type=kind,
        version_major=0,
        node_from=a,
        node_to=b,
        weight=weight,
        min_bandwidth=smallest,
        max_bandwidth=largest,
        flags=1,
    )


def pair_links(host: Host, pair: GpuPair) -> dict[str, str]:
    """Both directions: XGMI among the io_links, PCIe between cards among the p2p_links."""
    a, b = (node_of(host, host.gpu(i)) for i in (pair.a, pair.b))
    rate = int((pair.xgmi_gb_s or 0) * 1000)
    if pair.xgmi_links:
        one = rate // pair.xgmi_links
        return {
            f"{x}/io_links/{y}/properties": link(XGMI, x, y, 15, one, rate)
            for x, y in ((a, b), (b, a))
        }
    if pair.p2p_read is P2p.OK:
        return {
            f"{x}/p2p_links/{y}/properties": link(PCIE, x, y, 40, 0, 0) for x, y in ((a, b), (b, a))
        }
    return {}


def kfd_processes_section(host: Host) -> dict[str, Any]:
    """Pid -> name, cgroup and bytes by gpu_id; the cgroup names the unit."""
    found: dict[str, Any] = {}
    for gpu in host.gpus:
        for process in gpu.processes:
            unit = f"/system.slice/{process.unit}" if process.unit else "/"
            vram = {str(gpu_id(gpu)): str((process.used_memory_mib or 0) << 20)}
            held = found.setdefault(
                str(process.pid), {"name": process.name, "cgroup": f"0::{unit}", "vram": {}}
            )
            held["vram"] |= vram
    return found


def amdgpu_section(host: Host) -> dict[str, dict[str, str]]:
    """PCI address -> file -> text. Radeon cards name no product, Instinct cards have no window."""
    return {gpu.pci_bus_id or "": amdgpu_files(gpu) for gpu in host.gpus}


def amdgpu_files(gpu: Gpu) -> dict[str, str]:
    files = {
        "mem_info_vram_total": str((gpu.memory_mib or 0) << 20),
        "mem_info_vram_used": str((gpu.memory_used_mib or 0) << 20),
        "mem_info_vis_vram_total": str((gpu.bar1_memory_mib or 0) << 20),
        "vbios_version": f"{gpu.vbios_version}",
        "unique_id": f"{int(gpu.uuid or '0', 16):016x}",
        "revision": f"0x{revision_id(gpu):02x}",
        "power1_cap": microwatts(gpu.power_limit_w),
        "power1_cap_default": microwatts(gpu.power_limit_default_w),
        "power1_cap_max": microwatts(gpu.power_limit_max_w),
        "power1_average": microwatts(gpu.power_draw_w),
        "temp1_input": str((gpu.temperature_c or 0) * 1000),
        "ras/umc_err_count": f"ue: {gpu.ecc_uncorrected}\nce: {gpu.ecc_corrected}",
        "gpu_busy_percent": "0",
        "drm": (gpu.render_node or "").rpartition("/")[2],
    }
    if "Instinct" in f"{gpu.name}":
        files["product_name"] = f"{gpu.name}"
    if gpu.compute_partition:
        files["current_compute_partition"] = gpu.compute_partition
        files["current_memory_partition"] = gpu.memory_partition or ""
    return files


def microwatts(watts: float | None) -> str:
    return str(int((watts or 0) * 1_000_000))


def pci_section(host: Host, driver: str | None = "amdgpu") -> list[dict[str, str | None]]:
    """The cards and the ports above them; each port once."""
    found: dict[str, dict[str, str | None]] = {}
    for gpu in host.gpus:
        chain = [hop.address for hop in gpu.pcie.hops]
        found[gpu.pci_bus_id or ""] = {
            "address": gpu.pci_bus_id,
            "parent": chain[0] if chain else None,
            "vendor": "0x1002",
            "device": f"0x{device_id(gpu):04x}",
            "class": "0x120000" if "Instinct" in f"{gpu.name}" else "0x030000",
            "driver": driver,
            "numa_node": str(-1 if gpu.numa_node is None else gpu.numa_node),
            **speeds(gpu.pcie.gen_current, gpu.pcie.gen_max, gpu.pcie.width_current, 16),
        }
        for hop, parent in zip(gpu.pcie.hops, [*chain[1:], None], strict=True):
            found[hop.address] = {
                "address": hop.address,
                "parent": parent,
                "vendor": hop.vendor,
                "device": hop.device,
                "class": "0x060400",
                "driver": "pcieport",
                "numa_node": str(-1 if gpu.numa_node is None else gpu.numa_node),
                **speeds(hop.gen_current, hop.gen_max, hop.width_current, hop.width_max),
            }
    return [found[address] for address in sorted(found)]


def speeds(
    gen: int | None, gen_max: int | None, width: int | None, width_max: int | None
) -> dict[str, str | None]:
    return {
        "current_link_speed": f"{GT_PER_S[gen or 1]} GT/s PCIe",
        "max_link_speed": f"{GT_PER_S[gen_max or 1]} GT/s PCIe",
        "current_link_width": str(width or 0),
        "max_link_width": str(width_max or 0),
    }


def amd_sections(host: Host, driver: str | None = "amdgpu") -> dict[str, object]:
    """Everything of a capture that speaks of AMD cards; without amdgpu there is no KFD either."""
    loaded = driver == "amdgpu"
    return {
        "simulated": True,
        "pci": pci_section(host, driver),
        "kfd": kfd_section(host) if loaded else None,
        "kfd_device": {"mode": "0660", "owner": "root:render"} if loaded else None,
        "kfd_processes": kfd_processes_section(host) if loaded else {},
        "amdgpu": amdgpu_section(host) if loaded else {},
        "system": {"numa_nodes": host.numa_nodes},
        "tools": {},
    }
