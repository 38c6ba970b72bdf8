"""The committed machines are what the generator writes, and each is readable."""

from __future__ import annotations

from dataclasses import replace

import pytest

from multigpu.hardware import Gpu
from multigpu.mix import Mix, mix
from multigpu.parse.capture import read
from tests.hosts import HERE, NAMES, captured
from tests.hosts.machines import MACHINES
from tests.rigs.capture import text_of
from tests.rigs.rig import Rig

MIXES = {
    "1x4090": Mix.SINGLE,
    "2x3090-nvlink": Mix.MATCHED,
    "2x3090-x4": Mix.MATCHED,
    "2x4090-no-p2p": Mix.MATCHED,
    "2x7900xtx": Mix.MATCHED,
    "3x3090": Mix.MATCHED,
    "4090+3090": Mix.ARCHITECTURE,
    "4x3090-two-bridges": Mix.MATCHED,
    "5090+3090": Mix.ARCHITECTURE,
    "8xH100-nvswitch": Mix.MATCHED,
    "8xMI210-two-hives": Mix.MATCHED,
    "a6000+3090": Mix.MEMORY,
}


@pytest.mark.parametrize("rig", MACHINES, ids=lambda rig: rig.host.name)
def test_a_committed_machine_is_what_the_generator_writes(rig: Rig) -> None:
    assert (HERE / f"{rig.host.name}.json").read_text(encoding="ascii") == text_of(rig)


def test_a_committed_machine_without_a_source_is_a_real_one() -> None:
    simulated = {name for name in NAMES if read(captured(name), name).simulated}
    assert simulated == {rig.host.name for rig in MACHINES}


@pytest.mark.parametrize(("name", "expected"), MIXES.items())
def test_a_machine_is_as_mixed_as_its_name_says(name: str, expected: Mix) -> None:
    assert mix(read(captured(name), name).usable) is expected


@pytest.mark.parametrize("rig", MACHINES, ids=lambda rig: rig.host.name)
def test_every_card_of_a_machine_has_a_row_at_its_address(rig: Rig) -> None:
    host = read(captured(rig.host.name), rig.host.name)
    assert [gpu.pci_bus_id for gpu in host.gpus] == [gpu.pci_bus_id for gpu in rig.host.gpus]


def test_what_is_unknown_of_a_card_makes_no_difference() -> None:
    known = Gpu(0, memory_mib=24576, compute_capability=(8, 6))
    assert mix((known, replace(known, compute_capability=None))) is Mix.MATCHED
    assert mix((known, replace(known, memory_mib=None))) is Mix.MATCHED
