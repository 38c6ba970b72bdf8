"""`nvidia-smi -q` in words tells what the XML tells, whole or in parts."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from multigpu.hardware import Gpu, GpuProcess, Host, MigDevice
from multigpu.parse.nvidia_smi.text import read_text, recognise
from multigpu.parse.nvidia_smi.xml import read_xml
from tests.rigs.dialect import Dialect
from tests.rigs.nvidia_smi import query_text, query_xml
from tests.rigs.nvidia_strategies import in_query, rigs
from tests.rigs.strategies import dialects

HEAD = """
==============NVSMI LOG==============

Timestamp                                 : Thu Nov 14 14:58:00 2024
Driver Version                            : 560.35.03
CUDA Version                              : 12.6

Attached GPUs                             : 1
GPU 00000000:41:00.0
"""
MEMORY = """    FB Memory Usage
        Total                             : 24576 MiB
        Used                              : 2 MiB
"""


def gpu(text: str) -> Gpu:
    (card,) = read_text(text).value.gpus
    return card


@given(rigs(), dialects())
def test_what_a_host_prints_in_words_is_read_back(host: Host, dialect: Dialect) -> None:
    reading = read_text(query_text(host, dialect))
    query = reading.value
    assert query.gpus == tuple(in_query(gpu, dialect) for gpu in host.gpus)
    assert (query.driver, query.cuda) == (dialect.driver, dialect.cuda)
    assert (query.attached_gpus, query.whole) == (len(host.gpus), True)
    assert query.simulated and query.timestamp == "Thu Nov 14 14:58:00 2024"
    assert reading.unread == ()
    assert reading.lines > 40


@given(rigs(), dialects())
def test_text_and_xml_of_one_host_say_the_same(host: Host, dialect: Dialect) -> None:
    assert read_text(query_text(host, dialect)).value == read_xml(query_xml(host, dialect)).value


@given(rigs(), dialects(), st.data())
def test_a_cut_text_keeps_what_came_before(
    host: Host, dialect: Dialect, data: st.DataObject
) -> None:
    text = query_text(host, dialect)
    cut = data.draw(st.integers(0, len(text) - 2))
    query = read_text(text[:cut]).value
    expected = [in_query(gpu, dialect) for gpu in host.gpus]
    # What stands behind the last card's clocks are its processes.
    assert not query.whole or cut > text.rindex("Max Clocks")
    for read, printed in zip(query.gpus[:-1], expected, strict=False):
        assert read == printed
    if query.gpus:
        last = query.gpus[-1]
        printed = expected[len(query.gpus) - 1]
        assert last.pci_bus_id == printed.pci_bus_id
        assert last.memory_mib in (None, printed.memory_mib)
        assert last.uuid in (None, printed.uuid)
        assert last.bar1_memory_mib in (None, printed.bar1_memory_mib)


def test_a_number_cut_in_half_is_not_believed() -> None:
    reading = read_text(
        HEAD + "    FB Memory Usage\n        Total                             : 245"
    )
    (card,) = reading.value.gpus
    assert card.memory_mib is None
    assert "cannot be read to its end" in (card.error or "")
    assert [unread.text.strip()[:5] for unread in reading.unread][-1] == "Total"


def test_one_section_alone_is_no_fault_of_the_card() -> None:
    card = gpu(HEAD + "    Temperature\n        GPU Current Temp                  : 30 C\n")
    assert (card.temperature_c, card.memory_mib, card.error) == (30, None, None)


def test_memory_that_the_driver_does_not_tell_is_an_error() -> None:
    card = gpu(HEAD + MEMORY.replace("24576 MiB", "N/A"))
    assert card.error == "the driver does not tell its memory"


@pytest.mark.parametrize("total", ["N/A", "Not Supported"])
def test_a_gpu_that_shares_the_processors_memory_is_no_fault(total: str) -> None:
    text = HEAD + "    Product Name                          : NVIDIA GB10\n"
    card = gpu(text + MEMORY.replace("24576 MiB", total))
    assert (card.unified_memory, card.memory_mib, card.error) == (True, None, None)
    assert card.compute_capability == (12, 1)


def test_grace_hopper_shares_memory_and_has_its_own() -> None:
    text = HEAD + "    Product Name                          : NVIDIA GH200 480GB\n"
    text += "    Addressing Mode                       : ATS\n"
    card = gpu(text + MEMORY.replace("24576", "97871"))
    assert (card.unified_memory, card.memory_mib, card.error) == (True, 97871, None)


def test_a_reason_under_another_is_a_reason_of_its_own() -> None:
    card = gpu(
        HEAD
        + MEMORY
        + "    Clocks Throttle Reasons\n"
        + "        Idle                              : Active\n"
        + "        HW Slowdown                       : Active\n"
        + "            HW Thermal Slowdown           : Active\n"
        + "        Sync Boost                        : Not Active\n"
    )
    assert card.throttle_reasons == ("hw_slowdown", "hw_thermal_slowdown")


def test_a_card_that_waits_for_a_reset_says_so_in_the_oddest_place() -> None:
    text = HEAD + MEMORY + "    ECC Errors\n        Channel Repair Pending : GPU requires reset\n"
    assert gpu(text).error == "GPU requires reset"


def test_a_reset_that_an_older_driver_asks_for_is_an_error() -> None:
    text = HEAD + "    GPU Reset Status\n        Reset Required                    : Yes\n"
    assert gpu(text + MEMORY).error == "the driver asks for: GPU reset"


def test_mig_devices_stand_apart_from_the_card() -> None:
    text = HEAD + (
        "    MIG Mode\n        Current                           : Enabled\n"
        "    MIG Device\n        Index                             : 0\n"
        "        Shared FB Memory Usage\n            Total      : 9984 MiB\n"
        "    MIG Device\n        Index                             : 2\n"
        "        FB Memory Usage\n            Total      : 4864 MiB\n"
    )
    card = gpu(text + MEMORY)
    assert (card.mig, card.memory_mib) == (True, 24576)
    assert card.mig_devices == (MigDevice(0, memory_mib=9984), MigDevice(2, memory_mib=4864))


def test_a_process_without_a_name_keeps_its_memory() -> None:
    text = (
        HEAD
        + MEMORY
        + (
            "    Processes\n        GPU instance ID                   : N/A\n"
            "        Process ID                        : 3402470\n"
            "            Type                          : C\n"
            "            Name                          : \n"
            "            Used GPU Memory               : 8716 MiB\n"
        )
    )
    assert gpu(text).processes == (GpuProcess(3402470, None, 8716),)


def test_a_version_that_is_marked_as_deprecated_is_the_version() -> None:
    old = "610.43.02 [Deprecated; will be removed in CUDA 14.0. Use KMD Version instead]"
    query = read_text(HEAD.replace("560.35.03", old).replace("12.6", "Not Found")).value
    assert (query.driver, query.cuda) == ("610.43.02", None)


def test_a_card_without_a_handle_has_a_row_between_the_others() -> None:
    line = "Unable to determine the device handle for GPU0000:31:00.0: Unknown Error\n"
    first, second = read_text(line + HEAD + MEMORY).value.gpus
    assert (first.index, first.pci_bus_id) == (0, "0000:31:00.0")
    assert first.error == "the driver has no handle of it: Unknown Error"
    assert (second.index, second.pci_bus_id, second.error) == (1, "0000:41:00.0", None)


def test_a_prompt_around_the_text_is_unread_and_nothing_else() -> None:
    reading = read_text("user@host:~$ nvidia-smi -q\n" + HEAD + MEMORY)
    assert [unread.text for unread in reading.unread] == ["user@host:~$ nvidia-smi -q"]


@pytest.mark.parametrize(
    "part", [HEAD, "    Product Name                          : X\n" + MEMORY, MEMORY]
)
def test_parts_of_the_text_are_recognised(part: str) -> None:
    assert recognise(part) >= 0.8


@given(st.text())
@example(HEAD + "    \x00 : \ud800\n        Total : 9999999999999999999999 MiB\n")
@example(HEAD + " : \n:::\n" + "    a\n" * 500)
def test_no_text_makes_the_reader_crash(text: str) -> None:
    recognise(text)
    read_text(text)
    read_text(HEAD + text)
    read_text(HEAD + MEMORY.replace("24576", text))
