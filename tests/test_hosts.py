"""The committed machines are what the generator writes, and each is readable."""

from __future__ import annotations

import pytest

from multigpu.hardware import Mix, mix
from multigpu.parse.capture import read
from tests.hosts import HERE, NAMES, captured
from tests.hosts.generate import text_of
from tests.hosts.machines import MACHINES, Machine

MIXES = {
    "1x4090": Mix.SINGLE,
    "2x3090-nvlink": Mix.MATCHED,
    "2x3090-x4": Mix.MATCHED,
    "2x4090-no-p2p": Mix.MATCHED,
    "3x3090": Mix.MATCHED,
    "4090+3090": Mix.ARCHITECTURE,
    "4x3090-two-bridges": Mix.MATCHED,
    "5090+3090": Mix.ARCHITECTURE,
    "8xH100-nvswitch": Mix.MATCHED,
    "a6000+3090": Mix.MEMORY,
}


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_a_committed_machine_is_what_the_generator_writes(machine: Machine) -> None:
    assert (HERE / f"{machine.name}.json").read_text(encoding="ascii") == text_of(machine)


def test_a_committed_machine_without_a_source_is_a_real_one() -> None:
    simulated = {name for name in NAMES if read(captured(name), name).simulated}
    assert simulated == {machine.name for machine in MACHINES}


@pytest.mark.parametrize(("name", "expected"), MIXES.items())
def test_a_machine_is_as_mixed_as_its_name_says(name: str, expected: Mix) -> None:
    assert mix(read(captured(name), name).usable) is expected


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_every_card_of_a_machine_has_a_row_at_its_address(machine: Machine) -> None:
    host = read(captured(machine.name), machine.name)
    rows = [gpu.pci_bus_id for gpu in host.gpus]
    assert rows == [*(card.bus for card in machine.cards), *(bus for bus, _ in machine.amd)]
