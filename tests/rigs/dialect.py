"""Which release of each tool prints."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Dialect:
    """Releases by tool. `pasted`: a matrix copied from a terminal, blanks for tabs, no ANSI.

    `log_prefix` is what stands before a kernel message (tests/rigs/kernel.py, PREFIXES). `launcher`
    is what stands before every line of a job (mpirun --tag-output, a vLLM worker). `remark` stands
    where a format has room for one and begins with "simulated"; `now` is the time of the printing.
    """

    driver: str = "580.105.08"
    cuda: str = "13.0"
    pciutils: str = "3.13.0"
    kernel: str = "6.8.0-60-generic"
    rocm: str = "6.4.1"
    pasted: bool = False
    log_prefix: str = "dmesg"
    nccl: str = "2.27.7"
    rccl: bool = False
    launcher: str = ""
    nccl_tests: str = "2.13"
    nvbandwidth: str = "v0.8"
    remark: str = "simulated: made up by tests/rigs"
    now: datetime = datetime(2024, 11, 14, 14, 58)

    @property
    def branch(self) -> int:
        """The driver's branch: 580 of 580.105.08."""
        return int(self.driver.split(".")[0])


# One driver of every family whose output differs (see multigpu/parse/nvidia_smi).
DRIVERS = (
    *("418.43", "450.80.02", "470.57.02", "510.47.03", "525.147.05", "535.86.05"),
    *("550.54.14", "570.148.08", "580.105.08", "595.71.05", "610.12"),
)
PCIUTILS = ("3.5.2", "3.7.0", "3.13.0")
KERNELS = ("4.15.0-20-generic", "5.4.0-42-generic", "6.8.0-60-generic")
ROCM = ("4.3.0", "5.7.1", "6.0.2", "6.1.2", "6.4.1", "7.0.0")
NCCL = ("2.7.8", "2.12.12", "2.18.3", "2.21.5", "2.27.7", "2.30.3")
LAUNCHERS = ("", "[1,0]<stdout>:", "(VllmWorker rank=0 pid=77) ")
NCCL_TESTS = ("2.0", "2.13")
NVBANDWIDTH = ("v0.4", "v0.6", "v0.8", "v0.10.0")
