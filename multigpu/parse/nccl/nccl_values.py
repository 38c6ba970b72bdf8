"""What a log of NCCL or RCCL says: ranks, and which way each pair of them talks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class NcclRank:
    """One process of a collective; `cuda_device` and `nvml_device` count on its host."""

    rank: int
    host: str | None = None
    pid: int | None = None
    cuda_device: int | None = None
    nvml_device: int | None = None
    pci_bus_id: str | None = None


@dataclass(frozen=True)
class NcclPair:
    """An unordered pair of ranks, `a < b`, and how many channel lines name each transport.

    `transports` are as printed up to the number of a network card: P2P/IPC, P2P/CUMEM/read,
    P2P/direct pointer, SHM/direct/direct, NET/IB, NET/Socket/GDRDMA. `device_a` and `device_b` are
    what the lines put in brackets: a PCI address (NCCL up to about 2.18) or a device number.
    """

    a: int
    b: int
    transports: tuple[tuple[str, int], ...]
    device_a: str | None = None
    device_b: str | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """P2P, SHM, NET, ..., each once, as often used first."""
        counts: Counter[str] = Counter()
        for transport, lines in self.transports:
            counts[transport.split("/")[0]] += lines
        return tuple(name for name, _ in counts.most_common())

    @property
    def verdict(self) -> str:
        """The class of every channel of the pair, or `mixed`."""
        return self.classes[0] if len(self.classes) == 1 else "mixed"

    @property
    def gpu_direct_rdma(self) -> bool:
        """True when a network card reads and writes VRAM itself."""
        return any("GDRDMA" in transport for transport, _ in self.transports)


@dataclass(frozen=True)
class NcclLog:
    """What one log says. `ranks_total` is nranks of the largest communicator, not lines seen.

    `network` is the one between hosts. `overrides` are variables "set by environment", `warnings`
    the texts of NCCL WARN lines, each once. `channels`, `nvls_channels` and `p2p_channels` are
    counts per rank; `rings` and `trees` how many were built. `nvls` tells whether NVLink multicast
    is available (not without NVSwitch, which is no fault). `communicators` counts distinct ids.
    """

    version: str | None = None
    rccl: bool | None = None
    ranks_total: int | None = None
    ranks: tuple[NcclRank, ...] = ()
    pairs: tuple[NcclPair, ...] = ()
    network: str | None = None
    warnings: tuple[str, ...] = ()
    overrides: tuple[tuple[str, str], ...] = ()
    channels: int | None = None
    nvls_channels: int | None = None
    p2p_channels: int | None = None
    rings: int | None = None
    trees: int | None = None
    nvls: bool | None = None
    communicators: int | None = None

    @property
    def hosts(self) -> tuple[str, ...]:
        """Host names of the ranks, each once."""
        return tuple(dict.fromkeys(rank.host for rank in self.ranks if rank.host))

    @property
    def verdict(self) -> str | None:
        """P2P, SHM, NET or mixed over all pairs; None where no channel line was seen."""
        verdicts = {pair.verdict for pair in self.pairs}
        return None if not verdicts else verdicts.pop() if len(verdicts) == 1 else "mixed"

    def pair(self, a: int, b: int) -> NcclPair | None:
        """The pair of two ranks, None when no channel between them was seen."""
        low, high = min(a, b), max(a, b)
        return next((pair for pair in self.pairs if (pair.a, pair.b) == (low, high)), None)
