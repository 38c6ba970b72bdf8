"""A folder of saved outputs: each tells what it can, and what was not saved is no fault."""

from __future__ import annotations

import json

import pytest

from multigpu.cautions import warnings
from multigpu.hardware import Host, P2p
from multigpu.parse.folder import read_folder
from multigpu.survey import survey
from tests.hosts.machines import MACHINES
from tests.rigs import lspci, nvidia_smi, topology
from tests.rigs.dialect import Dialect

TWINS = next(rig.host for rig in MACHINES if rig.host.name == "2x3090-x4")
LISTINGS = {
    "lspci -vvv": lspci.lspci_vvv(TWINS, Dialect()),
    "lspci -nn": lspci.lspci_nn(TWINS, Dialect()),
    "lspci -tv": lspci.lspci_tv(TWINS),
}
XML = nvidia_smi.query_xml(TWINS, Dialect())
BUSES = [gpu.pci_bus_id for gpu in TWINS.gpus]


def machine(*texts: str) -> Host:
    return read_folder({f"{i}.txt": text for i, text in enumerate(texts)}, "saved").machine


@pytest.mark.parametrize("listing", LISTINGS.values(), ids=LISTINGS)
def test_the_cards_of_any_lspci_are_there_and_nothing_is_said_of_a_driver_nobody_asked(
    listing: str,
) -> None:
    saved = machine(listing)
    assert [gpu.pci_bus_id for gpu in saved.gpus] == BUSES
    assert all("known from PCI only" in (gpu.error or "") for gpu in saved.gpus)
    assert "nvidia-smi -q -x" in saved.unseen and saved.usable == ()
    assert not {"driver-missing", "gpu-unusable"} & {c.rule for c in warnings(saved)}
    assert "driver ?" in survey(saved) and "no driver" not in survey(saved)


def test_a_card_that_another_driver_holds_is_said_to_be_so_without_nvidia_smi() -> None:
    held = LISTINGS["lspci -vvv"].replace("in use: nvidia", "in use: vfio-pci")
    assert {gpu.error for gpu in machine(held).gpus} == {
        "bound to the kernel driver vfio-pci, not to nvidia"
    }


def test_the_tree_of_lspci_gives_the_ports_above_the_cards() -> None:
    saved = machine(LISTINGS["lspci -tv"], XML)
    ports = [[hop.address for hop in gpu.pcie.hops] for gpu in saved.gpus]
    assert ports == [[hop.address for hop in gpu.pcie.hops] for gpu in TWINS.gpus]
    assert all(ports)


def test_a_pair_with_a_card_that_is_not_there_is_none() -> None:
    link = {"gpu": 9, "link_type": "XGMI", "link_status": "ENABLED", "bandwidth": "50000-100000"}
    cards = [{"gpu": i, "bdf": f"0000:0{i + 1}:00.0", "links": [link]} for i in range(2)]
    saved = machine(json.dumps(cards, indent=1))
    assert (len(saved.gpus), saved.pairs) == (2, ())


@pytest.mark.parametrize("node", ["9" * 5000, "0-1", "\u0663", ""])
def test_a_numa_node_that_is_no_number_of_a_node_is_unknown(node: str) -> None:
    header = "\tGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\n"
    rows = f"GPU0\t X \tPHB\t0-3\t{node}\tN/A\nGPU1\tPHB\t X \t0-3\t1\tN/A\n"
    saved = machine(XML, header + rows)
    assert [gpu.numa_node for gpu in saved.gpus] == [None, 1]


def test_grants_to_write_are_told_from_those_to_read_by_their_command() -> None:
    reads = topology.peer_access(TWINS, Dialect(), "r")
    writes = "$ nvidia-smi topo -p2p w\n" + reads.replace("CNS", "OK")
    (pair,) = machine(XML, reads, writes).pairs
    assert (pair.p2p_read, pair.p2p_write) == (P2p.CHIPSET_NOT_SUPPORTED, P2p.OK)


def test_the_kernel_names_the_hop_where_nobody_saw_the_ports() -> None:
    line = (
        "[1.5] pci 0000:08:00.0: 63.008 Gb/s available PCIe bandwidth, limited by 16.0 GT/s PCIe "
        "x4 link at 0000:02:00.0 (capable of 252.048 Gb/s with 16.0 GT/s PCIe x16 link)\n"
    )
    first, second = machine(XML, line).gpus
    assert (second.pcie.limited_at, second.pcie.width_path) == ("0000:02:00.0", 4)
    assert first.pcie.limited_at is None
    assert "limited at 0000:02:00.0" in survey(machine(XML, line))
    ports = machine(XML, line, LISTINGS["lspci -vvv"]).gpus[1].pcie
    assert ports.hops and ports == machine(XML, LISTINGS["lspci -vvv"]).gpus[1].pcie
