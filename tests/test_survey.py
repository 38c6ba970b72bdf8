"""The survey screen, as a person reads it."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.cautions import Severity, warnings
from multigpu.hardware import Gpu, GpuPair, GpuProcess, Host, LeftOut, P2p, Path, PcieLink, Vendor
from multigpu.parse.capture import read
from multigpu.survey import survey
from tests import surveys
from tests.hosts import NAMES, captured
from tests.rigs.strategies import amd_hosts, nvidia_hosts


def machine(name: str) -> Host:
    return read(captured(name), name)


def rows_of_cards(screen: str) -> list[str]:
    """Lines that begin with an index and end it with two blanks."""
    return [line for line in screen.splitlines() if re.match(r" +[0-9]+  \S", line)]


def rules(host: Host) -> list[str]:
    return [caution.rule for caution in warnings(host)]


@pytest.mark.parametrize("name", surveys.NAMES)
def test_a_screen_is_the_one_that_was_looked_at(name: str) -> None:
    assert surveys.screen(name) == (surveys.HERE / f"{name}.txt").read_text(encoding="utf-8")


def test_the_looked_at_screens_cover_the_kinds_of_machines() -> None:
    assert set(surveys.NAMES) >= {
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
    assert len(rows_of_cards("\n".join(lines))) == len(host.gpus)


def test_a_real_machine_is_not_called_simulated() -> None:
    assert "SIMULATED" not in survey(replace(machine("1x4090"), simulated=False))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1x4090", []),
        ("2x3090-nvlink", []),
        ("8xH100-nvswitch", []),
        ("2x3090-x4", ["narrow-link", "p2p-refused"]),
        ("4090+3090", ["narrow-link", "power-cap", "p2p-refused", "mixed-architecture"]),
        ("a6000+3090", ["p2p-refused", "mixed-memory"]),
        ("3x3090", ["p2p-refused"]),
        ("2x4090-vm", ["p2p-refused"]),
        ("2xA100-mig", ["mig-on"]),
        ("no-gpu-driver-broken", ["capture-problem"]),
    ],
)
def test_a_machine_has_the_warnings_it_deserves(name: str, expected: list[str]) -> None:
    """Beside the notes, which grow with what the probe sees."""
    found = warnings(machine(name))
    assert [c.rule for c in found if c.severity is not Severity.NOTE] == expected


def test_a_lost_card_is_told_of_and_its_twin_is_not() -> None:
    found = [c for c in warnings(machine("2x3090-one-lost")) if c.severity is Severity.BROKEN]
    assert "gpu-unusable" in [c.rule for c in found]
    assert {i for c in found for i in c.gpus} == {1}


def test_a_desktop_and_a_tenant_on_a_card_are_two_findings() -> None:
    host = machine("5090+3090")
    desktop = (GpuProcess(1, "/usr/lib/xorg/Xorg", 300), GpuProcess(2, "ollama", 6000))
    gpu = replace(host.gpus[0], display_attached=True, processes=desktop)
    host = replace(host, gpus=(gpu, host.gpus[1]))
    assert {"vram-in-use", "display-attached", "mixed-architecture"} <= set(rules(host))


def test_a_warning_says_found_costs_and_what_to_do() -> None:
    found = [caution for name in NAMES for caution in warnings(machine(name))]
    assert all(caution.found and (caution.costs or caution.needed) for caution in found)
    assert all(caution.do or "take it again" in caution.found for caution in found)


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


def test_a_note_is_marked_apart_and_leaves_the_machine_healthy() -> None:
    host = replace(machine("2x3090-nvlink"), registry_dwords="RMSomething=1")
    lines = survey(host).splitlines()
    assert any(line.startswith("  · the driver runs with registry keys") for line in lines)
    assert any(line.startswith("  ok ") for line in lines)


def test_pairs_of_many_cards_are_grouped_by_connection() -> None:
    host = machine("8xH100-nvswitch")
    assert "  all 28 pairs  NV18 (478 GB/s each way)" in survey(host)
    plain = tuple(replace(pair, nvlinks=0, nvlink_gb_s=None) for pair in host.pairs)
    screen = survey(replace(host, pairs=plain))
    assert "  within 0-3 and 4-7  NODE" in screen
    assert "  16 other pairs      SYS" in screen


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
    refused = [c for c in warnings(replace(host, pairs=(pair,))) if c.rule == "p2p-refused"]
    assert verdict.value in refused[0].found and refused[0].do


# --- widths -------------------------------------------------------------------------------------

LONG = "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition"


@st.composite
def any_host(draw: st.DrawFn) -> Host:
    """A random machine, some cards lost, some names long."""
    host = draw(nvidia_hosts() | amd_hosts())
    gpus = tuple(
        replace(
            gpu,
            error=draw(st.sampled_from([None, None, "GPU is lost"])),
            name=draw(st.sampled_from([gpu.name, gpu.name, LONG, None])),
            numa_node=draw(st.none() | st.integers(0, 7)),
        )
        for gpu in host.gpus
    )
    return replace(host, gpus=gpus, numa_nodes=draw(st.none() | st.integers(1, 8)))


@given(any_host(), st.sampled_from([80, 100, 120]))
def test_no_line_of_any_machine_is_longer_than_the_terminal(host: Host, columns: int) -> None:
    lines = survey(host, columns).split("\n")
    assert all(len(line) <= columns and line == line.rstrip() for line in lines)


@given(any_host(), st.sampled_from([80, 120]))
def test_every_card_of_any_machine_is_one_row_with_its_memory_and_lanes(
    host: Host, columns: int
) -> None:
    lines = survey(host, columns).splitlines()
    for gpu in host.gpus:
        (row,) = [line for line in lines if line.startswith(f"  {gpu.index}  ")]
        assert ("NOT USABLE" in row) == (gpu.error is not None)
        if gpu.error is None:
            assert f"{gpu.memory_mib} MiB" in row and f"x{gpu.pcie.width_current}" in row


@given(any_host())
def test_a_wider_terminal_never_shows_less_of_a_card(host: Host) -> None:
    def facts(columns: int) -> list[set[str]]:
        rows = rows_of_cards(survey(host, columns))
        return [{cell for cell in row.split("  ") if "…" not in cell} for row in rows]

    for narrow, wide in zip(facts(80), facts(120), strict=True):
        kept = {cell.strip() for cell in wide}
        for cell in map(str.strip, narrow):
            # The wider row names the default beside a power limit: `262 of 350 W`.
            assert cell in kept or any(k.startswith(f"{cell[:-2]} of ") for k in kept)


def test_at_120_columns_a_usual_card_shows_all_its_facts() -> None:
    row = next(x for x in survey(machine("4090+3090"), 120).splitlines() if x.startswith("  1  "))
    for fact in ("300 of 350 W", "sm_86"):
        assert fact in row


def test_what_changes_by_the_minute_stays_off_the_usual_screen() -> None:
    host = machine("1x4090")
    gpu = replace(host.gpus[0], temperature_c=61, power_draw_w=333.0, performance_state="P2")
    host = replace(host, gpus=(gpu,))
    assert "61 C" not in survey(host)
    assert "61 C  now 333 W  P2" in survey(host, 120)


def test_control_characters_of_a_name_do_not_reach_the_terminal() -> None:
    gpu = replace(machine("1x4090").gpus[0], name="RTX\x1b[31m\n4090")
    screen = survey(replace(machine("1x4090"), gpus=(gpu,), product="a\x1b[2J"))
    assert "\x1b" not in screen
    assert sum(line.startswith("  0  ") for line in screen.splitlines()) == 1


# --- islands, answers, what was left out or not seen ---------------------------------------------


def test_the_three_answers_of_p2p_are_on_the_screen() -> None:
    screen = survey(machine("4x3090-two-bridges"))
    assert "  islands 0-1, 2-3 over NVLink\n" in screen
    text = " ".join(screen.split())
    assert "P2P driver granted on 0-1, 2-3; refused on 0-2, 0-3, 1-2, 1-3" in text
    assert "NCCL P2P over NVLink on 0-1, 2-3; shared memory on" in text
    assert "custom all-reduce off by design for all 4" in text
    assert "on for 0-1 or 2-3 alone" in text


def test_a_single_card_has_no_answers_about_peers() -> None:
    assert "P2P " not in survey(machine("1x4090"))


def test_amd_cards_with_xgmi_are_an_island_and_speak_of_rccl() -> None:
    gpus = tuple(Gpu(i, memory_mib=196592, vendor=Vendor.AMD, gfx="gfx942") for i in range(4))
    pairs = tuple(
        GpuPair(a, b, Path.SYS, xgmi_links=1, xgmi_gb_s=64.0, p2p_read=P2p.OK)
        for a in range(4)
        for b in range(a + 1, 4)
    )
    screen = survey(Host("mi300x", gpus=gpus, pairs=pairs, rocm="6.4.1"))
    assert "island 0-3 over XGMI" in screen
    assert "RCCL    P2P over XGMI" in screen
    assert "XGMI1 (64 GB/s each way, PCIe SYS)" in screen
    assert "ROCm 6.4.1" in screen and "no driver" not in screen


def test_a_pair_without_a_link_of_its_own_says_which_link_was_looked_for() -> None:
    host = machine("a6000+3090")
    for known, word in (({"nvlinks": 0}, "NVLink no"), ({"nvlinks": None}, "NVLink ?")):
        assert f"  {word}\n" in survey(replace(host, pairs=(replace(host.pairs[0], **known),)))
    amd = machine("2x7900xtx")
    for links, word in ((0, "XGMI no"), (None, "XGMI ?")):
        pair = replace(amd.pairs[0], nvlinks=0, xgmi_links=links)
        assert f"  {word}\n" in survey(replace(amd, pairs=(pair,)))


def test_a_display_that_is_no_card_is_named_with_the_reason() -> None:
    out = (LeftOut("0000:00:02.0", "Intel UHD 770", "integrated graphics"),)
    screen = survey(replace(machine("1x4090"), left_out=out))
    assert "  - Intel UHD 770 0000:00:02.0: integrated graphics\n" in screen


def test_what_was_not_seen_is_said() -> None:
    host = machine("2x3090-nvlink")
    blind = replace(host.gpus[1], power_limit_w=None, pcie=PcieLink())
    host = replace(
        host, gpus=(host.gpus[0], blind), pairs=(), iommu=None, unseen=("kernel log: needs root",)
    )
    (line,) = [x for x in survey(host, 120).split("  not seen: ")[1:]]
    for fact in ("IOMMU", "power limit of GPU 1", "PCIe lanes of GPU 1", "P2P", "needs root"):
        assert fact in line


def test_ports_of_a_guest_are_not_missed() -> None:
    host = machine("2x4090-vm")
    gpus = tuple(replace(g, pcie=PcieLink(1, 4, 8, 16)) for g in host.gpus)
    assert "ports above" not in survey(replace(host, gpus=gpus))
    assert "ports above" in survey(replace(host, gpus=gpus, virtualization="none"))


def test_cards_of_two_vendors_have_answers_on_p2p_of_their_own() -> None:
    amd = machine("2x7900xtx")
    one = replace(machine("1x4090").gpus[0], index=2, pci_bus_id="0000:41:00.0")
    screen = survey(replace(amd, gpus=(*amd.gpus, one)))
    assert "driver  among 0-1: granted" in screen and "NCCL    " not in screen
    assert "not seen: NVLink" not in screen and "P2P;" not in screen


def test_the_screen_never_calls_a_machine_well_on_which_no_card_is_usable() -> None:
    gpu = replace(machine("1x4090").gpus[0], memory_mib=None, unified_memory=True)
    screen = survey(replace(machine("1x4090"), gpus=(gpu,)))
    assert "none usable" in screen and "  ok " not in screen


def test_processes_are_not_spoken_of_when_nobody_looked_at_the_memory() -> None:
    unknown = {"memory_free_mib": None, "memory_used_mib": None}
    gpu = replace(machine("1x4090").gpus[0], **unknown)
    assert "no other process" not in survey(replace(machine("1x4090"), gpus=(gpu,)))


def test_a_status_that_the_driver_does_not_know_is_no_refusal() -> None:
    host = read(captured("2x3090-nvlink"), "tower")
    (pair,) = host.pairs
    unknown = replace(pair, p2p_read=P2p.UNKNOWN, p2p_write=P2p.UNKNOWN)
    assert "P2P read ?" in survey(replace(host, pairs=(unknown,)))
