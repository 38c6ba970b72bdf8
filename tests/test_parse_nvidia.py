"""nvidia-smi's XML and CSV, from drivers 418 to 595 and from nobody at all."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from multigpu.parse import nvidia, pci
from multigpu.parse.nvidia import compute_capability, read_numbers, read_query, read_refusals

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


@pytest.mark.parametrize(
    ("architecture", "name", "expected"),
    [
        ("Ampere", "NVIDIA GeForce RTX 3090", (8, 6)),
        ("Ampere", "NVIDIA A100-SXM4-40GB", (8, 0)),
        ("Pascal", "Tesla P100-PCIE-16GB", (6, 0)),
        ("Blackwell", "NVIDIA GeForce RTX 5090", (12, 0)),
        ("Blackwell", "NVIDIA B200", (10, 0)),
        ("Blackwell", "NVIDIA GB10", (12, 1)),
        ("Hopper", "NVIDIA H100 80GB HBM3", (9, 0)),
        ("Rubin", "NVIDIA R100", None),
        (None, "Graphics Device", None),
    ],
)
def test_the_architecture_tells_the_compute_capability_where_nothing_else_does(
    architecture: str | None, name: str, expected: tuple[int, int] | None
) -> None:
    assert compute_capability(architecture, name) == expected


def test_the_csv_numbers_cards_by_address() -> None:
    text = "1, 00000000:04:00.0, 8.6\n0, 00000000:01:00.0, [N/A]\nField is not valid\n"
    rows = read_numbers(text)
    assert rows["0000:04:00.0"] == nvidia.Numbered(1, (8, 6))
    assert rows["0000:01:00.0"] == nvidia.Numbered(0, None)
    assert len(rows) == 2


def test_a_refused_handle_names_its_card() -> None:
    text = "Unable to determine the device handle for GPU 0000:04:00.0: Unknown Error\n"
    assert read_refusals(text) == {"0000:04:00.0": "Unknown Error"}
    assert read_refusals("Unable to determine the device handle for GPU1: GPU is lost") == {}


@given(st.text())
@example("<nvidia_smi_log>" + "<gpu id='x'>" * 50)
@example('<nvidia_smi_log><gpu id="\ud800"></gpu></nvidia_smi_log>')
def test_no_text_makes_the_readers_crash(text: str) -> None:
    read_query(text)
    read_query(CARD.format(text))
    read_query(CARD.replace("535.1", text))
    read_numbers(text)
    read_refusals(text)
