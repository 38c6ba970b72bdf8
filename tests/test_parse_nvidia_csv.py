"""The CSV of any fields in any order, and the list of fields that a release takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from multigpu.hardware import Gpu, Host
from multigpu.parse.nvidia_smi.query_gpu import (
    NUMBERS,
    read_help_query_gpu,
    read_query_gpu,
    recognise_csv,
    recognise_help,
)
from tests.rigs.dialect import Dialect
from tests.rigs.nvidia_smi import query_csv
from tests.rigs.nvidia_strategies import link, rigs
from tests.rigs.strategies import dialects

# Field of the query -> field of Gpu, where one cell is one value.
PLAIN = {
    "index": "index",
    "name": "name",
    "uuid": "uuid",
    "pci.bus_id": "pci_bus_id",
    "vbios_version": "vbios_version",
    "compute_cap": "compute_capability",
    "memory.total": "memory_mib",
    "memory.reserved": "memory_reserved_mib",
    "memory.used": "memory_used_mib",
    "memory.free": "memory_free_mib",
    "power.draw": "power_draw_w",
    "power.limit": "power_limit_w",
    "power.default_limit": "power_limit_default_w",
    "power.max_limit": "power_limit_max_w",
    "temperature.gpu": "temperature_c",
    "pstate": "performance_state",
    "persistence_mode": "persistence_mode",
    "display_active": "display_attached",
    "compute_mode": "compute_mode",
    "ecc.mode.current": "ecc",
    "ecc.errors.corrected.volatile.total": "ecc_corrected",
    "ecc.errors.uncorrected.volatile.total": "ecc_uncorrected",
    "mig.mode.current": "mig",
    "gpu_recovery_action": "recovery_action",
    "fabric.state": "fabric_state",
}
LINK = (
    *(f"pcie.link.gen.{end}" for end in ("current", "max", "gpumax", "hostmax")),
    *("pcie.link.width.current", "pcie.link.width.max"),
)
ROWS = tuple(f"remapped_rows.{n}" for n in ("correctable", "uncorrectable", "pending", "failure"))
OTHERS = ("driver_version", "count", "timestamp", "utilization.gpu")


def expected(gpu: Gpu, fields: list[str]) -> Gpu:
    """The card as far as those fields tell it."""
    told = {name: getattr(gpu, name) for field, name in PLAIN.items() if field in fields}
    return Gpu(**{"index": gpu.index, **told})


@given(rigs(), dialects(), st.lists(st.sampled_from([*PLAIN, *OTHERS]), min_size=3, unique=True))
def test_any_fields_in_any_order_are_read_by_their_header(
    host: Host, dialect: Dialect, fields: list[str]
) -> None:
    for units in (True, False):
        reading = read_query_gpu(query_csv(host, dialect, fields, units=units))
        for read, gpu in zip(reading.value.gpus, host.gpus, strict=True):
            want = expected(gpu, fields)
            if "compute_cap" not in fields:
                read = replace(read, compute_capability=None)
            assert read == want
        assert reading.unread == ()
        assert reading.value.driver == (dialect.driver if "driver_version" in fields else None)


@given(rigs(), dialects())
def test_links_reasons_and_rows_are_put_together(host: Host, dialect: Dialect) -> None:
    kind = "event" if dialect.branch >= 535 else "throttle"
    reasons = [
        f"clocks_{kind}_reasons.{name}" for name in ("gpu_idle", "sw_power_cap", "sync_boost")
    ]
    text = query_csv(host, dialect, ["pci.bus_id", *LINK, *reasons, *ROWS])
    for read, gpu in zip(read_query_gpu(text).value.gpus, host.gpus, strict=True):
        assert read.pcie == replace(link(gpu, ends=True), replays=None)
        wanted = {"sw_power_cap", "sync_boost"} & {*gpu.throttle_reasons}
        assert {*read.throttle_reasons} == wanted
        assert read.remapped_rows == gpu.remapped_rows


@given(rigs(), dialects())
def test_our_own_query_needs_no_header(host: Host, dialect: Dialect) -> None:
    reading = read_query_gpu(query_csv(host, dialect, NUMBERS, header=False))
    told = [(g.index, g.pci_bus_id, g.compute_capability) for g in reading.value.gpus]
    assert told == [(g.index, g.pci_bus_id, g.compute_capability) for g in host.gpus]
    assert reading.unread == ()


def test_fields_can_be_named_where_there_is_no_header() -> None:
    (gpu,) = read_query_gpu("NVIDIA L4, 23034\n", ["name", "memory.total"]).value.gpus
    assert (gpu.name, gpu.memory_mib) == ("NVIDIA L4", 23034)


def test_a_row_of_another_length_than_the_header_is_unread() -> None:
    text = "name, uuid, memory.total [MiB]\nOdd, Name, GPU-1, 8 MiB\nNVIDIA L4, GPU-2, 23034 MiB\n"
    reading = read_query_gpu(text)
    assert [gpu.uuid for gpu in reading.value.gpus] == ["GPU-2"]
    assert [unread.line for unread in reading.unread] == [2]


def test_a_card_that_answers_nothing_but_errors_keeps_its_row() -> None:
    error = "[Unknown Error]"
    text = f"name, uuid, memory.total [MiB]\n{error}, {error}, {error}\n"
    (gpu,) = read_query_gpu(text).value.gpus
    assert (gpu.index, gpu.name, gpu.error) == (0, None, "Unknown Error")
    (gpu,) = read_query_gpu(text.replace(error, "[GPU is lost]")).value.gpus
    assert gpu.error == "GPU is lost"


def test_a_field_that_was_not_asked_for_is_no_fault() -> None:
    (gpu,) = read_query_gpu("name, temperature.gpu\nNVIDIA L4, 40\n").value.gpus
    assert (gpu.memory_mib, gpu.error) == (None, None)
    (gpu,) = read_query_gpu("name, memory.total [MiB]\nNVIDIA L4, [N/A]\n").value.gpus
    assert gpu.error == "the driver does not tell its memory"


def test_a_card_without_a_handle_takes_the_index_that_is_missing() -> None:
    text = "index, name\n0, NVIDIA L4\n2, NVIDIA L4\n"
    line = "Unable to determine the device handle for GPU0000:31:00.0: Unknown Error\n"
    gpus = read_query_gpu(line + text).value.gpus
    assert [(gpu.index, gpu.error is None) for gpu in gpus] == [(0, True), (1, False), (2, True)]


@pytest.mark.parametrize(
    ("mask", "reasons"),
    [
        ("0x0000000000000001", ()),
        ("0x0000000000000044", ("sw_power_cap", "hw_thermal_slowdown")),
        ("[N/A]", ()),
    ],
)
def test_the_mask_of_reasons_is_read_where_they_were_not_asked_for(
    mask: str, reasons: tuple[str, ...]
) -> None:
    (gpu,) = read_query_gpu(f"name, clocks_throttle_reasons.active\nNVIDIA L4, {mask}\n").value.gpus
    assert gpu.throttle_reasons == reasons


HELP = """List of valid properties to query for the switch "--query-gpu":

"timestamp"
The timestamp of when the query was made.

"name" or "gpu_name"
The official product name of the GPU.

Section about PCI properties
Where the card sits.

"pci.bus_id" or "gpu_bus_id"
"0: Default" means multiple contexts are allowed.
"""


def test_the_list_of_fields_knows_their_other_spellings() -> None:
    reading = read_help_query_gpu(HELP)
    assert reading.value.fields == ("timestamp", "name", "pci.bus_id")
    assert reading.value.aliases == (("gpu_name", "name"), ("gpu_bus_id", "pci.bus_id"))
    assert "gpu_bus_id" in reading.value and "memory.total" not in reading.value
    assert reading.unread == ()


def test_prose_that_describes_no_field_is_unread() -> None:
    assert [u.text for u in read_help_query_gpu("bash: no such file\n\n" + HELP).unread] == [
        "bash: no such file"
    ]


@pytest.mark.parametrize(
    ("text", "csv", "listed"),
    [
        ("index, name, memory.total [MiB]\n0, NVIDIA L4, 23034 MiB\n", True, False),
        ("$ nvidia-smi --query-gpu=... --format=csv\nname, pci.bus_id\nX, Y\n", True, False),
        ("0, 00000000:01:00.0, 8.6\n", True, False),
        (HELP, False, True),
        ('"pci.bus_id" or "gpu_bus_id"\nPCI bus id.\n', False, True),
        ("name\nuuid\n", False, False),
        ("a, b, c\n1, 2, 3\n", False, False),
        ("count, busbw, algbw\n", False, False),
        ("gpu_uuid, pid, used_gpu_memory [MiB]\nGPU-1, 5, 7 MiB\n", False, False),
        ("timestamp, utilization.gpu [%]\n2026, 3 %\n", True, False),
    ],
)
def test_each_format_is_recognised_and_not_the_other(text: str, csv: bool, listed: bool) -> None:
    assert (recognise_csv(text) > 0.5, recognise_help(text) > 0.5) == (csv, listed)


@given(st.text())
@example("0, 00000000:01:00.0, 9999999999999999999.99")
@example("\ud800, \x00, 1e999")
def test_no_text_makes_the_readers_crash(text: str) -> None:
    for read in (read_query_gpu, read_help_query_gpu, recognise_csv, recognise_help):
        read(text)
        read("index, name, memory.total [MiB]\n" + text)
    read_query_gpu("index, name, memory.total [MiB]\n" + ", ".join([text] * 3))
