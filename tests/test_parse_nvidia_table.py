"""nvidia-smi's default table in all its widths, and the list of cards."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from multigpu.hardware import Gpu, GpuProcess, Host, MigDevice
from multigpu.parse.nvidia_smi.listing import read_list
from multigpu.parse.nvidia_smi.listing import recognise as is_list
from multigpu.parse.nvidia_smi.table import read_table
from multigpu.parse.nvidia_smi.table import recognise as is_table
from tests.rigs.dialect import Dialect
from tests.rigs.nvidia_smi import list_gpus
from tests.rigs.nvidia_strategies import rigs, without_units
from tests.rigs.nvidia_table import table
from tests.rigs.strategies import dialects

CARD = """|   0  NVIDIA RTX A6000        On  | 00000000:41:00.0 Off |                  Off |
| 30%   33C    P8    16W / 300W |   1583MiB / 49140MiB |      0%      Default |
"""
BROKEN = """|   5  ERR!                On   | 00000000:91:00.0 Off |                 ERR! |
|ERR!  ERR! ERR!    ERR! / ERR! |      0MiB / 81920MiB |    ERR!      Default |
|                               |                      |                 ERR! |
"""


def in_table(gpu: Gpu, dialect: Dialect, name: str | None) -> Gpu:
    """What the table shows of a card; watts without a fraction, no link, no uuid."""
    return Gpu(
        index=gpu.index,
        name=name,
        pci_bus_id=gpu.pci_bus_id,
        persistence_mode=gpu.persistence_mode,
        display_attached=gpu.display_attached,
        memory_mib=gpu.memory_mib,
        memory_used_mib=gpu.memory_used_mib,
        temperature_c=gpu.temperature_c,
        performance_state=gpu.performance_state,
        power_draw_w=float(int(gpu.power_draw_w or 0)),
        power_limit_w=float(int(gpu.power_limit_w or 0)),
        compute_mode=gpu.compute_mode,
        compute_capability=gpu.compute_capability,
        ecc=gpu.ecc,
        ecc_uncorrected=gpu.ecc_uncorrected if gpu.ecc and not gpu.mig else None,
        mig=gpu.mig if dialect.branch >= 450 else None,
        mig_devices=tuple(MigDevice(d.index, memory_mib=d.memory_mib) for d in gpu.mig_devices),
        processes=without_units(gpu.processes),
    )


@given(rigs(), dialects())
def test_what_a_host_shows_in_its_table_is_read_back(host: Host, dialect: Dialect) -> None:
    reading = read_table(table(host, dialect))
    query = reading.value
    assert (query.driver, query.cuda) == (dialect.driver, dialect.cuda)
    assert query.simulated and query.whole and query.timestamp == f"{dialect.now:%c}"
    for read, gpu in zip(query.gpus, host.gpus, strict=True):
        assert (gpu.name or "").startswith((read.name or "?").removesuffix("..."))
        shown = in_table(gpu, dialect, read.name)
        if (read.name or "").endswith("..."):
            assert read.compute_capability in (None, gpu.compute_capability)
            shown = replace(shown, compute_capability=read.compute_capability)
        assert read == shown
    assert reading.unread == ()


@given(rigs(), dialects(), st.data())
def test_a_cut_table_keeps_the_cards_before_the_cut(
    host: Host, dialect: Dialect, data: st.DataObject
) -> None:
    text = table(replace(host, gpus=tuple(replace(g, mig_devices=()) for g in host.gpus)), dialect)
    cut = data.draw(st.integers(0, len(text) - 1))
    query = read_table(text[:cut]).value
    for read, gpu in zip(query.gpus, host.gpus, strict=False):
        assert read.pci_bus_id == gpu.pci_bus_id
        assert read.memory_mib in (None, gpu.memory_mib)
    assert len(query.gpus) <= len(host.gpus)


def test_a_card_full_of_errors_keeps_its_row() -> None:
    first, second = read_table(CARD + BROKEN).value.gpus
    assert (first.error, first.memory_used_mib) == (None, 1583)
    assert (second.index, second.pci_bus_id, second.name) == (5, "0000:91:00.0", None)
    assert (second.error, second.temperature_c, second.ecc, second.mig) == ("ERR!", *[None] * 3)


def test_one_failed_fan_does_not_break_a_card() -> None:
    (gpu,) = read_table(CARD.replace("30%", "ERR!")).value.gpus
    assert (gpu.error, gpu.temperature_c) == (None, 33)


def test_a_card_without_a_handle_stands_between_the_others() -> None:
    line = "Unable to determine the device handle for GPU1: 0000:34:00.0: Unknown Error\n"
    reading = read_table(line + CARD + CARD.replace("|   0", "|   2"))
    assert [gpu.index for gpu in reading.value.gpus] == [0, 1, 2]
    assert reading.value.gpus[1].error == "the driver has no handle of it: Unknown Error"
    assert reading.unread == ()


def test_memory_that_is_the_processors_is_no_fault() -> None:
    text = (
        "|   0  NVIDIA GB10                    On  |   0000000F:01:00.0 Off |             N/A |\n"
        "| N/A   33C    P8              4W /  N/A  | Not Supported          |  0%     Default |\n"
    )
    (gpu,) = read_table(text).value.gpus
    assert (gpu.unified_memory, gpu.memory_mib, gpu.power_limit_w) == (True, None, None)
    assert (gpu.error, gpu.pci_bus_id, gpu.ecc) == (None, "000f:01:00.0", None)


@pytest.mark.parametrize(
    ("row", "process"),
    [
        ("|    0      1234      G   /usr/lib/xorg/Xorg             4MiB |", "/usr/lib/xorg/Xorg"),
        ("|    0   N/A  N/A      1234      C   python -m a b          4MiB |", "python -m a b"),
        ("|    0    7    0       1234    C+G   ...Steam\\s.exe         4MiB |", "...Steam\\s.exe"),
        ("|    0   N/A  N/A      1234      C                          4MiB |", None),
    ],
)
def test_processes_of_every_release_are_read(row: str, process: str | None) -> None:
    (gpu,) = read_table(CARD + row).value.gpus
    assert gpu.processes == (GpuProcess(1234, process, 4),)


def test_a_process_whose_memory_is_not_told_is_there() -> None:
    row = "|    0   N/A  N/A           19504    C+G   ...al\\Cursor.exe      N/A      |\n"
    (gpu,) = read_table(CARD + row).value.gpus
    assert gpu.processes == (GpuProcess(19504, "...al\\Cursor.exe", None),)


def test_mig_mode_that_waits_for_a_reset_is_the_mode_now() -> None:
    third = "|                               |                      |            Disabled* |\n"
    assert read_table(CARD + third).value.gpus[0].mig is False


def test_megabytes_of_a_driver_before_340_are_mib() -> None:
    text = (
        "| NVIDIA-SMI 5.325.15   Driver Version: 325.15         |\n"
        "|   0  GeForce GTX TITAN   Off  | 0000:03:00.0     N/A |                  N/A |\n"
        "| 31%   44C  N/A     N/A /  N/A |       14MB /  6143MB |     N/A      Default |\n"
    )
    (gpu,) = read_table(text).value.gpus
    assert (gpu.memory_mib, gpu.memory_used_mib) == (6143, 14)


def test_other_lines_are_unread() -> None:
    reading = read_table("user@host:~$ nvidia-smi\n" + CARD + "| " + "x" * 500 + " |\n")
    assert [unread.line for unread in reading.unread] == [1, 4]


# --- the list -------------------------------------------------------------------------------------


@given(rigs(), dialects())
def test_the_list_of_cards_is_read_back(host: Host, dialect: Dialect) -> None:
    named = [
        replace(
            gpu,
            mig_devices=tuple(
                replace(d, uuid=f"MIG-{gpu.index}-{d.index}") for d in gpu.mig_devices
            ),
        )
        for gpu in host.gpus
    ]
    reading = read_list(list_gpus(replace(host, gpus=tuple(named)), dialect))
    assert reading.unread == ()
    for read, gpu in zip(reading.value.gpus, named, strict=True):
        slices = tuple(replace(device, memory_mib=None) for device in gpu.mig_devices)
        assert read == Gpu(
            gpu.index,
            uuid=gpu.uuid,
            name=gpu.name,
            compute_capability=gpu.compute_capability,
            mig=True if slices else None,
            mig_devices=slices,
        )


def test_a_name_with_brackets_and_an_old_mig_uuid_are_read() -> None:
    reading = read_list(
        "GPU 0: NVIDIA TITAN X (Pascal) (UUID: GPU-1)\n"
        "GPU 1: A100-SXM4-40GB (UUID: GPU-2)\n"
        "  MIG 1c.3g.40gb Device 0: (UUID: MIG-GPU-2/1/0)\n"
    )
    first, second = reading.value.gpus
    assert (first.name, first.mig) == ("NVIDIA TITAN X (Pascal)", None)
    assert second.mig_devices == (MigDevice(0, "1c.3g.40gb", "MIG-GPU-2/1/0"),)


def test_a_lost_card_in_the_list_keeps_its_row() -> None:
    line = "Unable to determine the device handle for GPU0000:31:00.0: Unknown Error\n"
    first, second = read_list("GPU 0: NVIDIA L4 (UUID: GPU-1)\n" + line).value.gpus
    assert (second.index, second.pci_bus_id, first.error) == (1, "0000:31:00.0", None)
    assert "Unknown Error" in (second.error or "")


@pytest.mark.parametrize(
    ("text", "table_like", "list_like"),
    [
        (CARD, True, False),
        ("| 30%   33C    P8    16W / 300W |   1MiB / 9MiB |      0%      Default |", True, False),
        ("|    0      1234      G   /usr/lib/xorg/Xorg      4MiB |", True, False),
        ("GPU 0: NVIDIA L4 (UUID: GPU-1)\n", False, True),
        ("$ nvidia-smi -L\nGPU 0: NVIDIA L4 (UUID: GPU-1)\n", False, True),
        ("GPU 0: NVIDIA L4 (UUID: GPU-1)\n\t Link 0: 25 GB/s\n", False, False),
        ("GPU 0: NVIDIA L4 (UUID: GPU-1)\nDevice does not have or support Nvlink\n", False, False),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n", False, False),
    ],
)
def test_the_table_and_the_list_are_recognised(
    text: str, table_like: bool, list_like: bool
) -> None:
    assert (is_table(text) > 0.5, is_list(text) > 0.5) == (table_like, list_like)


@given(st.text())
@example("|   0  \ud800 On | 00000000:41:00.0 Off | 0 |")
@example("|    0   " + " 1" * 90 + " |")
def test_no_text_makes_the_readers_crash(text: str) -> None:
    for read in (read_table, read_list, is_table, is_list):
        read(text)
        read(CARD + text)
    read_table(CARD.replace("NVIDIA RTX A6000", text))
    read_list(f"GPU 0: {text} (UUID: GPU-1)")
