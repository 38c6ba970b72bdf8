"""Cards without a handle have a row, and never push another card from its place."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.hardware import Gpu, Host
from multigpu.parse.nvidia_smi.card import Query
from multigpu.parse.nvidia_smi.listing import read_list
from multigpu.parse.nvidia_smi.lost import read_refusals, refusals, with_refused
from multigpu.parse.nvidia_smi.nvlink import read_nvlink_status
from multigpu.parse.nvidia_smi.xml import read_query, read_xml
from tests.rigs.dialect import Dialect
from tests.rigs.nvidia_nodes import LOST
from tests.rigs.nvidia_smi import list_gpus, query_csv
from tests.rigs.nvidia_strategies import rigs
from tests.rigs.strategies import dialects
from tests.rigs.topology import nvlink_s

XML = """<nvidia_smi_log><gpu id="00000000:01:00.0">
<fb_memory_usage><total>24576 MiB</total></fb_memory_usage></gpu></nvidia_smi_log>"""
HANDLE = "Unable to determine the device handle for "


def test_a_refused_handle_names_its_card() -> None:
    text = "Unable to determine the device handle for GPU 0000:04:00.0: Unknown Error\n"
    assert read_refusals(text) == {"0000:04:00.0": "Unknown Error"}
    assert read_refusals("Unable to determine the device handle for GPU1: GPU is lost") == {}


@pytest.mark.parametrize(
    ("line", "index", "address", "words"),
    [
        ("GPU 0000:02:00.0: GPU is lost.  Reboot the system", None, "0000:02:00.0", "GPU is lost."),
        ("GPU0000:CB:00.0: Unknown Error", None, "0000:cb:00.0", "Unknown Error"),
        ("GPU1: 0000:34:00.0: Unknown Error", 1, "0000:34:00.0", "Unknown Error"),
        ("GPU1: Unknown Error", 1, None, "Unknown Error"),
        ("GPU 0: Unknown Error", 0, None, "Unknown Error"),
    ],
)
def test_every_spelling_of_a_refused_handle_is_read(
    line: str, index: int | None, address: str | None, words: str
) -> None:
    (refusal,) = refusals(f"Unable to determine the device handle for {line}\n" * 2)
    assert (refusal.index, refusal.pci_bus_id) == (index, address)
    assert refusal.words.startswith(words)


def test_a_refused_card_takes_its_index_and_the_others_make_room() -> None:
    line = "Unable to determine the device handle for GPU0: 0000:34:00.0: Unknown Error\n"
    first, second = read_xml(line + XML).value.gpus
    assert (first.index, first.pci_bus_id, first.memory_mib) == (0, "0000:34:00.0", None)
    assert (second.index, second.pci_bus_id, second.memory_mib) == (1, "0000:01:00.0", 24576)
    assert len(read_query(line + XML).gpus) == 1


@given(st.sets(st.integers(0, 15), max_size=8), st.sets(st.integers(0, 15), min_size=1, max_size=8))
def test_cards_and_lost_cards_stand_in_pci_order(seen: set[int], lost: set[int]) -> None:
    gpus = tuple(Gpu(i, pci_bus_id=f"0000:{bus:02x}:00.0") for i, bus in enumerate(sorted(seen)))
    output = "".join(f"{HANDLE}GPU0000:{bus:02X}:00.0: Unknown Error\n" for bus in lost)
    rows = with_refused(Query(gpus=gpus), output, numbered=False).gpus
    assert [gpu.pci_bus_id for gpu in rows] == [f"0000:{b:02x}:00.0" for b in sorted(seen | lost)]
    assert [gpu.index for gpu in rows] == list(range(len(seen | lost)))
    # A card that has a row of its own is not lost.
    assert [gpu.error is None for gpu in rows] == [bus in seen for bus in sorted(seen | lost)]


@given(st.sets(st.integers(0, 15), max_size=8), st.sets(st.integers(0, 15), min_size=1, max_size=8))
def test_a_refused_index_is_taken_as_it_is_told(seen: set[int], lost: set[int]) -> None:
    gpus = tuple(Gpu(index) for index in sorted(seen - lost))
    output = "".join(f"{HANDLE}GPU{index}: Unknown Error\n" for index in lost)
    rows = with_refused(Query(gpus=gpus), output, numbered=True).gpus
    assert [gpu.index for gpu in rows] == sorted(seen | lost)
    assert {gpu.index for gpu in rows if gpu.error} == lost


@given(rigs(), dialects(), st.data())
def test_a_lost_card_keeps_its_row_in_every_listing(
    host: Host, dialect: Dialect, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(host.gpus) - 1))
    lost = Gpu(place, pci_bus_id=host.gpus[place].pci_bus_id, error=LOST)
    gpus = tuple(lost if gpu.index == place else gpu for gpu in host.gpus)
    broken = replace(host, gpus=gpus)
    (row,) = [g for g in read_list(list_gpus(broken, dialect)).value.gpus if g.error]
    assert LOST in (row.error or "")
    assert row.pci_bus_id == lost.pci_bus_id
    rates = {g.index for g in read_nvlink_status(nvlink_s(broken, dialect)).value}
    assert rates == {gpu.index for gpu in host.gpus} - {place}
    cells = query_csv(broken, dialect, ["name", "memory.total"], header=False).split("\n")[place]
    assert cells == "[GPU is lost], [GPU is lost]"
