"""The probe's whole document of a generated machine."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from multigpu.hardware import Gpu, Host, KernelEvent, Vendor
from tests.rigs import amd_sysfs, kernel, lspci, nvidia_smi, sysfs, topology
from tests.rigs.rig import Rig

QUERY = "nvidia-smi -q -x"
NUMBERS = "nvidia-smi --query-gpu=index,pci.bus_id,compute_cap --format=csv,noheader"
NVIDIA_CALLS = (
    *(QUERY, NUMBERS, "nvidia-smi topo -m", "nvidia-smi topo -mp", "nvidia-smi topo -p2p r"),
    *("nvidia-smi topo -p2p w", "nvidia-smi nvlink -s"),
)
MISSING = {"rc": None, "missing": True}
IOMMU_GROUPS = {"off": {}, "passthrough": {"identity": 38}, "translating": {"DMA-FQ": 61}}


def ran(stdout: str, rc: int = 0, stderr: str = "") -> dict[str, Any]:
    """The record of one tool."""
    return {
        "rc": rc,
        "seconds": 0.4,
        "timed_out": False,
        "stdout": stdout.split("\n"),
        "stderr": stderr.split("\n"),
    }


def capture(rig: Rig) -> dict[str, Any]:
    """Everything that the probe would have gathered there, as root."""
    host = rig.host
    nvidia, amd = (only(host, vendor) for vendor in (Vendor.NVIDIA, Vendor.AMD))
    return {
        "schema": 1,
        "simulated": True,
        "seconds": 1.2,
        "tools": {**nvidia_tools(rig, nvidia), **system_tools(rig)},
        "files": files(rig),
        "system": system(rig),
        "disks": {"/": 800 << 30, "/var/lib": 800 << 30},
        **amd_parts(rig, amd),
        "nvml": nvml(nvidia),
        "pci": [*nvidia_bus(rig, nvidia), *amd_bus(rig, amd)],
        "managed": [],
        "paths": {},
        "processes": {
            str(process.pid): cgroup(process.unit)
            for gpu in nvidia.gpus
            for process in gpu.processes
        },
        "main_processes": {},
        "incomplete": [],
        "end": "multigpu-capture-end",
    }


def nvml(host: Host) -> dict[str, Any] | None:
    """What NVML tells of the cards that answer; cores where the capability tells how many."""
    cores = {(6, 0): 64, (7, 0): 64, (7, 5): 64, (8, 0): 64}
    return {
        nvidia_smi.nvml_bus_id(gpu.pci_bus_id): {
            "memory_bus_width": gpu.memory_bus_width_bits,
            "num_gpu_cores": gpu.multiprocessors
            and gpu.multiprocessors * cores.get(gpu.compute_capability or (0, 0), 128),
            "max_sm_clock": gpu.sm_clock_max_mhz,
            "max_mem_clock": gpu.memory_clock_max_mhz,
        }
        for gpu in host.gpus
        if gpu.error is None
    } or None


def text_of(rig: Rig) -> str:
    """The document as the probe prints it."""
    return json.dumps(capture(rig), indent=1) + "\n"


def only(host: Host, vendor: Vendor) -> Host:
    """The host with one vendor's cards."""
    gpus = tuple(gpu for gpu in host.gpus if gpu.vendor is vendor)
    known = {gpu.index for gpu in gpus}
    pairs = tuple(pair for pair in host.pairs if {pair.a, pair.b} <= known)
    return replace(host, gpus=gpus, pairs=pairs)


def cgroup(unit: str | None) -> str:
    """/proc/PID/cgroup under cgroup v2; scopes belong to a user's session."""
    if unit is None:
        return "0::/user.slice"
    room = "user.slice/user-1000.slice" if unit.endswith(".scope") else "system.slice"
    return f"0::/{room}/{unit}"


# --- tools -----------------------------------------------------------------------------------


def nvidia_tools(rig: Rig, host: Host) -> dict[str, Any]:
    """Every call of the probe to nvidia-smi."""
    if not host.gpus:
        return dict.fromkeys(NVIDIA_CALLS, MISSING)
    if rig.refusal is not None:
        status, words = rig.refusal
        refused = {call: ran(words + "\n", rc=status) for call in NVIDIA_CALLS}
        return {**refused, **one_by_one(rig, host)}
    texts = (
        query(host, rig),
        numbers(host),
        topology.topo(host, rig.dialect),
        topology.topo(host, rig.dialect, pcie=True),
        topology.peer_access(host, rig.dialect, "r"),
        topology.peer_access(host, rig.dialect, "w"),
        topology.nvlink_s(host, rig.dialect),
    )
    return {call: ran(text) for call, text in zip(NVIDIA_CALLS, texts, strict=True)}


def query(host: Host, rig: Rig) -> str:
    """`nvidia-smi -q -x` without the clocks, which the probe leaves out."""
    return nvidia_smi.query_xml(host, rig.dialect)


def numbers(host: Host) -> str:
    """Index, address and compute capability as CSV."""
    rows = (
        f"{g.index}, {nvidia_smi.nvml_bus_id(g.pci_bus_id)}, {capability(g)}" for g in host.gpus
    )
    return "\n".join([*rows, ""])


def capability(gpu: Gpu) -> str:
    return "N/A" if gpu.compute_capability is None else "{}.{}".format(*gpu.compute_capability)


def one_by_one(rig: Rig, host: Host) -> dict[str, Any]:
    """Each card asked alone, as the probe does when one has no handle."""
    status, words = rig.refusal or (0, "")
    if "device handle" not in words:
        return {}
    return {
        f"{QUERY} -i {gpu.pci_bus_id}": ran(words, rc=status)
        if gpu.index in rig.unlisted
        else ran(query(replace(host, gpus=(gpu,)), rig))
        for gpu in host.gpus
    }


def system_tools(rig: Rig) -> dict[str, Any]:
    """The tools that every machine has."""
    host = rig.host
    bare = host.virtualization == "none"
    return {
        "systemd-detect-virt": ran(f"{host.virtualization}\n", rc=1 if bare else 0),
        "systemctl --version": ran("systemd 255 (255.4-1ubuntu8.8)\n"),
        "modinfo -F license nvidia": ran(f"{host.module_license}\n")
        if host.module_license
        else MISSING,
        "systemctl show": ran(""),
        "lspci -vvv -D -nn": ran(lspci.lspci_vvv(host, rig.dialect)) if rig.lspci else MISSING,
        "journalctl -k": ran(kernel_log(host.kernel_events, rig)),
    }


def kernel_log(events: tuple[KernelEvent, ...], rig: Rig) -> str:
    """One event a second since boot."""
    dialect = replace(rig.dialect, log_prefix="probe")
    return kernel.render([(1_000_000 * (i + 1), e) for i, e in enumerate(events)], dialect)


# --- sysfs and the system --------------------------------------------------------------------


def nvidia_bus(rig: Rig, host: Host) -> list[dict[str, str | None]]:
    """The tree above NVIDIA's cards; the driver is bound unless it does not answer at all."""
    broken = rig.refusal is not None and "communicate" in rig.refusal[1]
    section = sysfs.pci_section(host, rig.dialect)
    held = {gpu.pci_bus_id for gpu in host.gpus}
    return [
        {**entry, "driver": None} if broken and entry["address"] in held else entry
        for entry in section
    ]


def amd_bus(rig: Rig, host: Host) -> list[dict[str, str | None]]:
    return amd_sysfs.pci_section(host, "amdgpu" if rig.amd_driver else None)


def amd_parts(rig: Rig, host: Host) -> dict[str, object]:
    """KFD and amdgpu, where there are such cards."""
    if not host.gpus:
        return {"kfd": {}, "kfd_device": None, "kfd_processes": {}, "amdgpu": {}}
    parts = amd_sysfs.amd_sections(host, "amdgpu" if rig.amd_driver else None)
    return {name: part for name, part in parts.items() if "kfd" in name or name == "amdgpu"}


def files(rig: Rig) -> dict[str, str | None]:
    """The text files of the probe's list."""
    host = rig.host
    loaded = host.driver is not None and not (rig.refusal and rig.refusal[0] == 9)
    total = (host.memory_mib or 0) * 1024
    dwords = f'RegistryDwords: "{host.registry_dwords or ""}"'
    return {
        "/etc/os-release": f'PRETTY_NAME="{host.os}"\nID=ubuntu\nVERSION_ID="24.04"',
        "/opt/rocm/.info/version": host.rocm,
        "/proc/cmdline": "BOOT_IMAGE=/boot/vmlinuz-6.8.0-60-generic root=/dev/sda2 ro quiet",
        "/proc/driver/nvidia/params": dwords if loaded else None,
        "/proc/driver/nvidia/version": None,
        "/proc/meminfo": f"MemTotal:       {total} kB\nMemAvailable:   {total * 9 // 10} kB",
        "/sys/class/dmi/id/product_name": host.product,
        "/sys/class/dmi/id/sys_vendor": None,
        "/sys/module/nvidia/version": rig.dialect.driver if loaded else None,
    }


def system(rig: Rig) -> dict[str, Any]:
    """What Python knows of the machine."""
    host = rig.host
    return {
        "cpus": host.cpus,
        "numa_nodes": host.numa_nodes,
        "kernel": rig.dialect.kernel,
        "machine": "x86_64",
        "glibc": "2.39",
        "python": [3, 12, 3],
        "uid": 0,
        "hostname": None,
        "machine_id": None,
        "iommu_groups": IOMMU_GROUPS.get(host.iommu or "", {}),
    }
