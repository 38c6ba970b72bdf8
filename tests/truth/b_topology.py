"""Captured `nvidia-smi topo` and `nvidia-smi nvlink -s`: what the index says of each file."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

from multigpu.parse.nvidia_smi.nvlink import Nvlinks, read_nvlink_status
from multigpu.parse.nvidia_smi.topology import KINDS, Topology, read_topologies
from multigpu.parse.reading import Reading

FOLDER = "b_topology"
TOPO_M, NVLINK_S = "nvidia-smi-topo-m", "nvidia-smi-nvlink-s"


def text_of(path: Path, kind: str) -> str:
    """The file's text, which only the reader of that kind recognises."""
    text = path.read_text(encoding="utf-8")
    assert [k.name for k in KINDS if k.recognise(text) > 0.5] == [kind]
    return text


def topologies(path: Path) -> Reading[tuple[Topology, ...]]:
    return read_topologies(text_of(path, TOPO_M))


def only(path: Path) -> Topology:
    """The one matrix of a file; a prompt or a wrapped legend line may stay unread."""
    reading = topologies(path)
    assert all("Affinity" not in u.text and "GPU" not in u.text for u in reading.unread)
    (topology,) = reading.value
    assert not topology.grants
    return topology


def every_pair(topology: Topology, count: int, cell: str) -> None:
    assert topology.gpus == tuple(range(count))
    assert len(topology.cells) == count * (count - 1)
    assert set(topology.cells.values()) == {cell}


def two_gpus_with_nv2(path: Path) -> None:
    topology = only(path)
    every_pair(topology, 2, "NV2")
    assert topology.cpu_affinity == {0: "0-23", 1: "0-23"}
    assert topology.numa_affinity == {0: None, 1: None}
    assert topology.gpu_numa_id == {}


def two_gpus_with_phb(path: Path) -> None:
    topology = only(path)
    every_pair(topology, 2, "PHB")
    assert topology.cpu_affinity == {0: "0-11", 1: "0-11"}
    assert topology.numa_affinity == {0: None, 1: None}


def eight_a100(path: Path) -> None:
    topology = only(path)
    every_pair(topology, 8, "NV12")
    assert topology.numa_affinity == {i: "0" if i < 4 else "1" for i in range(8)}
    assert topology.cpu_affinity == {i: "0-23" if i < 4 else "24-47" for i in range(8)}


def two_4090_with_two_nics(path: Path) -> None:
    topology = only(path)
    every_pair(topology, 2, "NODE")
    assert topology.nics == ("NIC0", "NIC1")
    assert set(topology.nic_cells.values()) == {"NODE"}
    assert topology.cpu_affinity == {0: "0-63", 1: "0-63"}
    assert topology.numa_affinity == {0: "0", 1: "0"}
    assert topology.gpu_numa_id == {0: None, 1: None}


def four_ada_in_two_sockets(path: Path) -> None:
    topology = only(path)
    assert topology.gpus == (0, 1, 2, 3)
    near = {(0, 1), (2, 3)}
    assert {pair: topology.cells[pair] for pair in combinations(range(4), 2)} == {
        pair: "NODE" if pair in near else "SYS" for pair in combinations(range(4), 2)
    }
    assert topology.numa_affinity == {0: "0", 1: "0", 2: "1", 3: "1"}
    assert topology.nics == ("mlx5_0", "mlx5_1", "mlx5_2", "mlx5_3")
    assert topology.nic_cells[2, "mlx5_3"] == "NODE"
    assert topology.asked == "-m"


def a_switch_without_peer_access(path: Path) -> None:
    reading = topologies(path)
    paths, grants = reading.value
    assert (paths.asked, grants.asked) == ("-m", "-p2p p")
    every_pair(paths, 2, "PIX")
    assert paths.cpu_affinity == {0: "24-47,72-95", 1: "24-47,72-95"}
    assert paths.numa_affinity == {0: "1", 1: "1"}
    assert grants.grants
    every_pair(grants, 2, "NS")
    assert reading.unread == ()


def eight_a100_nvlinks(path: Path) -> None:
    reading = read_nvlink_status(text_of(path, NVLINK_S))
    assert [gpu.index for gpu in reading.value] == list(range(8))
    assert sum(len(gpu.gb_s) for gpu in reading.value) == 96
    assert {rate for gpu in reading.value for rate in gpu.gb_s} == {25.0}
    assert reading.unread == ()


def gpu_seven(path: Path) -> None:
    (gpu,) = read_nvlink_status(text_of(path, NVLINK_S)).value
    assert gpu == Nvlinks(
        7, "GPU-c7e253b0-c227-6f10-e860-7482c85e7ce8", "NVIDIA A100-SXM4-80GB", (25.0,) * 12
    )


def underlined_header_of_one_gpu(path: Path) -> None:
    assert "\x1b[4m" in path.read_text(encoding="utf-8")
    topology = only(path)
    assert (topology.gpus, topology.cells, topology.nics) == ((0,), {}, ())
    assert topology.cpu_affinity == {0: "0-7"}
    assert topology.numa_affinity == {0: "0"}
    assert topology.gpu_numa_id == {0: None}
    assert topologies(path).unread == ()


def no_nvlink(path: Path) -> None:
    reading = read_nvlink_status(text_of(path, NVLINK_S))
    (gpu,) = reading.value
    assert gpu.gb_s == ()
    assert gpu.refusal == "Device does not have or support Nvlink"
    assert reading.unread == ()


def two_ada_with_two_nics(path: Path) -> None:
    topology = only(path)
    every_pair(topology, 2, "PHB")
    assert topology.nics == ("mlx5_0", "mlx5_1")
    assert {cell for (_, nic), cell in topology.nic_cells.items() if nic} == {"NODE"}
    assert len(topology.nic_cells) == 4


def eight_h100(path: Path) -> None:
    topology = only(path)
    every_pair(topology, 8, "NV18")
    ranges = ("0-51,104-155", "52-103,156-207")
    assert topology.cpu_affinity == {i: ranges[i // 4] for i in range(8)}
    assert topology.numa_affinity == {i: str(i // 4) for i in range(8)}


TRUTH: dict[str, Callable[[Path], None]] = {
    f"{FOLDER}/{name}": truth
    for name, truth in {
        "2gpu_nv2_old_columns.txt": two_gpus_with_nv2,
        "2gpu_phb_old_columns.txt": two_gpus_with_phb,
        "8x_a100_nv12_compact_spaces.txt": eight_a100,
        "2x_rtx4090_node_2nic.txt": two_4090_with_two_nics,
        "4x_rtx6000ada_node_sys_4nic.txt": four_ada_in_two_sockets,
        "2x_2080ti_pix_and_p2p_p_NS.txt": a_switch_without_peer_access,
        "nvlink_s_8x_a100.txt": eight_a100_nvlinks,
        "nvlink_s_1gpu_good.txt": gpu_seven,
        "l40s_topo_ansi_1gpu.txt": underlined_header_of_one_gpu,
        "l40s_nvlink_s_unsupported.txt": no_nvlink,
        "2x_rtx6000ada_phb_2nic.txt": two_ada_with_two_nics,
        "8x_h100_nv18_threads_ranges.txt": eight_h100,
    }.items()
}
