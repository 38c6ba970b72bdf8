"""nvidia-smi's XML, from drivers 418 to 610 and from nobody at all."""

from __future__ import annotations

import csv
import re
import time
import timeit
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from multigpu.hardware import Gpu, Host
from multigpu.parse import pci
from multigpu.parse.nvidia_smi import xml
from multigpu.parse.nvidia_smi.text import read_text
from multigpu.parse.nvidia_smi.xml import (
    read_numbers,
    read_query,
    read_refusals,
    read_xml,
    recognise,
)
from tests.rigs.dialect import Dialect
from tests.rigs.nvidia_smi import query_text, query_xml
from tests.rigs.nvidia_strategies import in_query, rigs
from tests.rigs.strategies import dialects

RIGS = Path(__file__).parents[1] / "../shared/rigs"
TRUTH = re.compile(
    r"gpu(\d+) (\S+) (.+?) total=(\d+) MiB width (\d+)x/(\d+)x gen (\d+)/(\d+) mig=(\w+|N/A)"
)

CARD = """<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log><driver_version>535.1</driver_version>
<gpu id="00000000:01:00.0">{}</gpu>
</nvidia_smi_log>"""

FB = "<fb_memory_usage><total>24576 MiB</total><free>100 MiB</free></fb_memory_usage>"


def truth() -> list[tuple[str, str]]:
    """File and ground truth of each captured XML that is at hand."""
    index = RIGS / "INDEX.tsv"
    if not index.exists():
        return []
    with index.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [(r["file"], r["ground_truth"]) for r in rows if r["file"].endswith(".xml")]


@pytest.mark.skipif(not truth(), reason="no captured nvidia-smi output at hand")
@pytest.mark.parametrize(("file", "expected"), truth())
def test_a_captured_xml_is_read_as_its_ground_truth_says(file: str, expected: str) -> None:
    query = read_query((RIGS / file).read_text(encoding="utf-8"))
    rows = TRUTH.findall(expected)
    assert query.whole
    assert query.driver == re.search(r"driver (\S+);", expected)[1]  # type: ignore[index]
    assert len(query.gpus) == len(rows) > 0
    for gpu, row in zip(query.gpus, rows, strict=True):
        link = gpu.pcie
        assert gpu.error is None
        assert gpu.pci_bus_id == pci.address(row[1])
        assert (gpu.name, gpu.memory_mib) == (row[2], int(row[3]))
        assert (link.width_current, link.width_max) == (int(row[4]), int(row[5]))
        assert (link.gen_current, link.gen_max) == (int(row[6]), int(row[7]))
        assert gpu.mig is ({"Enabled": True, "Disabled": False}.get(row[8]))
        assert gpu.uuid and gpu.power_limit_w and gpu.power_limit_default_w


@pytest.mark.parametrize(
    ("word", "error"), [("GPU is lost", "GPU is lost"), ("GPU requires reset",) * 2]
)
def test_a_card_whose_values_say_that_it_is_lost_keeps_its_row(word: str, error: str) -> None:
    inside = f"<product_name>{word}</product_name><uuid>{word}</uuid>{FB}"
    (gpu,) = read_query(CARD.format(inside)).gpus
    assert (gpu.pci_bus_id, gpu.name, gpu.uuid, gpu.error) == ("0000:01:00.0", None, None, error)


@pytest.mark.parametrize(
    "missing", ["N/A", "[Not Supported]", "[Requested functionality has been deprecated]", ""]
)
def test_what_the_driver_does_not_know_is_none(missing: str) -> None:
    inside = f"<product_name>{missing}</product_name>{FB}<mig_mode><current_mig>{missing}"
    (gpu,) = read_query(CARD.format(f"{inside}</current_mig></mig_mode>")).gpus
    assert (gpu.name, gpu.mig, gpu.power_limit_w, gpu.pcie.width_max) == (None, None, None, None)
    assert (gpu.memory_mib, gpu.error) == (24576, None)


def test_a_card_that_waits_for_a_reset_is_not_usable() -> None:
    inside = f"{FB}<gpu_recovery_action>GPU Reset</gpu_recovery_action>"
    assert read_query(CARD.format(inside)).gpus[0].error == "the driver asks for: GPU Reset"
    inside = f"{FB}<gpu_recovery_action>None</gpu_recovery_action>"
    assert read_query(CARD.format(inside)).gpus[0].error is None


def test_a_warning_printed_around_the_xml_does_not_hide_the_cards() -> None:
    text = "WARNING: x\n" + CARD.format(FB) + "\nWARNING: infoROM is corrupted at gpu 0000:01:00.0"
    assert read_query(text).whole
    assert read_query(text).gpus[0].memory_mib == 24576


def test_garbage_in_one_block_leaves_the_other_cards_readable() -> None:
    good = f'<gpu id="00000000:02:00.0">{FB}</gpu>'
    text = CARD.format("<name>\x00 & <</name>").replace("</nvidia_smi_log>", good)
    first, second = read_query(text).gpus
    assert "cannot be read" in (first.error or "")
    assert (second.pci_bus_id, second.memory_mib, second.index) == ("0000:02:00.0", 24576, 1)


def test_a_stand_in_that_says_so_is_simulated() -> None:
    assert read_query("<!-- simulated by a table -->\n" + CARD.format(FB)).simulated
    assert not read_query(CARD.format(FB)).simulated


def test_the_csv_numbers_cards_by_address() -> None:
    text = "1, 00000000:04:00.0, 8.6\n0, 00000000:01:00.0, [N/A]\nField is not valid\n"
    rows = read_numbers(text)
    assert rows["0000:04:00.0"] == xml.Numbered(1, (8, 6))
    assert rows["0000:01:00.0"] == xml.Numbered(0, None)
    assert len(rows) == 2


# --- what releases print of made-up hosts ---------------------------------------------------------


@given(rigs(), dialects())
def test_what_a_host_prints_as_xml_is_read_back(host: Host, dialect: Dialect) -> None:
    reading = read_xml(query_xml(host, dialect))
    query = reading.value
    assert query.gpus == tuple(in_query(gpu, dialect) for gpu in host.gpus)
    assert (query.driver, query.cuda, query.attached_gpus) == (
        dialect.driver,
        dialect.cuda,
        len(host.gpus),
    )
    assert query.whole and query.simulated
    assert reading.unread == ()


@given(rigs(), dialects(), st.data())
def test_a_cut_xml_keeps_what_came_before(
    host: Host, dialect: Dialect, data: st.DataObject
) -> None:
    text = query_xml(host, dialect)
    cut = data.draw(st.integers(0, len(text) - 3))
    query = read_xml(text[:cut]).value
    assert not query.whole
    expected = [in_query(gpu, dialect) for gpu in host.gpus]
    for read, printed in zip(query.gpus[:-1], expected, strict=False):
        assert read == printed
    if query.gpus:
        read, printed = query.gpus[-1], expected[len(query.gpus) - 1]
        assert read.pci_bus_id == printed.pci_bus_id
        assert read.uuid in (None, printed.uuid)
        assert read.memory_mib in (None, printed.memory_mib)
        assert read == printed or "cannot be read to its end" in (read.error or "")


@given(rigs(), dialects(), st.data())
def test_a_lost_card_in_any_place_hides_no_other(
    host: Host, dialect: Dialect, data: st.DataObject
) -> None:
    lost = data.draw(st.integers(0, len(host.gpus) - 1))
    gpus = list(host.gpus)
    bare = replace(gpus[lost], processes=(), mig_devices=())
    gpus[lost] = replace(bare, error="GPU is lost")
    rig = replace(host, gpus=tuple(gpus))
    query = read_xml(query_xml(rig, dialect)).value
    for index, read in enumerate(query.gpus):
        if index == lost:
            assert read == Gpu(lost, pci_bus_id=gpus[lost].pci_bus_id, error="GPU is lost")
        else:
            assert read == in_query(host.gpus[index], dialect)
    assert read_text(query_text(rig, dialect)).value.gpus == query.gpus


def test_a_cut_document_names_the_line_it_broke_off_at() -> None:
    text = CARD.format(FB).partition("<free>")[0]
    reading = read_xml(text)
    assert reading.value.gpus[0].memory_mib == 24576
    assert [unread.line for unread in reading.unread] == [4]
    assert not reading.value.whole


def test_a_warning_around_the_document_is_unread() -> None:
    text = CARD.format(FB) + "\nWARNING: infoROM is corrupted at gpu 0000:01:00.0\n"
    assert [unread.line for unread in read_xml(text).unread] == [6]


def test_cards_pasted_without_the_root_are_read() -> None:
    (gpu,) = read_xml(f'<gpu id="00000000:01:00.0">{FB}</gpu>').value.gpus
    assert (gpu.memory_mib, gpu.error) == (24576, None)


@pytest.mark.parametrize("word", ["ERR!", "[Unknown Error]", "Unknown Error"])
def test_a_card_that_cannot_tell_its_name_is_broken(word: str) -> None:
    (gpu,) = read_query(CARD.format(f"<product_name>{word}</product_name>{FB}")).gpus
    assert (gpu.name, gpu.memory_mib, gpu.error) == (None, 24576, word.strip("[]"))


def test_one_failed_sensor_does_not_break_a_card() -> None:
    inside = f"{FB}<temperature><gpu_temp>Unknown Error</gpu_temp></temperature>"
    (gpu,) = read_query(CARD.format(inside)).gpus
    assert (gpu.temperature_c, gpu.error) == (None, None)


def test_a_gpu_that_shares_the_processors_memory_is_no_fault() -> None:
    fb = "<fb_memory_usage><total>N/A</total></fb_memory_usage>"
    (gpu,) = read_query(CARD.format(f"<product_name>NVIDIA GB10</product_name>{fb}")).gpus
    assert (gpu.unified_memory, gpu.memory_mib, gpu.error) == (True, None, None)
    (gpu,) = read_query(CARD.format(f"<product_name>NVIDIA H100</product_name>{fb}")).gpus
    assert (gpu.unified_memory, gpu.error) == (None, "the driver does not tell its memory")


def test_a_small_window_says_nothing_in_a_guest() -> None:
    bar = "<bar1_memory_usage><total>256 MiB</total></bar1_memory_usage>"
    guest = "<gpu_virtualization_mode><virtualization_mode>Pass-Through</virtualization_mode>"
    (gpu,) = read_query(CARD.format(f"{FB}{bar}{guest}</gpu_virtualization_mode>")).gpus
    assert (gpu.bar1_memory_mib, gpu.resizable_bar) == (256, None)
    assert read_query(CARD.format(f"{FB}{bar}")).gpus[0].resizable_bar is False


@pytest.mark.parametrize(
    "text",
    [
        CARD.format(FB),
        "$ nvidia-smi -q -x\n" + CARD.format(FB),
        f'<gpu id="00000000:01:00.0">{FB}',
        FB,
    ],
)
def test_the_xml_and_its_parts_are_recognised(text: str) -> None:
    assert recognise(text) >= 0.9


def test_eight_cards_are_read_in_a_few_milliseconds() -> None:
    gpus = tuple(Gpu(i, memory_mib=81559, pci_bus_id=f"0000:{i:02x}:00.0") for i in range(8))
    text = query_xml(Host("rig", gpus=gpus), Dialect())
    assert min(timeit.repeat(lambda: read_xml(text), timer=time.process_time, number=1)) < 0.02


@given(st.text())
@example("<nvidia_smi_log>" + "<gpu id='x'>" * 50)
@example('<nvidia_smi_log><gpu id="\ud800"></gpu></nvidia_smi_log>')
def test_no_text_makes_the_readers_crash(text: str) -> None:
    read_query(text)
    read_query(CARD.format(text))
    read_query(CARD.replace("535.1", text))
    read_numbers(text)
    read_refusals(text)
    read_xml(text)
    read_xml(CARD.format(text))
    recognise(text)
