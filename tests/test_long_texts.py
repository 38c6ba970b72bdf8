"""Texts of very many lines about one thing: read in a time that grows with their length only."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from multigpu.parse.nccl.nccl_tests import read_nccl_tests
from multigpu.parse.nvidia_smi.listing import read_list
from multigpu.parse.nvidia_smi.nvlink import read_nvlink_status
from multigpu.parse.pci.lspci import read_lspci
from multigpu.parse.reading import Reading

MANY = 60_000
CARD = "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-1)\n"
ROW = "  8  2  float  sum  -1  12.2  0.00  0.00  0  12.3  0.00  0.00  0\n"
BRIDGE = "01:00.0 VGA compatible controller: NVIDIA Corporation GA102 (rev a1)\n"
BAR = "\tCapabilities: [bb0 v1] Physical Resizable BAR\n"


@pytest.mark.parametrize(
    ("read", "head", "line"),
    [
        (read_nvlink_status, CARD, "\t Link 0: 25 GB/s\n"),
        (read_list, CARD, "  MIG 1g.10gb     Device  2: (UUID: MIG-1)\n"),
        (read_nccl_tests, "# size count type\n", ROW),
        (read_nccl_tests, "", "# Rank 0 Pid 7 on rig device 0 [0x01] NVIDIA A100\n"),
        (read_nccl_tests, "", "rig: Test NCCL failure common.cu:1005 'unhandled cuda error'\n"),
        (read_lspci, BRIDGE + BAR, "\t\tBAR 1: current size: 32GB, supported: 32GB\n"),
    ],
)
def test_many_lines_of_one_card_or_run_take_no_longer_each(
    read: Callable[[str], Reading[object]], head: str, line: str
) -> None:
    began = time.process_time()
    reading = read(head + line * MANY)
    # Copying what is known with each line takes 7 s and more, this some tenths of a second.
    assert time.process_time() - began < 4
    assert reading.lines >= MANY and not reading.unread
