"""The probe's AMD sections, taken from a simulated sysfs below another root."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from multigpu.hardware import GpuProcess, Host
from multigpu.host import probe
from multigpu.parse import pci
from multigpu.parse.amd.cards import amd_cards
from tests.rigs import amd_sysfs
from tests.test_parse_amd_cards import desktop, two_hives

HWMON = ("power1_cap", "power1_cap_default", "power1_cap_max", "power1_average", "temp1_input")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="ascii")


def sysfs(root: Path, host: Host) -> None:
    """A simulated sysfs of the host, without PCI ports."""
    kfd = root / "sys/class/kfd/kfd"
    for name, text in amd_sysfs.kfd_section(host).items():
        write(kfd / "topology/nodes" / name, text)
    write(root / "dev/kfd", "")
    for gpu in host.gpus:
        device = root / "sys/bus/pci/devices" / (gpu.pci_bus_id or "")
        write(device / "vendor", "0x1002")
        write(device / "device", f"0x{amd_sysfs.device_id(gpu):04x}")
        write(device / "class", "0x030000")
        (root / "drivers/amdgpu").mkdir(parents=True, exist_ok=True)
        os.symlink(root / "drivers/amdgpu", device / "driver")
        for name, text in amd_sysfs.amdgpu_files(gpu).items():
            if name == "drm":
                (device / "drm" / text).mkdir(parents=True)
            else:
                write(device / f"hwmon/hwmon7/{name}" if name in HWMON else device / name, text)
        for process in gpu.processes:
            held = kfd / f"proc/{process.pid}/vram_{amd_sysfs.gpu_id(gpu)}"
            write(held, str((process.used_memory_mib or 0) << 20))
            write(root / f"proc/{process.pid}/comm", process.name or "")
            write(root / f"proc/{process.pid}/cgroup", f"0::/system.slice/{process.unit}")


def sections(root: Path) -> dict[str, object]:
    """What the probe takes, by section."""
    place = str(root)
    return {
        "pci": probe.read_pci(place),
        "kfd": probe.read_kfd(place),
        "kfd_device": probe.path_state(probe.under(place, "/dev/kfd")) or None,
        "kfd_processes": probe.read_kfd_processes(place),
        "amdgpu": probe.read_amdgpu(place),
    }


def test_the_probe_takes_kfd_and_amdgpu_as_they_stand_in_sysfs(tmp_path: Path) -> None:
    host = two_hives()
    sysfs(tmp_path, host)
    taken = sections(tmp_path)
    assert taken["kfd"] == amd_sysfs.kfd_section(host)
    assert taken["amdgpu"] == amd_sysfs.amdgpu_section(host)


def test_what_the_probe_takes_is_read_as_the_host_that_it_is(tmp_path: Path) -> None:
    host = desktop()
    holder = GpuProcess(4711, "llama-server", 500, "multigpu-chat.service")
    gpus = (replace(host.gpus[0], processes=(holder,)), host.gpus[1])
    sysfs(tmp_path, replace(host, gpus=gpus))
    taken = sections(tmp_path)
    found = amd_cards(taken, pci.tree(taken["pci"]))
    assert found.problems == () and [gpu.error for gpu in found.gpus] == [None, None]
    assert [gpu.processes for gpu in found.gpus] == [(holder,), ()]
    assert [gpu.memory_free_mib for gpu in found.gpus] == [24460, 24460]


def test_a_machine_without_amd_cards_has_no_kfd(tmp_path: Path) -> None:
    taken = sections(tmp_path)
    assert taken == {
        "pci": [],
        "kfd": None,
        "kfd_device": None,
        "kfd_processes": {},
        "amdgpu": {},
    }
