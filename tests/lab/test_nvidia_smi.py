"""The guest's nvidia-smi on this machine, without booting a host; no root needed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from bed import gpus, machines, pci
from bed.settings import Settings

from multigpu.hardware import Host, Limit, P2p
from multigpu.hardware import Path as PciPath
from multigpu.host import probe
from multigpu.parse.capture import read

pytestmark = pytest.mark.process


@dataclass(frozen=True)
class Guest:
    """Files of a host that never boots; its nvidia-smi runs on this machine's Python."""

    root: Path
    library: Path
    machine: machines.Machine

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What nvidia-smi says; without site-packages, so that only what is shipped is found."""
        places = {
            "SIMULATED_GPU_TABLE": str(self.machine.table),
            "SIMULATED_GPU_STATE": str(self.root / "state"),
            "LD_LIBRARY_PATH": str(self.library.parent),
            "PYTHONPATH": str(self.root / "usr/lib/python3/dist-packages"),
        }
        return subprocess.run(
            [sys.executable, "-S", self.root / gpus.PROGRAMS["nvidia-smi"], *words],
            capture_output=True, text=True, check=False, cwd=self.root, env=places,
        )  # fmt: skip

    def lose(self, index: int) -> None:
        fault = self.root / f"state/{index}/fault"
        fault.parent.mkdir(parents=True)
        fault.write_text("lost\n")

    def survey(self) -> Host:
        """The machine as our own readers see it through the probe's calls."""
        calls = [command for command, _ in probe.COMMANDS if command.startswith("nvidia-smi")]
        done = {call: self.run(*call.split()[1:]) for call in calls}
        tools = {
            call: {"rc": d.returncode, "stdout": d.stdout.split("\n"), "stderr": []}
            for call, d in done.items()
        }
        devices = probe.read_pci(str(self.root / gpus.HOME / "pci"))
        document = {"schema": 1, "tools": tools, "pci": devices, "end": probe.END}
        return read(json.dumps(document, indent=1), "guest")


@pytest.fixture
def guest(library: Path, tmp_path: Path) -> Callable[[str], Guest]:
    def make(name: str) -> Guest:
        machine = machines.load(name)
        gpus.programs(Settings(), tmp_path)
        pci.write(machine, tmp_path / gpus.HOME / "pci")
        return Guest(tmp_path, library, machine)

    return make


@pytest.mark.parametrize("name", machines.names())
def test_our_readers_see_the_table_in_what_nvidia_smi_prints(
    guest: Callable[[str], Guest], name: str
) -> None:
    host = guest(name).survey()
    assert host.simulated and not [problem for problem in host.problems if "nvidia-smi" in problem]
    assert (host.driver, host.cuda) == ("570.153.02", "12.8")
    (pair,) = host.pairs
    assert (pair.path, pair.nvlinks) == (PciPath.PHB, 0)
    assert {pair.p2p_read, pair.p2p_write} == {P2p.CHIPSET_NOT_SUPPORTED}
    for gpu, card in zip(host.gpus, machines.load(name).cards, strict=True):
        told = (gpu.index, gpu.uuid, gpu.name, gpu.pci_bus_id, gpu.cpu_affinity)
        assert told == (card.index, *(card[k] for k in ("uuid", "name", "pci_bus_id", "cpus")))
        sizes = (gpu.memory_mib, gpu.memory_reserved_mib, gpu.numa_node, gpu.temperature_c)
        keys = ("memory_mib", "reserved_mib", "numa_node", "temperature_c")
        assert sizes == tuple(int(card[key]) for key in keys)
        watts = (gpu.power_draw_w, gpu.power_limit_w, gpu.power_limit_default_w)
        keys = ("power_w", "power_limit_w", "power_limit_default_w")
        assert watts == tuple(float(card[key]) for key in keys)
        capability = (int(card["compute_major"]), int(card["compute_minor"]))
        assert (gpu.compute_capability, gpu.resizable_bar) == (capability, False)


def test_the_ports_of_a_machine_tell_why_a_card_is_narrow(guest: Callable[[str], Guest]) -> None:
    first, second = guest("mixed").survey().gpus
    assert (first.pcie.limited_by, first.pcie.behind_chipset) == (None, False)
    assert (second.pcie.limited_by, second.pcie.width_current) == (Limit.CHIPSET, 4)


def test_a_lost_card_keeps_its_row_and_its_address_in_every_answer(
    guest: Callable[[str], Guest],
) -> None:
    host = guest("matched")
    host.lose(1)
    first, second = host.survey().gpus
    assert (first.error, first.memory_mib) == (None, 24576)
    assert (second.index, second.pci_bus_id, second.memory_mib) == (1, "0000:02:00.0", None)
    assert "lost" in (second.error or "")
    listed = host.run("-L")
    assert listed.returncode == 15 and "0000:02:00.0: GPU is lost" in listed.stdout
    cells = host.run("--query-gpu=name,memory.total", "--format=csv,noheader").stdout
    assert cells.splitlines()[1] == "[GPU is lost], [GPU is lost]"


@pytest.mark.parametrize("words", ["", "-q", "-q -x"])
def test_every_format_with_room_for_a_remark_says_simulated(
    guest: Callable[[str], Guest], words: str
) -> None:
    done = guest("matched").run(*words.split())
    assert done.returncode == 0, done.stderr
    assert "simulated by the multigpu lab" in done.stdout


def test_what_nvidia_smi_does_not_know_it_refuses(guest: Callable[[str], Guest]) -> None:
    host = guest("matched")
    refused = host.run("--gpu-reset")
    assert refused.returncode == 2 and "simulated" in refused.stdout
    unknown = host.run("--query-gpu=name,colour", "--format=csv")
    assert unknown.returncode == 2
    assert unknown.stdout.startswith('Field "colour" is not a valid field to query.')


def test_without_a_driver_nvidia_smi_ends_as_the_real_one_does(
    guest: Callable[[str], Guest], tmp_path: Path
) -> None:
    host = guest("matched")
    without = replace(host, machine=replace(host.machine, table=tmp_path / "nothing"))
    done = without.run("-L")
    assert done.returncode == 9
    assert done.stdout.startswith("NVIDIA-SMI has failed because it couldn't communicate")
    seen = without.survey()
    assert seen.simulated and [gpu.name for gpu in seen.usable] == []
    assert any("modprobe nvidia" in problem for problem in seen.problems)
