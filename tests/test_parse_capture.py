"""A capture is believed whole or not at all, and its parts become one Host."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.errors import CaptureError
from multigpu.hardware import Host, P2p, Path, Vendor
from multigpu.host import probe
from multigpu.parse import capture, cards
from multigpu.parse.amd import seen as amd_seen
from multigpu.parse.capture import read
from tests.hosts import captured

NVLINK = json.loads(captured("2x3090-nvlink"))
QUERY = "nvidia-smi -q -x"


def machine(name: str) -> Host:
    return read(captured(name), name)


def changed(document: dict[str, Any], **parts: Any) -> Host:
    return read(json.dumps({**document, **parts}), "host")


def with_tool(command: str, **record: Any) -> Host:
    return changed(NVLINK, tools={**NVLINK["tools"], command: record})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "printed nothing"),
        (" \n\n", "printed nothing"),
        ("bash: python3: command not found\n", "no captured machine"),
        (captured("1x4090")[:-40], "is cut"),
        (captured("1x4090")[:5000], "is cut"),
        ('{"schema": 1}', "end marker"),
        ('{"schema": 2, "end": "multigpu-capture-end"}', "schema 2"),
        ('{"schema": null}', "schema None"),
    ],
)
def test_a_text_that_is_no_whole_capture_is_refused_in_one_sentence(text: str, words: str) -> None:
    with pytest.raises(CaptureError, match=words) as refusal:
        read(text, "tower")
    assert str(refusal.value).startswith("tower: ")
    assert "\n" not in str(refusal.value)


def test_lines_of_a_login_shell_around_the_capture_are_left_out() -> None:
    noise = "Welcome to {tower}!\nLast login: never\n{ not json\n"
    assert read(noise + captured("1x4090") + "logout {}\n", "a") == read(captured("1x4090"), "a")


def test_the_probe_and_the_reader_agree_on_schema_end_and_commands() -> None:
    asked = {command for command, _ in probe.COMMANDS}
    wanted = {cards.QUERY, cards.NUMBERS, capture.TOPOLOGY, capture.TOPOLOGY_PCIE}
    wanted |= {capture.P2P_READ, capture.P2P_WRITE, capture.NVLINK, capture.LICENSE}
    wanted |= {capture.VIRTUALIZATION, capture.SYSTEMCTL, amd_seen.STATIC}
    assert asked == wanted
    assert capture.LSPCI == probe.LSPCI
    assert (probe.SCHEMA, probe.END) == (capture.SCHEMA, capture.END)


def test_a_bridged_pair_has_its_links_their_rate_and_the_way_under_them() -> None:
    (pair,) = machine("2x3090-nvlink").pairs
    assert (pair.nvlinks, pair.nvlink_gb_s, pair.path) == (4, 56.2, Path.PHB)
    assert pair.p2p_read is P2p.OK


def test_a_card_in_a_chipset_slot_is_limited_at_that_slot() -> None:
    link = machine("4090+3090").gpu(1).pcie
    assert (link.width_current, link.width_max, link.width_path) == (4, 16, 4)
    assert (link.limited_at, link.behind_chipset) == ("0000:00:1c.4", True)
    assert machine("4090+3090").gpu(0).pcie.limited_at is None


def test_a_card_that_is_lost_keeps_its_row_and_does_not_hide_its_sibling() -> None:
    host = machine("2x3090-one-lost")
    assert [gpu.index for gpu in host.gpus] == [0, 1]
    assert host.gpu(0).memory_mib == 24576
    assert host.gpu(1).error == "the driver has no handle of it: Unknown Error"
    assert host.usable == (host.gpu(0),)
    assert host.problems == ()


def test_a_silent_driver_leaves_the_cards_that_pci_shows_with_an_error() -> None:
    host = machine("no-gpu-driver-broken")
    assert [gpu.name for gpu in host.gpus] == [None, None]
    assert all("driver does not answer" in (gpu.error or "") for gpu in host.gpus)
    assert "ended with status 9" in host.problems[0]
    assert "modprobe" in host.problems[0]


def test_a_driver_that_hangs_is_a_problem_and_not_an_exception() -> None:
    host = with_tool(QUERY, rc=None, timed_out=True, seconds=14.0, stdout=[], stderr=[])
    assert "no answer within 14 s" in host.problems[0]
    assert [gpu.error for gpu in host.gpus] == [
        "the driver does not answer: nvidia-smi timed out"
    ] * 2


def test_a_missing_nvidia_smi_beside_nvidia_cards_says_what_to_install() -> None:
    host = with_tool(QUERY, rc=None, missing=True)
    assert "not installed, but PCI shows 2 NVIDIA card(s)" in host.problems[0]


def test_a_machine_without_cards_says_so() -> None:
    host = changed(NVLINK, tools={}, pci=[])
    assert host.gpus == ()
    assert "no GPU found" in host.problems[0]


def test_an_output_cut_in_the_second_card_keeps_the_first() -> None:
    lines = NVLINK["tools"][QUERY]["stdout"]
    half = lines[: len(lines) * 3 // 4]
    host = with_tool(QUERY, rc=None, timed_out=True, seconds=14.0, stdout=half, stderr=[])
    assert host.gpu(0).memory_mib == 24576
    assert "cannot be read" in (host.gpu(1).error or "")


def test_a_topology_that_is_missing_is_a_problem_and_leaves_the_pairs_unknown() -> None:
    record = {"rc": 255, "timed_out": False, "stdout": ["Failed to initialize"], "stderr": []}
    tools = {k: record if " topo " in k else v for k, v in NVLINK["tools"].items()}
    host = changed(NVLINK, tools=tools)
    assert host.pair(0, 1) is None
    assert "topo -m" in host.problems[0]


def test_the_driver_numbers_the_cards_and_a_card_kept_for_a_guest_takes_what_is_left() -> None:
    pci = [dict(d) for d in NVLINK["pci"]]
    pci.append({**pci[0], "address": "0000:00:1e.0", "parent": None, "driver": "vfio-pci"})
    pci[-1].update({"class": "0x030000", "vendor": "0x10de"})
    host = changed(NVLINK, pci=pci)
    assert [gpu.pci_bus_id for gpu in host.gpus][2] == "0000:00:1e.0"
    assert host.gpu(2).error == "bound to the kernel driver vfio-pci, not to nvidia"


def test_graphics_inside_an_amd_processor_are_no_card() -> None:
    ids = {"vendor": "0x1002", "device": "0x164e", "class": "0x030000"}
    host = changed(NVLINK, pci=[*NVLINK["pci"], {"address": "0000:7b:00.0", **ids}])
    assert len(host.gpus) == 2


def test_amd_cards_are_usable_and_know_their_ways() -> None:
    host = machine("8xMI210-two-hives")
    assert {(gpu.vendor, gpu.gfx) for gpu in host.usable} == {(Vendor.AMD, "gfx90a")}
    assert {(p.a // 4 == p.b // 4, p.bonded) for p in host.pairs} == {(True, True), (False, False)}


def test_a_process_carries_the_unit_of_its_cgroup() -> None:
    units = {process.unit for process in machine("5090+3090").gpu(0).processes}
    assert units == {"gdm.service", "session-2.scope", "ollama.service"}


def test_parts_that_came_too_late_are_named() -> None:
    assert "pci" in changed(NVLINK, incomplete=["pci"]).problems[-1]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


def paths(value: object, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON document."""
    found = [prefix]
    if isinstance(value, dict):
        for key, inner in value.items():
            found += paths(inner, (*prefix, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += paths(inner, (*prefix, index))
    return found


SMALL = json.loads(captured("5090+3090"))
PLACES = [place for place in paths(SMALL) if place]


@given(st.lists(st.tuples(st.sampled_from(PLACES), JSON), min_size=1, max_size=4))
def test_a_capture_with_anything_anywhere_is_read_or_refused(
    edits: list[tuple[tuple[Any, ...], Any]],
) -> None:
    document = json.loads(captured("5090+3090"))
    for place, value in edits:
        inner = document
        try:
            for step in place[:-1]:
                inner = inner[step]
            inner[place[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue
    try:
        assert isinstance(read(json.dumps(document), "host"), Host)
    except CaptureError:
        return


@given(st.integers(0, len(captured("1x4090"))), st.integers(0, 200), st.text(max_size=20))
def test_a_capture_with_a_damaged_stretch_is_read_or_refused(
    at: int, length: int, instead: str
) -> None:
    text = captured("1x4090")
    try:
        assert isinstance(read(text[:at] + instead + text[at + length :], "host"), Host)
    except CaptureError:
        return


@given(st.text(max_size=200))
def test_any_text_is_refused_and_never_a_crash(text: str) -> None:
    with pytest.raises(CaptureError):
        read(text, "host")


def test_a_gpu_that_shares_the_processors_memory_has_that() -> None:
    document = json.loads(captured("1x4090"))
    record = document["tools"][cards.QUERY]
    inside = "\n".join(record["stdout"]).replace("NVIDIA GeForce RTX 4090", "NVIDIA GB10")
    record["stdout"] = re.sub(r"\d+ MiB", "N/A", inside).split("\n")
    (gpu,) = read(json.dumps(document), "spark").gpus
    assert (gpu.unified_memory, gpu.error, gpu.memory_mib) == (True, None, 64_000)
    assert gpu.memory_free_mib == 57_600
