"""Published measurements as hosts, models, candidates and workloads of this project.

    python -m benchmarks.groundtruth [--all]

Reads `../shared/groundtruth/measurements.tsv` beside the repository. A row that cannot be used for
the speed of plain decoding keeps its place, with every reason in `reasons`. Speculative decoding is
such a reason: its tokens per second are those of another algorithm.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from benchmarks.groundtruth_lines import TABLE, Measured, loads_of, table
from benchmarks.groundtruth_models import model_for
from benchmarks.groundtruth_rigs import host_for, machine_of, rig_of
from benchmarks.groundtruth_ways import runtime_of, sized, utilization_of, way_of
from multigpu.hardware import Host
from multigpu.plan import Candidate, ModelSpec, Workload

__all__ = ["TABLE", "Group", "Measured", "Row", "groups", "rows", "sized", "table", "usable_rows"]

SPECULATIVE = re.compile(r"\bmtp\b|dflash|eagle|spec-?decode|speculative", re.I)


@dataclass(frozen=True)
class Row:
    """One measurement. `n` is the table's number; a row with two workloads gives two of these.

    `rig` names one machine or one publisher's machines of a kind: what cross-validation leaves out;
    `machine` is the one machine it is known to be. `group` is equal for rows that differ by the way
    of serving alone. `reasons` say why the row cannot be used for speed, `assumed` what was filled
    in.
    """

    n: int
    metric: str
    rig: str
    runtime: str
    model_name: str
    host: Host | None = None
    model: ModelSpec | None = None
    config: Path | None = None
    candidate: Candidate | None = None
    load: Workload | None = None
    measured: Measured = field(default_factory=Measured)
    reasons: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    group: str | None = None
    machine: str | None = None

    @property
    def usable(self) -> bool:
        """True when a prediction can be compared with the row's decode speed."""
        return not self.reasons and self.measured.decode_tokens_per_s is not None


@dataclass(frozen=True)
class Group:
    """Rows of one rig, model, runtime and workload; `host` has the cards of the largest of them."""

    name: str
    host: Host
    model: ModelSpec
    load: Workload
    rows: tuple[Row, ...]


@cache
def rows() -> tuple[Row, ...]:
    """Every speed row of the table (memory, verdicts and bare percentages are others' concern)."""
    aside = {"memory_per_gpu_GiB", "fit_verdict", "ab_delta"}
    return tuple(row for raw in table() if raw["metric"] not in aside for row in _rows(raw))


def usable_rows() -> list[Row]:
    """Rows whose decode speed can be predicted and compared."""
    return [row for row in rows() if row.usable]


def groups() -> list[Group]:
    """Choices: at least two ways of serving that were measured on the same rig and workload."""
    found: dict[str, list[Row]] = {}
    for row in rows():
        if row.group is not None and row.measured.decode_tokens_per_s is not None:
            found.setdefault(row.group, []).append(row)
    return [group for name, of in found.items() if (group := _group(name, of)) is not None]


def _group(name: str, of: list[Row]) -> Group | None:
    ways = {
        (r.candidate.strategy, r.candidate.tensor_parallel_size, r.candidate.replicas)
        for r in of
        if r.candidate is not None
    }
    largest = max(of, key=lambda r: len(r.host.gpus) if r.host else 0)
    if len(ways) < 2 or largest.host is None or largest.model is None or largest.load is None:
        return None
    return Group(name, largest.host, largest.model, largest.load, tuple(of))


def _rows(raw: dict[str, str]) -> Iterator[Row]:
    """One row per workload that a line of the table holds."""
    name = runtime_of(raw)
    host, host_reasons = host_for(raw)
    model, config, model_reasons = model_for(raw)
    base = Row(
        n=int(raw["n"]),
        metric=raw["metric"],
        rig=rig_of(raw),
        machine=machine_of(raw),
        runtime=name,
        model_name=raw["model"],
        host=host,
        model=model,
        config=config,
        reasons=(*host_reasons, *model_reasons, *_speculative(raw)),
    )
    for load, measured, reasons, assumed in loads_of(raw):
        row = replace(
            base,
            load=load,
            measured=measured,
            reasons=(*base.reasons, *reasons),
            assumed=assumed,
        )
        yield _placed(row, raw)


def _placed(row: Row, raw: dict[str, str]) -> Row:
    """With the candidate that was run, sized as the planner sizes it."""
    if row.host is None or row.model is None or row.load is None:
        return row
    candidate = sized(
        way_of(row.runtime, row.host, row.assumed, raw),
        row.host,
        row.model,
        row.load,
        utilization_of(raw),
    )
    card = row.host.gpus[0].name or ""
    load = row.load
    # ShareGPT prompts differ by a few tokens in the mean with how many were drawn.
    inputs = "ShareGPT" if row.metric == "offline_total_tok_s" else load.input_tokens
    key = (row.rig, row.runtime, row.model.name, inputs, load.output_tokens)
    conc = load.concurrency
    group = " · ".join(map(str, (*key, conc, card)))
    series = re.search(r"\[(.+?)\]", raw["runtime_flags"])
    return replace(
        row, candidate=candidate, group=f"{group} · {series.group(1)}" if series else group
    )


def _speculative(raw: dict[str, str]) -> Iterator[str]:
    """Why a row's decoding is not plain.

    That it was off is believed unless the row itself says that its file turns it on.
    """
    text = f"{raw['model']} {raw['quant']} {raw['runtime_flags']} {raw['note']}"
    if re.search(r"spec-?off|no spec", text, re.I) and "--speculative-config" not in text:
        return
    if "club-3090 BENCHMARKS.md" in raw["source"] and "llama" not in runtime_of(raw):
        yield "speculative decoding (the repository's composes use MTP or DFlash)"
    elif SPECULATIVE.search(text) and "-MTP-GGUF" not in raw["model"]:
        yield "speculative decoding"


def main(arguments: Iterable[str]) -> None:
    """A line per row, then how many are usable and why the others are not."""
    show = "--all" in arguments
    kept = usable_rows()
    why: dict[str, int] = {}
    for row in rows():
        for reason in row.reasons[:1]:
            why[reason] = why.get(reason, 0) + 1
        if show or row.usable:
            load = row.load
            size = f"{load.input_tokens}/{load.output_tokens} x{load.concurrency}" if load else "-"
            way = row.candidate.strategy if row.candidate else "-"
            says = row.measured.decode_tokens_per_s or 0
            print(
                f"{row.n:4} {row.rig:32.32} {row.model_name:36.36} {way:18} {size:14} {says:9.1f}"
            )
    print(f"{len(kept)} of {len(rows())} rows usable; {len(groups())} choice groups")
    for reason, count in sorted(why.items(), key=lambda item: -item[1]):
        print(f"  {count:4} {reason}")


if __name__ == "__main__":
    main(sys.argv[1:])
