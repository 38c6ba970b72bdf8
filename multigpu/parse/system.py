"""Readers of the operating system's facts in a captured machine."""

from __future__ import annotations

import re
from dataclasses import dataclass

from multigpu.parse.shape import Tool, integer, items, mapping, text, whole

# systemd-detect-virt's words for containers (its manual page); all others but none are machines.
CONTAINERS = {
    *("openvz", "lxc", "lxc-libvirt", "systemd-nspawn", "docker", "podman", "rkt", "wsl"),
    *("proot", "pouch", "container-other"),
}
MIB = 1 << 20


@dataclass(frozen=True)
class System:
    """The fields of Host that are no GPUs."""

    driver: str | None
    rocm: str | None
    cpus: int | None
    numa_nodes: int | None
    memory_mib: int | None
    memory_available_mib: int | None
    disk_free_mib: int | None
    install_free_mib: int | None
    virtualization: str | None
    iommu: str | None
    kernel: str | None
    kernel_command_line: str | None
    os: str | None
    glibc: str | None
    python: tuple[int, int, int] | None
    uid: int | None
    systemd: int | None


def read_system(document: dict[str, object], virt: Tool, systemctl: Tool) -> System:
    """From the parts `files`, `system` and `disks` of a capture."""
    files, system = mapping(document.get("files")), mapping(document.get("system"))
    command_line = text(files.get("/proc/cmdline"))
    meminfo = text(files.get("/proc/meminfo")) or ""
    return System(
        driver=driver_version(files),
        rocm=text(files.get("/opt/rocm/.info/version")),
        cpus=integer(system.get("cpus")),
        numa_nodes=integer(system.get("numa_nodes")),
        memory_mib=_meminfo_mib(meminfo, "MemTotal"),
        memory_available_mib=_meminfo_mib(meminfo, "MemAvailable"),
        disk_free_mib=_free_mib(mapping(document.get("disks")), "/var/lib"),
        install_free_mib=_free_mib(mapping(document.get("disks")), "/opt/multigpu", "/opt"),
        virtualization=_virtualization(virt),
        iommu=iommu(system.get("iommu_groups"), command_line),
        kernel=text(system.get("kernel")),
        kernel_command_line=command_line,
        os=_pretty_name(text(files.get("/etc/os-release")) or ""),
        glibc=text(system.get("glibc")),
        python=_python(items(system.get("python"))),
        uid=integer(system.get("uid")),
        systemd=_systemd(systemctl.stdout),
    )


def is_container(virtualization: str | None) -> bool:
    """True for a container, whose host kernel and PCI devices are real."""
    return virtualization in CONTAINERS


def is_virtual_machine(virtualization: str | None) -> bool:
    """True for a guest, whose PCI ports are emulated; unknown counts as bare metal."""
    return virtualization not in {None, "none"} and not is_container(virtualization)


def driver_version(files: dict[str, object]) -> str | None:
    """Version of the loaded kernel module, also where nvidia-smi does not answer."""
    if version := text(files.get("/sys/module/nvidia/version")):
        return version.strip() or None
    banner = text(files.get("/proc/driver/nvidia/version")) or ""
    match = re.search(r"NVRM version:.*?\s(\d{3}\.\d{2,3}(?:\.\d{2})?)\s", banner, re.ASCII)
    return match[1] if match else None


def iommu(groups: object, command_line: str | None) -> str | None:
    """off, passthrough or translating; None when a kernel without group types leaves it open.

    `groups` counts IOMMU groups by type; a machine whose IOMMU is off has none.
    """
    if not isinstance(groups, dict):
        return None
    if not groups:
        return "off"
    if set(groups) <= {"identity"}:
        return "passthrough"
    if any(str(kind).startswith("DMA") for kind in groups):
        return "translating"
    return "passthrough" if "iommu=pt" in (command_line or "").split() else None


def _virtualization(virt: Tool) -> str | None:
    """`none` comes with exit status 1, so the word counts and not the status."""
    said = virt.stdout.strip()
    return said if re.fullmatch(r"[a-z0-9-]{1,40}", said) else None


def _meminfo_mib(meminfo: str, name: str) -> int | None:
    match = re.search(rf"^{name}:\s+(\d{{1,15}}) kB", meminfo, re.MULTILINE | re.ASCII)
    return int(match[1]) // 1024 if match else None


def _free_mib(disks: dict[str, object], *paths: str) -> int | None:
    """Of the first of the paths that exists; the root's otherwise."""
    for path in (*paths, "/"):
        free = integer(disks.get(path))
        if free is not None:
            return free // MIB
    return None


def _pretty_name(os_release: str) -> str | None:
    match = re.search(r'^PRETTY_NAME=["\']?([^"\'\n]+)', os_release, re.MULTILINE)
    return match[1].strip() if match else None


def _python(version: list[object]) -> tuple[int, int, int] | None:
    numbers = [number for number in map(integer, version) if number is not None]
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 else None


def _systemd(version: str) -> int | None:
    match = re.match(r"systemd (\d{1,5})\b", version, re.ASCII)
    return whole(match[1]) if match else None
