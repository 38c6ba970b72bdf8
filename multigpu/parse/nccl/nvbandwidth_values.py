"""What a run of nvbandwidth measured."""

from __future__ import annotations

from dataclasses import dataclass

from multigpu.parse.nccl.pair_matrix import Matrix


@dataclass(frozen=True)
class NvbandwidthDevice:
    """One card of the test; `device` is the CUDA number."""

    device: int
    name: str
    pci_bus_id: str | None = None


@dataclass(frozen=True)
class NvbandwidthTest:
    """One test; `cells` row by column, in `unit` (GB/s or ns), None for N/A.

    `status` is passed, waived, error or running (begun, nothing printed). `total` is the SUM line.
    """

    name: str
    status: str
    description: str | None = None
    unit: str | None = None
    cells: Matrix = ()
    total: float | None = None

    @property
    def least(self) -> float | None:
        """The smallest cell: the slowest link of a bandwidth test."""
        return min((c for line in self.cells for c in line if c is not None), default=None)


@dataclass(frozen=True)
class Nvbandwidth:
    """One run. CUDA versions are whole numbers as CUDA counts: 12040 is 12.4."""

    version: str | None = None
    git_version: str | None = None
    cuda_runtime_version: int | None = None
    cuda_driver_version: int | None = None
    driver_version: str | None = None
    devices: tuple[NvbandwidthDevice, ...] = ()
    tests: tuple[NvbandwidthTest, ...] = ()
    waived: int = 0
    error: str | None = None

    def test(self, name: str) -> NvbandwidthTest | None:
        """The first test of that name."""
        return next((test for test in self.tests if test.name == name), None)
