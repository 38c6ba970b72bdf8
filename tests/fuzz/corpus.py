"""Whole texts of every format, generated, and captured ones where they lie beside the checkout."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from multigpu.hardware import Host, KernelEvent, Vendor
from multigpu.parse import kinds
from multigpu.parse.nccl.nccl_test_values import NcclTest, NcclTestCell, NcclTestRank, NcclTestRow
from multigpu.parse.nccl.nvbandwidth_values import (
    Nvbandwidth,
    NvbandwidthDevice,
    NvbandwidthTest,
)
from tests.hosts.machines import MACHINES
from tests.rigs import (
    amd_amd_smi,
    amd_rocm_smi,
    amd_rocminfo,
    bandwidth,
    engine_logs,
    kernel,
    lspci,
    nccl,
    nvidia_smi,
    nvidia_table,
    topology,
)
from tests.rigs.capture import text_of
from tests.rigs.dialect import DRIVERS, NCCL, PCIUTILS, ROCM, Dialect
from tests.rigs.engine_logs import LLAMA_CPP, VLLM, Rank, Start, Style

RIGS = Path(__file__).parents[2] / "../shared/rigs"
FIELDS = ("index", "name", "uuid", "pci.bus_id", "memory.total", "pcie.link.width.current")
HELP = (
    'List of valid properties to query for the switch "--query-gpu=":\n\n'
    '"timestamp"\nThe timestamp of when the query was made in format "YYYY/MM/DD".\n\n'
    '"pci.bus_id" or "gpu_bus_id"\nPCI bus id as "domain:bus:device.function", in hex.\n\n'
    "Section about clocks properties\nList of clocks.\n\n"
    '"clocks.current.graphics" or "clocks.gr"\nCurrent frequency of graphics clock.\n'
)
EVENTS = (
    KernelEvent("xid", address="0000:41:00.0", code=79, text="GPU has fallen off the bus.", pid=7),
    KernelEvent("xid", address="0000:01:00.0", code=31, text="MMU Fault: ENGINE GRAPHICS", lines=3),
    KernelEvent("sxid", address="0000:05:00.0", code=20034, text="Fatal, Link 48", fatal=True),
    KernelEvent("aer", address="0000:01:00.0", text="Corrected error received"),
)
START = Start(
    *("org/model", "LlamaForCausalLM", 8192),
    ranks=(Rank(3.75, 10.5, 0.5), Rank(3.75, 10.5, 0.5)),
    kv_tokens=56_736,
    concurrency=6.92,
    host=(89.25, 12.5),
)
SIZES: dict[str, object] = {
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}
CELL = NcclTestCell(time_us=35.5, algbw_gb_s=1.25, busbw_gb_s=2.5, wrong=0)
MATRIX = ((None, 26.5), (26.25, None))


def hosts(vendor: Vendor) -> list[Host]:
    """Generated machines with cards of this vendor."""
    found = [rig.host for rig in MACHINES if any(g.vendor is vendor for g in rig.host.gpus)]
    return sorted(found, key=lambda host: -len(host.gpus))[:4]


@cache
def corpus() -> list[tuple[str, str]]:
    """(name of the format, text)."""
    texts = [*nvidia(), *pci(), *amd(), *logs(), *measurements(), *models()]
    texts += [("captured-machine", text_of(rig)) for rig in MACHINES]
    return texts + captured()


def nvidia() -> list[tuple[str, str]]:
    """Every release of nvidia-smi, of the machine with most cards and of two others."""
    found = [("nvidia-smi-help-query-gpu", HELP)]
    for host in hosts(Vendor.NVIDIA)[:3]:
        for driver in DRIVERS:
            dialect = Dialect(driver=driver, pasted=driver < "5")
            found += [
                ("nvidia-smi-q-x", nvidia_smi.query_xml(host, dialect)),
                ("nvidia-smi-q", nvidia_smi.query_text(host, dialect)),
                ("nvidia-smi-query-gpu", nvidia_smi.query_csv(host, dialect, FIELDS)),
                ("nvidia-smi-list", nvidia_smi.list_gpus(host, dialect)),
                ("nvidia-smi-table", nvidia_table.table(host, dialect)),
                ("nvidia-smi-topo-m", topology.topo(host, dialect)),
                ("nvidia-smi-topo-mp", topology.topo(host, dialect, pcie=True)),
                ("nvidia-smi-topo-p2p", topology.peer_access(host, dialect, "r")),
                ("nvidia-smi-nvlink-s", topology.nvlink_s(host, dialect)),
            ]
    return found


def pci() -> list[tuple[str, str]]:
    """Every layout of lspci."""
    found = []
    for host in (*hosts(Vendor.NVIDIA)[:2], *hosts(Vendor.AMD)[:2]):
        for release in PCIUTILS:
            dialect = Dialect(pciutils=release)
            found.append(("lspci-vv", lspci.lspci_vvv(host, dialect)))
        found.append(("lspci-nn", lspci.lspci_nn(host, Dialect())))
        found.append(("lspci-tv", lspci.lspci_tv(host)))
    return found


def amd() -> list[tuple[str, str]]:
    """Every release of ROCm."""
    found = []
    for host in hosts(Vendor.AMD):
        for release in ROCM:
            dialect = Dialect(rocm=release)
            found += [
                ("rocm-smi-json", amd_rocm_smi.rocm_smi_json(host, dialect)),
                ("rocm-smi-csv", amd_rocm_smi.rocm_smi_csv(host, dialect)),
                ("rocm-smi", amd_rocm_smi.rocm_smi_table(host, dialect)),
                ("rocm-smi", amd_rocm_smi.rocm_smi_lines(host, dialect)),
                ("rocm-smi-showtopo", amd_rocm_smi.rocm_smi_topo(host, dialect)),
                ("amd-smi", amd_amd_smi.amd_smi_text(host, dialect, "static")),
                ("amd-smi-json", amd_amd_smi.amd_smi_json(host, dialect, "static")),
                ("rocminfo", amd_rocminfo.rocminfo(host, dialect)),
            ]
    return found


def logs() -> list[tuple[str, str]]:
    """The kernel with every prefix, NCCL and the engines with every wording."""
    events = [(1_000_000 * (i + 1), event) for i, event in enumerate(EVENTS)]
    gpus = hosts(Vendor.NVIDIA)[0].gpus[:4]
    ways = {(0, 1): ("P2P/CUMEM/read",), (1, 2): ("SHM/direct/direct",), (2, 3): ("NET/IB/1",)}
    found = [
        ("kernel-log", kernel.render(events, Dialect(log_prefix=prefix)))
        for prefix in kernel.PREFIXES
    ]
    found += [("nccl-log", nccl.render(gpus, ways, Dialect(nccl=release))) for release in NCCL]
    for style in (Style(), Style(journal=True), Style(pasted=True, colour=True)):
        found += [("vllm-log", engine_logs.vllm(START, version, style)) for version in VLLM]
        found += [("llama-cpp-log", engine_logs.llama_cpp(START, r, style)) for r in LLAMA_CPP]
        found.append(("sglang-log", engine_logs.sglang(START, style)))
    return found


def measurements() -> list[tuple[str, str]]:
    """Bandwidth tests."""
    rank = NcclTestRank(0, 4000, "rig-7", 0, pci_bus=1, name="NVIDIA GeForce RTX 3090")
    rows = tuple(NcclTestRow(8 << i, 2 << i, "float", "sum", -1, CELL, CELL) for i in range(9))
    test = NcclTest("all_reduce", 1, 2, (rank,), rows, 0, 2.5)
    devices = [(i, "NVIDIA GeForce RTX 3090", f"0000:0{i + 1}:00.0") for i in range(2)]
    access = [(0, 1, True), (1, 0, True)]
    tables = [("Unidirectional", False, None, MATRIX), ("GPU", True, "writes", MATRIX)]
    run = Nvbandwidth(
        version="v0.8",
        git_version="v0.8",
        cuda_runtime_version=12080,
        cuda_driver_version=13000,
        driver_version="580.105.08",
        devices=(NvbandwidthDevice(0, "NVIDIA GeForce RTX 3090", "0000:01:00.0"),),
        tests=(
            NvbandwidthTest(
                "device_to_device", "ok", "memcpy CE (GB/s)", cells=MATRIX, total=52.75
            ),
        ),
    )
    found = [
        (
            "nccl-tests",
            bandwidth.render_nccl_tests([test, test], Dialect(nccl_tests=r), interleaved=i),
        )
        for r in ("2.0", "2.13")
        for i in (False, True)
    ]
    found.append(
        ("p2p-bandwidth-latency", bandwidth.render_p2p(devices, access, tables, Dialect()))
    )
    found.append(("nvbandwidth", bandwidth.render_nvbandwidth(run, Dialect())))
    found.append(("nvbandwidth", bandwidth.render_nvbandwidth_json(run)))
    return found


def models() -> list[tuple[str, str]]:
    """Model configurations."""
    found = [
        ("hf-config", engine_logs.config_json(SIZES, nested, spelling))
        for nested in (False, True)
        for spelling in ("torch_dtype", "dtype")
    ]
    for new in (False, True):
        found.append(("gguf-metadata", "\n".join(engine_logs.print_meta("llama", 32, new))))
    found.append(
        (
            "hf-config",
            json.dumps({**SIZES, "model_type": "llama", "layer_types": ["full_attention"] * 32}),
        )
    )
    return found


def captured() -> list[tuple[str, str]]:
    """Captured outputs, each as the format it is guessed to be."""
    found = []
    for path in sorted(RIGS.glob("*/*")) if RIGS.is_dir() else []:
        text = path.read_bytes().decode("utf-8", "backslashreplace")
        kind = None if "\0" in text or "tar" in path.suffixes else kinds.guess(text)
        if kind is not None:
            found.append((kind.name, text))
    return found
