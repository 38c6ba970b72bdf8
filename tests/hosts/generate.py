"""Write the captured machines: `python -m tests.hosts.generate`.

The text is laid out as nvidia-smi 580 prints it (tabs, ANSI underline, padded cells); the XML says
that it is simulated, so every screen of these machines does.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from tests.hosts.machines import MACHINES, Card, Machine, Port

QUERY = "nvidia-smi -q -x"
NUMBERS = "nvidia-smi --query-gpu=index,pci.bus_id,compute_cap --format=csv,noheader"
SIMULATED = "<!-- simulated: written by tests/hosts/generate.py -->"
UNDERLINE, PLAIN = "\x1b[4m", "\x1b[0m"


def ran(stdout: str, rc: int = 0, stderr: str = "") -> dict[str, Any]:
    """The record of one tool."""
    return {
        "rc": rc,
        "seconds": 0.4,
        "timed_out": False,
        "stdout": stdout.split("\n"),
        "stderr": stderr.split("\n"),
    }


MISSING = {"rc": None, "missing": True}


# --- nvidia-smi ------------------------------------------------------------------------------


def gpu_uuid(machine: Machine, index: int) -> str:
    """A stable made-up uuid."""
    return f"GPU-{uuid.uuid5(uuid.NAMESPACE_DNS, f'{index}.{machine.name}.test')}"


def element(name: str, value: object, depth: int) -> list[str]:
    """One XML element; a dict holds children, in order."""
    indent = "\t" * depth
    if isinstance(value, dict):
        inner = [line for child, v in value.items() for line in element(child, v, depth + 1)]
        return [f"{indent}<{name}>", *inner, f"{indent}</{name}>"]
    return [f"{indent}<{name}>{value}</{name}>"]


def card_values(machine: Machine, index: int, card: Card) -> dict[str, object]:
    """The elements of one card that a reader may look at, as driver 580 names them."""
    return {
        "product_name": card.name,
        "product_brand": card.brand,
        "product_architecture": card.architecture,
        "display_mode": "Requested functionality has been deprecated",
        "display_attached": "Yes" if card.processes else "No",
        "display_active": "Enabled" if card.processes else "Disabled",
        "persistence_mode": "Enabled",
        "addressing_mode": "HMM",
        "mig_mode": {"current_mig": card.mig, "pending_mig": card.mig},
        "serial": "N/A",
        "uuid": gpu_uuid(machine, index),
        "minor_number": index,
        "gpu_recovery_action": "None",
        "pci": pci_values(card),
        "performance_state": "P8",
        "fb_memory_usage": memory_values(card),
        "bar1_memory_usage": {"total": "256 MiB", "used": "1 MiB", "free": "255 MiB"},
        "compute_mode": "Default",
        "ecc_mode": {"current_ecc": card.ecc, "pending_ecc": card.ecc},
        "temperature": {"gpu_temp": "38 C"},
        "gpu_power_readings": power_values(card),
        "module_power_readings": {"current_power_limit": "N/A", "default_power_limit": "N/A"},
    }


def pci_values(card: Card) -> dict[str, object]:
    """Links sit at generation 1 while idle, whatever the slot can do."""
    domain, bus, rest = card.bus.split(":")
    return {
        "pci_bus": bus.upper(),
        "pci_device": rest.split(".")[0].upper(),
        "pci_domain": domain.upper(),
        "pci_device_id": f"{card.device[2:].upper()}10DE",
        "pci_bus_id": f"0000{card.bus.upper()}",
        "pci_gpu_link_info": {
            "pcie_gen": {
                "max_link_gen": card.gen_max,
                "current_link_gen": 1,
                "device_current_link_gen": 1,
                "max_device_link_gen": card.gen_max,
                "max_host_link_gen": card.gen_max,
            },
            "link_widths": {"max_link_width": "16x", "current_link_width": f"{card.width}x"},
        },
        "replay_counter": 0,
    }


def memory_values(card: Card) -> dict[str, object]:
    """Framebuffer use: what the processes hold, and the driver's own share."""
    used = sum(process.used_mib for process in card.processes) + 2
    free = card.memory_mib - card.reserved_mib - used
    return {
        "total": f"{card.memory_mib} MiB",
        "reserved": f"{card.reserved_mib} MiB",
        "used": f"{used} MiB",
        "free": f"{free} MiB",
    }


def power_values(card: Card) -> dict[str, object]:
    """Current and default limit differ where the operator capped the card."""
    limit = card.limit_w or card.power_w
    return {
        "power_state": "P8",
        "average_power_draw": "24.10 W",
        "current_power_limit": f"{limit}.00 W",
        "requested_power_limit": f"{limit}.00 W",
        "default_power_limit": f"{card.power_w}.00 W",
        "min_power_limit": "100.00 W",
        "max_power_limit": f"{card.power_w}.00 W",
    }


def card_lines(machine: Machine, index: int, card: Card) -> list[str]:
    """The block of one card."""
    body = [e for k, v in card_values(machine, index, card).items() for e in element(k, v, 2)]
    for process in card.processes:
        info = {
            "gpu_instance_id": "N/A",
            "compute_instance_id": "N/A",
            "pid": process.pid,
            "type": "C" if "ollama" in process.name else "G",
            "process_name": process.name,
            "used_memory": f"{process.used_mib} MiB",
        }
        body += [*(["\t\t<processes>"] if process is card.processes[0] else [])]
        body += element("process_info", info, 3)
    body += ["\t\t</processes>"] if card.processes else ["\t\t<processes>", "\t\t</processes>"]
    return [f'\t<gpu id="0000{card.bus.upper()}">', *body, "\t</gpu>", ""]


def query(machine: Machine, indices: list[int]) -> str:
    """`nvidia-smi -q -x` of these cards."""
    lines = [
        '<?xml version="1.0" ?>',
        '<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v13.dtd">',
        SIMULATED,
        "<nvidia_smi_log>",
        "\t<timestamp>Mon Nov 23 12:00:00 2026</timestamp>",
        f"\t<driver_version>{machine.driver}</driver_version>",
        f"\t<cuda_version>{machine.cuda}</cuda_version>",
        f"\t<attached_gpus>{len(machine.cards)}</attached_gpus>",
    ]
    for index in indices:
        lines += card_lines(machine, index, machine.cards[index])
    return "\n".join([*lines, "</nvidia_smi_log>", ""])


def numbers(machine: Machine) -> str:
    """Index, address and compute capability as CSV."""
    rows = [
        f"{index}, 0000{card.bus.upper()}, {card.compute_cap}"
        for index, card in enumerate(machine.cards)
    ]
    return "\n".join([*rows, ""])


def topology(machine: Machine, cells: dict[tuple[int, int], str]) -> str:
    """`topo -m` with its tabs, its underlined header and an empty field before the last column."""
    gpus = [f"GPU{index}" for index in range(len(machine.cards))]
    nics = [f"NIC{index}" for index in range(machine.nics)]
    tail = ["CPU Affinity", "NUMA Affinity", "GPU NUMA ID"]
    lines = ["\t" + UNDERLINE + "\t".join([*gpus, *nics, *tail]) + PLAIN]
    share = machine.cpus // machine.numa_nodes
    for a, card in enumerate(machine.cards):
        row = [" X " if a == b else cells[min(a, b), max(a, b)] for b in range(len(gpus))]
        affinity = f"{card.numa * share}-{(card.numa + 1) * share - 1}"
        lines.append(
            "\t".join([gpus[a], *row, *["SYS"] * len(nics), affinity, str(card.numa), "", "N/A"])
        )
    for a, nic in enumerate(nics):
        row = [" X " if a == b else "SYS" for b in range(len(nics))]
        lines.append("\t".join([nic, *["SYS"] * len(gpus), *row, "", "", "", ""]))
    return "\n".join([*lines, "", "Legend:", "", "  X    = Self", ""])


def peer_access(machine: Machine) -> str:
    """`topo -p2p r`."""
    gpus = [f"GPU{index}" for index in range(len(machine.cards))]
    lines = [" \t" + UNDERLINE + "\t".join([*gpus, PLAIN])]
    for a, gpu in enumerate(gpus):
        row = ["X" if a == b else machine.p2p[min(a, b), max(a, b)] for b in range(len(gpus))]
        lines.append("\t".join([f" {gpu}", *row, ""]))
    return "\n".join([*lines, "", "Legend:", "", "  X    = Self", "  OK   = Status Ok", ""])


def nvlink(machine: Machine) -> str:
    """`nvlink -s`: links, or the sentence for cards without them."""
    lines = []
    for index, card in enumerate(machine.cards):
        lines.append(f"GPU {index}: {card.name} (UUID: {gpu_uuid(machine, index)})")
        lines += [f"\t Link {link}: {rate:g} GB/s" for link, rate in enumerate(machine.rates)]
        if not machine.rates:
            lines.append("Device does not have or support Nvlink")
    return "\n".join([*lines, ""])


def nvidia_smi(machine: Machine) -> dict[str, Any]:
    """Every call of the probe to nvidia-smi."""
    calls = [QUERY, NUMBERS, *(f"nvidia-smi {rest}" for rest in ("topo -m", "topo -mp"))]
    calls += ["nvidia-smi topo -p2p r", "nvidia-smi nvlink -s"]
    if not machine.cards:
        return dict.fromkeys(calls, MISSING)
    if machine.refusal is not None:
        status, words = machine.refusal
        refused = {call: ran(words + "\n", rc=status) for call in calls}
        return {**refused, **one_by_one(machine, words, status)}
    texts = [
        query(machine, list(range(len(machine.cards)))),
        numbers(machine),
        topology(machine, machine.topo),
        topology(machine, machine.pcie or machine.topo),
        peer_access(machine),
        nvlink(machine),
    ]
    return {call: ran(text) for call, text in zip(calls, texts, strict=True)}


def one_by_one(machine: Machine, words: str, status: int) -> dict[str, Any]:
    """Each card asked alone, as the probe does when one has no handle."""
    if "device handle" not in words:
        return {}
    return {
        f"{QUERY} -i {card.bus}": ran(query(machine, [i])) if card.listed else ran(words, rc=status)
        for i, card in enumerate(machine.cards)
    }


# --- sysfs and the system --------------------------------------------------------------------

GT_PER_S = {1: "2.5", 3: "8.0", 4: "16.0", 5: "32.0"}


def device(address: str, parent: str | None, **values: str | None) -> dict[str, str | None]:
    """One PCI device as the probe writes it."""
    return {"address": address, "parent": parent, **values}


def bus_entries(card: Card, driver: str | None) -> list[dict[str, str | None]]:
    """The card and the ports above it."""
    chain = [port.address for port in card.ports]
    entry = device(
        card.bus,
        chain[0] if chain else None,
        driver=driver,
        vendor="0x10de",
        device=card.device,
        **{"class": "0x030000"},
        current_link_speed="2.5 GT/s PCIe",
        current_link_width=str(card.width),
        max_link_speed=f"{GT_PER_S[card.gen_max]} GT/s PCIe",
        max_link_width="16",
        numa_node=str(card.numa),
    )
    parents = [*chain[1:], None]
    return [entry, *(port_entry(p, a, card) for p, a in zip(card.ports, parents, strict=True))]


def port_entry(port: Port, parent: str | None, card: Card) -> dict[str, str | None]:
    """One port of the tree."""
    return device(
        port.address,
        parent,
        driver="pcieport",
        vendor=port.vendor,
        device=port.device,
        **{"class": "0x060400"},
        current_link_speed="2.5 GT/s PCIe",
        current_link_width=str(min(port.width, card.width)),
        max_link_speed=f"{GT_PER_S[port.gen_max]} GT/s PCIe",
        max_link_width=str(port.width_max),
        numa_node=str(card.numa),
    )


def bus(machine: Machine) -> list[dict[str, str | None]]:
    """The tree of all cards; the driver is bound unless it does not answer at all."""
    broken = machine.refusal is not None and "communicate" in machine.refusal[1]
    entries = [e for card in machine.cards for e in bus_entries(card, None if broken else "nvidia")]
    for address, number in machine.amd:
        ids = {"vendor": "0x1002", "device": number, "class": "0x030000", "numa_node": "0"}
        entries.append(device(address, None, driver="amdgpu", **ids))
    return sorted(entries, key=lambda entry: entry["address"] or "")


def files(machine: Machine) -> dict[str, str | None]:
    """The text files of the probe's list."""
    loaded = bool(machine.cards) and not (machine.refusal and machine.refusal[0] == 9)
    total = machine.memory_mib * 1024
    return {
        "/etc/os-release": 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\nID=ubuntu\nVERSION_ID="24.04"',
        "/opt/rocm/.info/version": None,
        "/proc/cmdline": "BOOT_IMAGE=/boot/vmlinuz-6.8.0-60-generic root=/dev/sda2 ro quiet",
        "/proc/driver/nvidia/params": None,
        "/proc/driver/nvidia/version": None,
        "/proc/meminfo": f"MemTotal:       {total} kB\nMemAvailable:   {total * 9 // 10} kB",
        "/sys/class/dmi/id/product_name": machine.product,
        "/sys/class/dmi/id/sys_vendor": None,
        "/sys/module/nvidia/version": machine.driver if loaded else None,
    }


def capture(machine: Machine) -> dict[str, Any]:
    """The whole document."""
    bare = machine.virtualization == "none"
    show = "systemctl show"
    return {
        "schema": 1,
        "simulated": True,
        "seconds": 1.2,
        "tools": {
            **nvidia_smi(machine),
            "systemd-detect-virt": ran(f"{machine.virtualization}\n", rc=1 if bare else 0),
            "systemctl --version": ran("systemd 255 (255.4-1ubuntu8.8)\n"),
            show: ran(""),
        },
        "files": files(machine),
        "system": {
            "cpus": machine.cpus,
            "numa_nodes": machine.numa_nodes,
            "kernel": "6.8.0-60-generic",
            "machine": "x86_64",
            "glibc": "2.39",
            "python": [3, 12, 3],
            "uid": 0,
            "iommu_groups": machine.iommu,
        },
        "disks": {"/": 800 << 30, "/var/lib": 800 << 30},
        "pci": bus(machine),
        "managed": [],
        "paths": {},
        "processes": {str(p.pid): p.cgroup for card in machine.cards for p in card.processes},
        "main_processes": {},
        "incomplete": [],
        "end": "multigpu-capture-end",
    }


def text_of(machine: Machine) -> str:
    """The file's content."""
    return json.dumps(capture(machine), indent=1) + "\n"


def main() -> None:
    """Write all files beside this module."""
    for machine in MACHINES:
        path = Path(__file__).parent / f"{machine.name}.json"
        path.write_text(text_of(machine), encoding="ascii")


if __name__ == "__main__":
    main()
