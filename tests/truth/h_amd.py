"""What is true of the captured outputs of AMD hosts."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from pathlib import Path

from multigpu.hardware import Vendor
from multigpu.parse.amd import amd_smi, rocm_smi
from multigpu.parse.amd.kfd import read_kfd
from multigpu.parse.amd.rocminfo import read_rocminfo


def mi100(path: Path) -> None:
    """ROCm 6.0.2: `Device ID`, values as strings, four cards and `system`, clock tables."""
    text = path.read_text(encoding="utf-8")
    printed = json.loads(text)
    assert list(printed) == ["card0", "card1", "card2", "card3", "system"]
    assert all(isinstance(value, str) for card in printed.values() for value in card.values())
    assert {"Device ID", "Device Rev", "0", "1"} <= set(printed["card0"])
    reading = rocm_smi.read_json(text)
    assert reading.unread == () and reading.value.driver == "6.3.6"
    assert [gpu.index for gpu in reading.value.gpus] == [0, 1, 2, 3]
    for gpu in reading.value.gpus:
        assert (gpu.vendor, gpu.gfx, gpu.memory_mib) == (Vendor.AMD, "gfx908", 32752)
        assert gpu.power_limit_w == 290.0 and (gpu.temperature_c or 0) > 0
        assert (gpu.pcie.gen_current, gpu.pcie.width_current) == (4, 16)
        assert gpu.name == "Arcturus GL-XL [Instinct MI100]"
    first, second, *_ = reading.value.gpus
    assert (first.pci_bus_id, first.numa_node) == ("0000:83:00.0", 1)
    assert (first.uuid, second.uuid) == ("0x79ccd55167a2124a", "0x04edfb117a17a07d")
    assert (first.memory_free_mib, first.power_draw_w) == (32745, 36.0)
    pairs = reading.value.pairs
    assert [(pair.a, pair.b) for pair in pairs] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert {pair.xgmi_links for pair in pairs} == {0}


def rx6700xt_new(path: Path) -> None:
    """ROCm 6.1.2 adds `Device Name` and `GUID`, and renames the use of memory."""
    text = path.read_text(encoding="utf-8")
    printed = json.loads(text)["card0"]
    assert {"Device Name", "GUID", "GPU Memory Allocated (VRAM%)"} <= set(printed)
    reading = rocm_smi.read_json(text)
    assert reading.unread == ()
    (gpu,) = reading.value.gpus
    assert gpu.name == "Navi 22 [Radeon RX 6700/6700 XT / 6800M]" and gpu.gfx == "gfx1031"
    assert (gpu.memory_mib, gpu.memory_free_mib) == (12272, 10772)
    # "Unique ID": "N/A"; consumer cards before RDNA 3 have none.
    assert gpu.uuid is None and gpu.numa_node == 0
    assert gpu.vbios_version == "113-67XA6SSB1-D01"


def rx6700xt_old(path: Path) -> None:
    """ROCm 4.3: `GPU ID`, and the vendor's number in place of a name."""
    text = path.read_text(encoding="utf-8")
    printed = json.loads(text)["card0"]
    assert "GPU ID" in printed and "Device ID" not in printed
    reading = rocm_smi.read_json(text)
    assert reading.unread == () and reading.value.driver == "6.3.6"
    (gpu,) = reading.value.gpus
    assert gpu.name is None and gpu.gfx == "gfx1031"
    assert (gpu.memory_mib, gpu.pci_bus_id) == (12272, "0000:07:00.0")
    assert (gpu.power_limit_w, gpu.power_draw_w, gpu.temperature_c) == (211.0, 6.0, 45)
    assert (gpu.pcie.gen_current, gpu.pcie.width_current, gpu.pcie.replays) == (4, 16, 0)


def mi300a(path: Path) -> None:
    """Four MI300A, each in a PCI domain of its own."""
    reading = amd_smi.read_text(path.read_text(encoding="utf-8"))
    assert reading.unread == () and reading.value.driver == "6.9.0-rc5+"
    gpus = reading.value.gpus
    addresses = [f"000{i}:01:00.0" for i in range(4)]
    assert [gpu.pci_bus_id for gpu in gpus] == addresses
    for index, gpu in enumerate(gpus):
        assert (gpu.index, gpu.name, gpu.gfx) == (index, "MI300A", "gfx942")
        assert (gpu.pcie.width_max, gpu.pcie.gen_max) == (16, 5)
        assert (gpu.compute_partition, gpu.memory_partition) == ("SPX", "NPS1")
        assert gpu.unified_memory and gpu.numa_node == index
        assert (gpu.memory_mib, gpu.power_limit_max_w, gpu.ecc) == (64289, 550.0, False)
        assert gpu.vbios_version is None
    assert gpus[0].uuid == "0x7e8f7e20764e2714"


def mi300x_samples(path: Path) -> None:
    """Three commands in one Markdown file, each cut: what was printed of a GPU comes together."""
    reading = amd_smi.read_text(path.read_text(encoding="utf-8"))
    first, second, third = reading.value.gpus
    assert first.name == "MI300X-O" and first.gfx == "gfx942"
    assert (first.pci_bus_id, first.pcie.gen_max, first.pcie.width_max) == ("0000:05:00.0", 5, 16)
    assert first.power_draw_w == 234.0 and first.memory_mib is None
    # The UUID of `list` and the serial number of `static` are the same number.
    assert first.uuid == "0xaf54e92b0a5d57c8"
    assert (second.uuid, second.name) == ("0x0a5bce698de95724", None)
    assert third.pci_bus_id == "0000:46:00.0"
    assert sum("[output truncated]" in line.text for line in reading.unread) == 3


def mi300x_table(path: Path) -> None:
    """Eight cards in two lines each; VRAM only in percent."""
    reading = rocm_smi.read_text(path.read_text(encoding="utf-8"))
    assert [line.text for line in reading.unread] == ["$ rocm-smi"]
    assert [gpu.index for gpu in reading.value.gpus] == list(range(8))
    for gpu in reading.value.gpus:
        assert gpu.name == "AMD Instinct MI300X" and gpu.gfx == "gfx942"
        assert gpu.memory_mib is None and gpu.memory_free_mib is None
        assert (gpu.compute_partition, gpu.memory_partition) == ("SPX", "NPS1")
        assert gpu.power_limit_w == 750.0
    assert [gpu.power_draw_w for gpu in reading.value.gpus][:3] == [173.0, 179.0, 180.0]
    assert reading.value.gpus[4].temperature_c == 45


def mi210_topology(path: Path) -> None:
    """Two hives of four cards; a card of one hive is a peer of those of the other over PCIe."""
    with tarfile.open(path) as archive:
        members = [member for member in archive if member.isfile()]
        streams = {member.name: archive.extractfile(member) for member in members}
        files = {name: stream.read().decode() for name, stream in streams.items() if stream}
    reading = read_kfd(files)
    topology = reading.value
    assert reading.unread == () and [node.node for node in topology.nodes] == list(range(10))
    assert [node.gpu for node in topology.nodes] == [False] * 2 + [True] * 8
    assert [node.simd_count for node in topology.nodes] == [0] * 2 + [416] * 8
    for node in topology.gpus:
        assert (node.vendor, node.device, node.gfx) == ("0x1002", "0x740f", "gfx90a")
    assert len({node.hive_id for node in topology.gpus}) == 2
    assert topology.gpus[0].pci_bus_id == "0000:63:00.0"
    assert topology.gpus[0].unique_id == f"0x{1801979520617338022:016x}"
    assert topology.gpus[7].render_node == "/dev/dri/renderD135"
    assert Counter((link.type, link.peer) for link in topology.links) == {
        (11, False): 24,
        (2, False): 16,
        (1, False): 2,
        (2, True): 48,
    }
    (one, _) = topology.between(2, 3)
    assert (one.type, one.weight, one.max_bandwidth_mb_s) == (11, 15, 50000)
    assert all(link.peer and link.type == 2 for link in topology.between(2, 6))


def vega20_agents(path: Path) -> None:
    """One socket is four NUMA nodes, each an agent before the cards."""
    reading = read_rocminfo(path.read_text(encoding="utf-8"))
    agents = reading.value.agents
    assert [agent.type for agent in agents] == ["CPU"] * 4 + ["GPU"] * 8
    assert [agent.node for agent in agents] == list(range(12))
    assert {agent.name for agent in agents[:4]} == {"AMD EPYC 7551P 32-Core Processor"}
    buses = ["07", "0a", "2a", "2d", "45", "48", "65", "68"]
    gpus = reading.value.gpus
    assert [gpu.pci_bus_id for gpu in gpus] == [f"0000:{bus}:00.0" for bus in buses]
    for gpu in gpus:
        assert (gpu.gfx, gpu.name, gpu.memory_mib) == ("gfx906", "Vega 20", 32752)
        assert gpu.uuid is None and gpu.unified_memory is None
    texts = [line.text.strip() for line in reading.unread]
    assert texts == ["ROCk module is loaded", "test is member of video group"]


TRUTH = {
    "h_amd/rocm_smi_mi100_rocm602.json": mi100,
    "h_amd/rocm_smi_rx6700xt_rocm612.json": rx6700xt_new,
    "h_amd/rocm_smi_rx6700xt_rocm430.json": rx6700xt_old,
    "h_amd/amd_smi_static_4x_mi300a.txt": mi300a,
    "h_amd/amd_smi_list_static_metric_mi300x_blog.md": mi300x_samples,
    "h_amd/rocm_smi_concise_8x_mi300x.txt": mi300x_table,
    "h_amd/kfd_topology_8x_mi210_xgmi_pcie.tar": mi210_topology,
    "h_amd/rocminfo_8x_vega20.txt": vega20_agents,
}
