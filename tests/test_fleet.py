"""Many hosts on one screen, and the same for machines."""

from __future__ import annotations

import json
import time
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.cautions import warnings
from multigpu.fleet import fleet
from multigpu.hardware import Gpu, GpuPair, Host, LeftOut, P2p, Path, PcieLink
from multigpu.parse.capture import read
from multigpu.screen.text import in_runs
from multigpu.survey_json import LEFT_OUT, fleet_json, survey_json
from tests.hosts import captured
from tests.rigs.strategies import amd_hosts, nvidia_hosts

LINK = PcieLink(1, 4, 16, 16, width_path=16)


def node(number: int, **changes: object) -> Host:
    """A simulated twin of all others: two cards, NVLink, the driver of the fleet."""
    gpus = tuple(
        Gpu(i, name="NVIDIA GeForce RTX 3090", memory_mib=24576, pcie=LINK, power_limit_w=350.0)
        for i in range(2)
    )
    pair = GpuPair(0, 1, Path.PHB, 4, P2p.OK)
    host = Host(
        f"node{number:02d}",
        gpus=gpus,
        pairs=(pair,),
        driver="580.105.08",
        os="Ubuntu 24.04.3 LTS",
        simulated=True,
    )
    return replace(host, **changes)  # type: ignore[arg-type]


def with_second(number: int, **changes: object) -> Host:
    host = node(number)
    second = replace(host.gpus[1], **changes)  # type: ignore[arg-type]
    return replace(host, gpus=(host.gpus[0], second))


TWINS = [node(number) for number in range(1, 15)]


def section(screen: str, title: str) -> str:
    """The lines below a title, as one text."""
    lines = screen.splitlines()
    begin = lines.index(title) + 1
    end = next((i for i, x in enumerate(lines) if i > begin and not x.startswith(" ")), len(lines))
    return " ".join(" ".join(lines[begin:end]).split())


def test_hosts_that_are_alike_share_a_line_with_their_names() -> None:
    screen = fleet(TWINS)
    assert screen.startswith("14 hosts · 28 GPUs · 672 GiB VRAM · 14 SIMULATED\n")
    alike = section(screen, "alike")
    assert "14 hosts 2x RTX 3090, NV4 · driver 580.105.08 · Ubuntu 24.04.3 LTS" in alike
    assert "node01..node14" in alike
    assert "stands out" not in screen


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (node(20, driver="570.148.08"), "driver 570.148.08, most have 580.105.08"),
        (node(20, gpus=node(20).gpus[:1], pairs=()), "GPUs 1, most have 2"),
        (with_second(20, pcie=replace(LINK, width_current=4)), "lanes x4 and x16, most have x16"),
        (with_second(20, power_limit_w=250.0), "power limit 250 W and 350 W, most have 350 W"),
        (with_second(20, memory_mib=49152), "VRAM 24576 MiB and 49152 MiB, most have 24576 MiB"),
        (with_second(20, error="GPU is lost"), "unusable GPUs 1, most have 0"),
        (node(20, driver=None), "driver not seen, most have 580.105.08"),
    ],
)
def test_a_host_that_differs_stands_out_by_what_differs(odd: Host, said: str) -> None:
    found = section(fleet([*TWINS, odd]), "stands out")
    assert found.startswith("node20: ") and said in found


def test_a_host_with_one_card_is_not_blamed_for_having_no_pair() -> None:
    found = section(fleet([*TWINS, node(20, gpus=node(20).gpus[:1], pairs=())]), "stands out")
    assert "P2P" not in found and "ways" not in found


def test_hosts_that_differ_alike_share_a_line() -> None:
    odd = [node(number, driver="570.148.08") for number in (20, 21, 22)]
    assert "node20..node22: driver 570.148.08" in section(fleet([*TWINS, *odd]), "stands out")


def test_two_hosts_are_no_majority() -> None:
    assert "stands out" not in fleet([node(1), node(2, driver="570.148.08")])


def test_other_models_are_another_family() -> None:
    gpu = Gpu(0, name="NVIDIA L40S", memory_mib=46068)
    other = Host("other", gpus=(gpu,), driver="535.86.05")
    assert "stands out" not in fleet([*TWINS, other])


def test_cautions_are_counted_by_rule_with_hosts_and_cards() -> None:
    odd = with_second(20, power_limit_w=250.0, power_limit_default_w=350.0)
    assert "power-cap 1 host node20 (GPU 1)" in section(fleet([*TWINS, odd]), "cautions")


def test_a_host_that_could_not_be_read_is_counted_and_says_why() -> None:
    why = "node99: the capture is cut: its end marker is missing; take it again"
    screen = fleet(TWINS, {"node99": why})
    assert "15 hosts" in screen and "1 not readable" in screen
    assert section(screen, "not readable") == why


def test_no_host_at_all_is_a_screen_too() -> None:
    assert fleet([]) == "0 hosts · 0 GPUs · 0 GiB VRAM\n"


def test_cards_whose_memory_is_unknown_are_not_counted_as_none() -> None:
    blind = with_second(20, memory_mib=None)
    assert "24 GiB VRAM without 1 GPU" in fleet([blind])


def test_every_host_is_named_while_kinds_are_many() -> None:
    hosts = [node(n, name=f"h{n}x", driver=f"5{n:02d}.10") for n in range(60)]
    text = " ".join(fleet(hosts).split())
    assert "60 hosts" in text and "and 48 kinds of one host each" in text


def test_two_hundred_hosts_fit_some_screens_and_take_no_time() -> None:
    odd = [with_second(200 + n, power_limit_w=250.0 + n) for n in range(6)]
    hosts = [node(n) for n in range(194)] + odd
    begin = time.process_time()
    screen = fleet(hosts)
    assert time.process_time() - begin < 0.5  # 0.03 s on an idle processor
    assert len(screen.splitlines()) < 60
    assert all(host.name in screen for host in odd)


@given(st.lists(nvidia_hosts(4) | amd_hosts(4), max_size=6), st.sampled_from([80, 100, 120]))
def test_no_line_is_longer_than_the_terminal(hosts: list[Host], columns: int) -> None:
    named = [replace(host, name=f"rig{n}") for n, host in enumerate(hosts)]
    lines = fleet(named, {"gone": "x" * 200}, columns).split("\n")
    assert all(len(line) <= columns and line == line.rstrip() for line in lines)


@pytest.mark.parametrize(
    ("names", "runs"),
    [
        (["node10", "node9", "node08", "node8"], ["node08", "node8..node10"]),
        (["a1", "a2"], ["a1", "a2"]),
        (["rack1-n3", "rack1-n2", "rack1-n1", "rack2-n4"], ["rack1-n1..rack1-n3", "rack2-n4"]),
        (["gpu", "gpu1"], ["gpu", "gpu1"]),
        (["n099", "n100", "n101"], ["n099..n101"]),
    ],
)
def test_names_in_a_row_are_a_run(names: list[str], runs: list[str]) -> None:
    assert in_runs(names) == runs


@given(st.lists(st.text(max_size=8), max_size=12))
def test_any_names_have_an_order(names: list[str]) -> None:
    assert len(in_runs(names)) <= len(names)


# --- JSON ---------------------------------------------------------------------------------------


def test_the_json_has_every_fact_of_a_host_and_unknown_is_null() -> None:
    value = survey_json(node(1))
    expected = {field.name for field in fields(Host)} - set(LEFT_OUT)
    beside = {"schema", "usable", "mix", "islands", "p2p", "cautions", "not_seen"}
    assert set(value) == expected | beside
    assert value["kernel"] is None
    assert value["islands"] == [{"gpus": [0, 1], "link": "NVLink", "full_mesh": True}]
    assert value["p2p"][0]["custom_all_reduce"] == {"verdict": "yes", "reason": "on"}
    assert "free VRAM" in value["not_seen"]


def test_left_out_displays_are_in_the_json() -> None:
    host = node(1, left_out=(LeftOut("0000:00:02.0", "UHD 770", "integrated graphics"),))
    assert survey_json(host)["left_out"][0]["reason"] == "integrated graphics"


def test_a_fleet_is_a_list_in_which_an_unreadable_host_has_its_error() -> None:
    value = fleet_json([node(1)], {"node99": "cut"})
    assert [entry["name"] for entry in value] == ["node01", "node99"]
    assert value[1]["error"] == "cut"


@given(nvidia_hosts(4) | amd_hosts(4))
def test_the_json_survives_a_round_trip_and_has_the_cautions_in_order(host: Host) -> None:
    value = survey_json(host)
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert [c["rule"] for c in value["cautions"]] == [c.rule for c in warnings(host)]


def test_an_impossible_number_is_an_unknown_one() -> None:
    host = node(1, gpus=(replace(node(1).gpus[0], power_draw_w=float("inf")),))
    assert survey_json(host)["gpus"][0]["power_draw_w"] is None


def test_cautions_of_the_fleet_tell_what_harms_from_notes_and_problems_by_their_words() -> None:
    names = ("no-gpu-driver-broken", "2x4090-vm", "2x3090-x4")
    screen = fleet([read(captured(name), name) for name in names])
    assert "  ! capture-problem" in screen
    assert "(nvidia-smi ended with status 9)" in " ".join(screen.split())
    assert "  · virtual-machine" in screen and "  ! narrow-link" in screen
