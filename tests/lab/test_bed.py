"""What the lab's hosts are made of, without booting any; no root needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bed import cluster, machines, pci
from bed.cache import cached
from bed.settings import LabError, Settings

from multigpu.host import probe

QUERY = """
import pynvml as n
n.nvmlInit()
cards = [n.nvmlDeviceGetHandleByIndex(i) for i in range(n.nvmlDeviceGetCount())]
print([n.nvmlDeviceGetTopologyCommonAncestor(cards[0], c) for c in cards])
print([n.nvmlDeviceGetP2PStatus(cards[0], c, 0) for c in cards[1:]])
print([n.nvmlDeviceGetUtilizationRates(c).gpu for c in cards])
print([len(n.nvmlDeviceGetComputeRunningProcesses(c)) for c in cards])
print([n.nvmlDeviceGetMemoryInfo(c, version=n.nvmlMemory_v2).used >> 20 for c in cards])
"""


def ask(library: Path, state: Path) -> list[str]:
    table = machines.load("matched").table
    places = {"SIMULATED_GPU_TABLE": str(table), "SIMULATED_GPU_STATE": str(state)}
    done = subprocess.run(
        [sys.executable, "-c", QUERY], capture_output=True, text=True, check=False,
        env={**os.environ, **places, "LD_LIBRARY_PATH": str(library.parent)},
    )  # fmt: skip
    return done.stdout.splitlines() or done.stderr.splitlines()[-1:]


def test_the_real_binding_reads_pairs_and_idle_cards(library: Path, tmp_path: Path) -> None:
    assert ask(library, tmp_path) == ["[0, 30]", "[1]", "[0, 0]", "[0, 0]", "[0, 0]"]


def test_a_card_shows_the_memory_and_work_of_its_process_alone(
    library: Path, tmp_path: Path
) -> None:
    program = "held = bytearray(b'x') * (50 << 20)\nprint('held', flush=True)\nwhile True: pass"
    argv = [sys.executable, "-c", program]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline()
        (tmp_path / "1").mkdir()
        (tmp_path / "1" / str(process.pid)).write_text("0\n")
        _, _, busy, running, used = (json.loads(line) for line in ask(library, tmp_path))
        process.kill()
    assert (busy[0], running, used[0]) == (0, [0, 1], 0)
    # A loop takes a whole core where nothing else runs, and some of it anywhere.
    assert busy[1] >= 2 and 50 <= used[1] <= 80


def test_a_lost_card_raises_as_the_binding_names_it(library: Path, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "fault").write_text("lost\n")
    assert ask(library, tmp_path) == ["pynvml.NVMLError_GpuIsLost: GPU is lost"]


def test_cards_without_a_driver_get_it_back(tmp_path: Path) -> None:
    pci.write(machines.load("mixed"), tmp_path)
    drivers = {d["address"]: d["driver"] for d in probe.read_pci(str(tmp_path))}
    pci.bind(tmp_path, bound=False)
    unbound = {d["address"]: d["driver"] for d in probe.read_pci(str(tmp_path))}
    pci.bind(tmp_path)
    again = {d["address"]: d["driver"] for d in probe.read_pci(str(tmp_path))}
    assert drivers == again and drivers["0000:04:00.0"] == "nvidia"
    assert (unbound["0000:04:00.0"], unbound["0000:00:1c.4"]) == (None, "pcieport")


@pytest.mark.parametrize("name", machines.names())
def test_each_table_says_what_pci_and_nvml_need(name: str, tmp_path: Path) -> None:
    machine = machines.load(name)
    pci.write(machine, tmp_path)
    assert [card.index for card in machine.cards] == list(range(len(machine.cards)))
    for card in machine.cards:
        device = tmp_path / "sys/bus/pci/devices" / card["pci_bus_id"]
        assert (device / "current_link_width").read_text() == f"{card['pcie_width']}\n"
        assert device.resolve().parent.name == card["root_port"]
        assert len((device / "config").read_bytes()) == 256


def test_an_unknown_machine_is_refused_with_the_known_ones() -> None:
    with pytest.raises(LabError, match="no machine called quad; there are matched, mixed"):
        cluster.plan_hosts(Settings(), ["quad"])


def test_hosts_are_named_by_machine_or_by_wish() -> None:
    rows = cluster.plan_hosts(Settings(), ["matched", "matched", "tower=mixed"])
    assert [row.name for row in rows] == ["matched", "matched-2", "tower"]
    assert [row.ip for row in rows] == ["10.77.0.1", "10.77.0.2", "10.77.0.3"]


def test_two_checkouts_never_share_a_name(tmp_path: Path) -> None:
    prefixes = {Settings(checkout=tmp_path / name).prefix for name in ("a", "b")}
    assert len(prefixes) == 2


def test_a_build_that_fails_leaves_nothing_that_looks_built(tmp_path: Path) -> None:
    def fail(partial: Path) -> None:
        partial.write_text("half")
        raise LabError("no space")

    with pytest.raises(LabError):
        cached(tmp_path / "thing", fail)
    path = cached(tmp_path / "thing", lambda partial: partial.symlink_to("whole"))
    assert path.readlink() == Path("whole")
