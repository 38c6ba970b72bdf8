"""What a run of nccl-tests or rccl-tests measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NcclTestRank:
    """One rank of a run. Releases that print only the bus number leave `pci_bus_id` None."""

    rank: int
    host: str | None = None
    pid: int | None = None
    device: int | None = None
    pci_bus_id: str | None = None
    pci_bus: int | None = None
    name: str | None = None


@dataclass(frozen=True)
class NcclTestCell:
    """One half of a row. `wrong` counts wrong elements, `error` that of old releases."""

    time_us: float | None = None
    algbw_gb_s: float | None = None
    busbw_gb_s: float | None = None
    wrong: int | None = None
    error: float | None = None


@dataclass(frozen=True)
class NcclTestRow:
    """One message size. A half that was not printed is None."""

    size_bytes: int
    count: int
    type: str
    redop: str | None = None
    root: int | None = None
    out_of_place: NcclTestCell | None = None
    in_place: NcclTestCell | None = None

    @property
    def busbw_gb_s(self) -> float | None:
        """The better of both halves."""
        halves = (self.out_of_place, self.in_place)
        known = [half.busbw_gb_s for half in halves if half and half.busbw_gb_s is not None]
        return max(known, default=None)


@dataclass(frozen=True)
class NcclTest:
    """One collective. `collective` reads `all_reduce`; `n_gpus` is that of -g (per thread).

    `avg_busbw_gb_s` is the tool's mean over all sizes, tiny ones too: compare `peak` instead.
    `failures` are the tool's own words when the run broke off.
    """

    collective: str | None = None
    n_threads: int | None = None
    n_gpus: int | None = None
    ranks: tuple[NcclTestRank, ...] = ()
    rows: tuple[NcclTestRow, ...] = ()
    out_of_bounds: int | None = None
    avg_busbw_gb_s: float | None = None
    failures: tuple[str, ...] = ()

    @property
    def peak(self) -> NcclTestRow | None:
        """The row of the largest size; None without rows and for one rank, which uses no link."""
        if len(self.ranks) == 1:
            return None
        return max(self.rows, key=lambda row: row.size_bytes, default=None)

    @property
    def wrong(self) -> int | None:
        """Wrong elements in all rows together; None where no row was checked."""
        halves = [half for row in self.rows for half in (row.out_of_place, row.in_place) if half]
        counts = [half.wrong for half in halves if half.wrong is not None]
        return sum(counts) if counts else None
