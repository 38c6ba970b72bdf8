"""The topology that amdgpu's compute driver (KFD) shows below /sys/class/kfd/kfd/topology/nodes.

Every NUMA node of the processor and every GPU (every partition of one that is cut up) is a node.
Link types and weights: `include/uapi/linux/kfd_sysfs.h` and `kfd_crat.c` of Linux 6.12.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from multigpu.gfx import gfx_of_target_version
from multigpu.parse.reading import Reading, Unread

PCIE_LINK, XGMI_LINK = 2, 11
# Heap types of mem_banks that are memory of the GPU: public and private frame buffer.
FRAME_BUFFER = (1, 2)
LARGEST = 1 << 64

PATH = re.compile(
    r"(?:^|/)(\d{1,4})/(?:(io_links|p2p_links|mem_banks)/(\d{1,4})/)?(properties|name|gpu_id)$",
    re.ASCII,
)
PROPERTY = re.compile(r"^\s{0,20}([a-z][a-z0-9_]{0,60})\s{1,20}(\d{1,24})\s{0,20}$", re.ASCII)


@dataclass(frozen=True)
class KfdNode:
    """One node; `gpu` is True where it has SIMDs. `memory_mib` is the frame buffer of a GPU.

    `unique_id` and `hive_id` are None where the driver writes 0. `gpu_id` is KFD's own number,
    which names a process' `vram_<gpu_id>`.
    Width and largest clock of the memory are those of the frame buffer's bank (`width`,
    `mem_clk_max`; amdgpu's clock, see multigpu.gpus.gpu_data); `compute_units` are SIMDs over SIMDs
    a unit. `location_id` is as KFD writes it: bus, device and
    function; on a partitioned card the function tells the partition. `p2p_listed` is True when the
    kernel has a list of peer links at all (Linux 6.0 and newer).
    """

    node: int
    gpu: bool = False
    cpu_cores: int | None = None
    simd_count: int | None = None
    gfx: str | None = None
    vendor: str | None = None
    device: str | None = None
    pci_bus_id: str | None = None
    render_node: str | None = None
    unique_id: str | None = None
    hive_id: str | None = None
    memory_mib: int | None = None
    num_xcc: int | None = None
    gpu_id: int | None = None
    name: str | None = None
    p2p_listed: bool = False
    memory_bus_width_bits: int | None = None
    memory_clock_max_mhz: int | None = None
    sm_clock_max_mhz: int | None = None
    compute_units: int | None = None


@dataclass(frozen=True)
class KfdLink:
    """One direction of a link. `type` is 11 for XGMI, 2 for PCIe, 1 between processors.

    One XGMI hop has the `weight` 15 (kfd_crat.c: 15 * hops).

    `peer` marks the links of `p2p_links`: a way of more than one hop over which two devices may
    reach each other's memory. A bandwidth of 0 is not known and is None.
    """

    node_from: int
    node_to: int
    type: int
    weight: int | None = None
    min_bandwidth_mb_s: int | None = None
    max_bandwidth_mb_s: int | None = None
    peer: bool = False


@dataclass(frozen=True)
class KfdTopology:
    """All nodes by number, and all links."""

    nodes: tuple[KfdNode, ...] = ()
    links: tuple[KfdLink, ...] = ()

    @property
    def gpus(self) -> tuple[KfdNode, ...]:
        """The GPU nodes in KFD's order, which is that of ROCr and HIP."""
        return tuple(node for node in self.nodes if node.gpu)

    def between(self, a: int, b: int) -> tuple[KfdLink, ...]:
        """Links of two nodes in either direction."""
        return tuple(k for k in self.links if {k.node_from, k.node_to} == {a, b})


def read_kfd(files: Mapping[str, str]) -> Reading[KfdTopology]:
    """The topology from relative path -> text; paths may begin above the nodes' directory."""
    nodes: dict[int, dict[str, int]] = {}
    words: dict[int, dict[str, str]] = {}
    memory: dict[int, int] = {}
    banks: dict[int, dict[str, int]] = {}
    links: list[KfdLink] = []
    unread: list[Unread] = []
    for path in sorted(files):
        match = PATH.search(path)
        values = _properties(files[path], unread if match and match[4] == "properties" else [])
        if match is None:
            unread += [Unread(1, path[:200])]
            continue
        node, kind = int(match[1]), match[2]
        if match[4] != "properties":
            words.setdefault(node, {})[match[4]] = files[path].strip()
        elif kind is None:
            nodes[node] = values
        elif kind == "mem_banks":
            if values.get("heap_type") in FRAME_BUFFER:
                memory[node] = memory.get(node, 0) + values.get("size_in_bytes", 0)
                banks[node] = values
        elif link := _link(values, kind == "p2p_links"):
            links.append(link)
    found = tuple(
        _with_clocks(_node(n, nodes[n], memory.get(n), words.get(n, {})), nodes[n], banks.get(n))
        for n in sorted(nodes)
    )
    lines = sum(bool(line.strip()) for text in files.values() for line in text.split("\n"))
    return Reading(KfdTopology(found, tuple(links)), tuple(unread), lines)


def _properties(text: str, unread: list[Unread]) -> dict[str, int]:
    """`name value` lines; a number that no 64-bit field holds is not read."""
    found: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        match = PROPERTY.match(line)
        if match and int(match[2]) < LARGEST:
            found[match[1]] = int(match[2])
        elif line.strip():
            unread.append(Unread(number, line[:200]))
    return found


def _node(
    number: int, values: dict[str, int], memory: int | None, words: dict[str, str]
) -> KfdNode:
    gpu = bool(values.get("simd_count"))
    size = memory or values.get("local_mem_size")
    minor = values.get("drm_render_minor")
    gpu_id = words.get("gpu_id", "")
    return KfdNode(
        node=number,
        gpu=gpu,
        cpu_cores=values.get("cpu_cores_count"),
        simd_count=values.get("simd_count"),
        gfx=gfx_of_target_version(values.get("gfx_target_version")),
        vendor=_id(values.get("vendor_id")),
        device=_id(values.get("device_id")),
        pci_bus_id=_address(values) if gpu else None,
        render_node=f"/dev/dri/renderD{minor}" if minor else None,
        unique_id=_wide(values.get("unique_id")),
        hive_id=_wide(values.get("hive_id")),
        memory_mib=size >> 20 if size and gpu else None,
        num_xcc=values.get("num_xcc"),
        gpu_id=int(gpu_id) if re.fullmatch(r"[1-9]\d{0,9}", gpu_id, re.ASCII) else None,
        name=words.get("name") or None,
        p2p_listed="p2p_links_count" in values,
    )


def _with_clocks(node: KfdNode, values: dict[str, int], bank: dict[str, int] | None) -> KfdNode:
    """The GPU node with its bus, clocks and compute units; 0 is not known."""
    if not node.gpu:
        return node
    simds, each = values.get("simd_count"), values.get("simd_per_cu")
    return replace(
        node,
        memory_bus_width_bits=(bank or {}).get("width") or None,
        memory_clock_max_mhz=(bank or {}).get("mem_clk_max") or None,
        sm_clock_max_mhz=values.get("max_engine_clk_fcompute") or None,
        compute_units=simds // each if simds and each else None,
    )


def _link(values: dict[str, int], peer: bool) -> KfdLink | None:
    if not {"node_from", "node_to", "type"} <= set(values):
        return None
    return KfdLink(
        values["node_from"],
        values["node_to"],
        values["type"],
        values.get("weight"),
        values.get("min_bandwidth") or None,
        values.get("max_bandwidth") or None,
        peer,
    )


def _address(values: dict[str, int]) -> str | None:
    """PCI address from domain and location_id (bus << 8 | device << 3 | function)."""
    place = values.get("location_id")
    if not place:
        return None
    domain = values.get("domain", 0) & 0xFFFFFFFF
    return f"{domain:04x}:{place >> 8 & 255:02x}:{place >> 3 & 31:02x}.{place & 7}"


def _id(value: int | None) -> str | None:
    return f"0x{value:04x}" if value else None


def _wide(value: int | None) -> str | None:
    return f"0x{value:016x}" if value else None
