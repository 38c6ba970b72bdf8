"""The survey screen, as a person reads it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.cautions import warnings
from multigpu.hardware import Gpu, GpuProcess, Host, P2p, PcieLink
from multigpu.parse.capture import read
from multigpu.survey import survey
from tests.hosts import NAMES, captured

GOLDEN = Path(__file__).parent / "surveys"


def machine(name: str) -> Host:
    return read(captured(name), name)


def rules(host: Host) -> list[str]:
    return [caution.rule for caution in warnings(host)]


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.txt")))
def test_a_screen_is_the_one_that_was_looked_at(name: str) -> None:
    assert survey(machine(name)) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def test_the_looked_at_screens_cover_the_kinds_of_machines() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} >= {
        "2x3090-nvlink",
        "2x3090-one-lost",
        "4090+3090",
        "5090+3090",
        "8xH100-nvswitch",
        "no-gpu-driver-broken",
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_line_fits_80_columns_and_ends_without_blanks(name: str) -> None:
    lines = survey(machine(name)).split("\n")
    assert lines[-1] == ""
    assert all(len(line) <= 80 and line == line.rstrip() for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_every_card_has_a_row_and_the_header_says_what_is_simulated(name: str) -> None:
    host = machine(name)
    lines = survey(host).splitlines()
    assert ("SIMULATED" in lines[0]) == host.simulated
    rows = [line for line in lines[1:] if line[:4].strip().isdigit()]
    assert len(rows) == len(host.gpus)


def test_a_real_machine_is_not_called_simulated() -> None:
    assert "SIMULATED" not in survey(replace(machine("1x4090"), simulated=False))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1x4090", []),
        ("2x3090-nvlink", []),
        ("8xH100-nvswitch", []),
        ("2x3090-x4", ["narrow-link", "p2p-refused"]),
        ("4090+3090", ["narrow-link", "power-cap", "p2p-refused"]),
        ("5090+3090", ["vram-in-use", "p2p-refused"]),
        ("3x3090", ["p2p-refused", "iommu-translating"]),
        ("2x4090-vm", ["p2p-refused", "virtual-machine"]),
        ("2xA100-mig", ["mig-on"]),
        ("2x3090-one-lost", ["gpu-unusable"]),
        ("2x7900xtx", ["gpu-unusable"]),
        ("no-gpu-driver-broken", ["capture-problem"]),
    ],
)
def test_a_machine_has_the_warnings_it_deserves(name: str, expected: list[str]) -> None:
    assert rules(machine(name)) == expected


def test_a_warning_says_found_costs_and_what_to_do() -> None:
    found = [caution for name in NAMES for caution in warnings(machine(name))]
    assert all(caution.found and (caution.costs or caution.needed) for caution in found)
    assert all(caution.do for caution in found if "AMD" not in caution.found)


def test_a_healthy_machine_is_told_so_by_what_was_looked_at() -> None:
    assert "  ok every card answers, all lanes are up" in survey(machine("2x3090-nvlink"))


def test_a_machine_without_cards_is_no_healthy_machine() -> None:
    document = json.loads(captured("1x4090"))
    document.update(tools={}, pci=[])
    screen = survey(read(json.dumps(document), "bare"))
    assert screen.startswith("bare · no GPU")
    assert "! no GPU found" in screen
    assert "  ok " not in screen


def test_half_of_the_lanes_is_a_warning_on_bare_metal_only() -> None:
    host = machine("2x4090-vm")
    assert "narrow-link" in rules(replace(host, virtualization="none"))
    assert "narrow-link" not in rules(host)


def test_idle_link_speed_is_never_a_warning() -> None:
    gpu = machine("1x4090").gpus[0]
    slow = replace(gpu, pcie=replace(gpu.pcie, gen_current=1))
    assert warnings(replace(machine("1x4090"), gpus=(slow,))) == ()


def test_a_slot_that_could_carry_more_asks_for_reseating() -> None:
    link = PcieLink(1, 4, 8, 16, "0000:00:01.1", limited_at_width_max=16, width_path=8)
    gpu = replace(machine("1x4090").gpus[0], pcie=link)
    (caution,) = warnings(replace(machine("1x4090"), gpus=(gpu,)))
    assert "reseat" in (caution.do or "")


def test_our_own_unit_is_no_tenant() -> None:
    gpu = machine("1x4090").gpus[0]
    ours = GpuProcess(1, "vllm", 20000, "multigpu-chat.service")
    theirs = replace(ours, unit="ollama.service")
    host = machine("1x4090")
    assert rules(replace(host, gpus=(replace(gpu, processes=(ours,)),))) == []
    assert rules(replace(host, gpus=(replace(gpu, processes=(theirs,)),))) == ["vram-in-use"]


def test_memory_that_nobody_claims_is_noticed() -> None:
    gpu = replace(machine("1x4090").gpus[0], memory_free_mib=20000)
    (caution,) = warnings(replace(machine("1x4090"), gpus=(gpu,)))
    assert "does not name" in caution.found


def test_pairs_of_many_cards_are_grouped_by_connection() -> None:
    host = machine("8xH100-nvswitch")
    assert "  all 28 pairs  NV18 (478 GB/s each way)" in survey(host)
    plain = tuple(replace(pair, nvlinks=0, nvlink_gb_s=None) for pair in host.pairs)
    screen = survey(replace(host, pairs=plain))
    assert "  within 0..3, 4..7  NODE" in screen
    assert "  16 other pairs     SYS" in screen


def test_a_long_product_name_gives_way_and_the_row_stays_whole() -> None:
    gpu = machine("4x3090-two-bridges").gpus[0]
    name = "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition"
    link = PcieLink(1, 5, 8, 16, "0000:00:01.1")
    long = replace(gpu, name=name, memory_mib=97887, pcie=link, power_limit_w=250.0)
    host = replace(machine("4x3090-two-bridges"), gpus=(long,), pairs=())
    row = next(line for line in survey(host).splitlines() if line.startswith("  0"))
    assert len(row) <= 80
    assert row.endswith("250 W")
    assert "97887 MiB" in row and "x8 of x16" in row and "…" in row


MAYBE_INT = st.none() | st.integers(0, 200_000)
GPUS = st.builds(
    Gpu,
    index=st.integers(0, 15),
    name=st.none() | st.text(max_size=60),
    memory_mib=MAYBE_INT,
    memory_free_mib=MAYBE_INT,
    memory_reserved_mib=MAYBE_INT,
    pci_bus_id=st.none() | st.just("0000:01:00.0"),
    pcie=st.builds(PcieLink, *[st.none() | st.integers(1, 32)] * 4),
    power_limit_w=st.none() | st.floats(0, 2000),
    power_limit_default_w=st.none() | st.floats(0, 2000),
    mig=st.none() | st.booleans(),
    error=st.none() | st.text(max_size=40),
)


@given(st.lists(GPUS, max_size=6, unique_by=lambda gpu: gpu.index), st.none() | st.just("kvm"))
def test_whatever_is_unknown_there_is_a_screen(gpus: list[Gpu], virtualization: str | None) -> None:
    host = Host("h", gpus=tuple(gpus), virtualization=virtualization)
    assert survey(host).startswith("h · ")


@pytest.mark.parametrize("verdict", [verdict for verdict in P2p if verdict is not P2p.OK])
def test_every_refusal_of_peer_access_has_its_meaning(verdict: P2p) -> None:
    host = machine("a6000+3090")
    pair = replace(host.pairs[0], p2p_read=verdict)
    (caution,) = warnings(replace(host, pairs=(pair,)))
    assert verdict.value in caution.found and caution.do
