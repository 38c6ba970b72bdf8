"""Questions of choice that the published measurements answer, and their arms.

Arms are ways of serving that were measured on one rig with one model and one workload. Questions
are: the shortest request (latency), the most output tokens per second of the rig (throughput), and
the same under a bound on the time per output token, where some arms meet it and others do not. For
throughput an arm on a part of the cards is repeated over the others, and replicas are taken to be
linear, each with the row's own concurrency (planning.md, section 3). Regret is the share lost
against the best arm; an arm that misses the bound loses all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

from benchmarks.groundtruth import Group, Row, groups
from multigpu.hardware import Host
from multigpu.plan import Candidate, Objective, Strategy, Workload

BOUNDS_MS = (10.0, 20.0, 40.0, 80.0)


@cache
def asked() -> tuple[Question, ...]:
    """The questions, made once."""
    return tuple(questions())


@dataclass(frozen=True)
class Arm:
    """One measured way, `copies` times on the rig; `rate` is tokens/s of all copies."""

    candidate: Candidate
    host: Host
    load: Workload
    copies: int
    rate: float
    request_ms: float
    tpot_ms: float | None

    @property
    def gpus(self) -> int:
        """Cards in use."""
        return len(self.candidate.gpus) * self.copies

    @property
    def way(self) -> tuple[int, int, int, Strategy]:
        """What makes two rows the same way of serving."""
        one = self.candidate
        sizes = (one.tensor_parallel_size, one.pipeline_parallel_size)
        split = one.strategy if one.replicas == 1 and self.copies == 1 else Strategy.REPLICAS
        return (*sizes, one.replicas * self.copies, split)

    @property
    def label(self) -> str:
        """`4 x TP2`, `PP8`, `layer_split`."""
        one, count = self.candidate, self.candidate.replicas * self.copies
        name = f"TP{one.tensor_parallel_size}"
        if one.pipeline_parallel_size > 1:
            name = f"PP{one.pipeline_parallel_size}"
        if one.strategy in (Strategy.LAYER_SPLIT, Strategy.TENSOR_SPLIT):
            name = str(one.strategy)
        return f"{count} x {name}" if count > 1 else name


@dataclass(frozen=True)
class Question:
    """One choice to make. `load` carries the objective and the bound."""

    group: Group
    name: str
    load: Workload
    arms: tuple[Arm, ...]

    def value(self, arm: Arm) -> float:
        """What the arm is worth by measurement: requests or tokens per second, 0 beyond a bound."""
        bound = self.load.tpot_ms
        if bound is not None and (arm.tpot_ms is None or arm.tpot_ms > bound):
            return 0.0
        return 1 / arm.request_ms if self.load.objective is Objective.LATENCY else arm.rate

    def regret(self, arm: Arm) -> float:
        """The share that is lost with this arm."""
        return 1 - self.value(arm) / max(self.value(other) for other in self.arms)


def questions() -> Iterator[Question]:
    """Every question that the table answers and whose answer is not the same for all arms."""
    for group in groups():
        arms = [arm for row in group.rows if (arm := _arm(row)) is not None]
        latency = replace(group.load, objective=Objective.LATENCY)
        throughput = replace(group.load, objective=Objective.THROUGHPUT)
        repeated = _distinct([_repeated(arm, len(group.host.gpus)) for arm in arms])
        yield from _asked(group, "latency", latency, _distinct(arms))
        yield from _asked(group, "throughput", throughput, repeated)
        for bound in BOUNDS_MS:
            if any(a.tpot_ms is None for a in repeated) or not _parts(repeated, bound):
                continue
            load = replace(throughput, tpot_ms=bound)
            yield from _asked(group, f"tpot <= {bound:.0f} ms", load, repeated)


def _asked(group: Group, name: str, load: Workload, arms: Sequence[Arm]) -> Iterator[Question]:
    if len(arms) > 1:
        yield Question(group, name, load, tuple(arms))


def _parts(arms: Sequence[Arm], bound: float) -> bool:
    """True where some arms meet the bound and others miss it."""
    return 0 < sum((arm.tpot_ms or 0) <= bound for arm in arms) < len(arms)


def _arm(row: Row) -> Arm | None:
    rate, load = row.measured.decode_tokens_per_s, row.load
    if row.candidate is None or row.host is None or load is None or not rate:
        return None
    request = 1000 * load.concurrency * load.output_tokens / rate
    return Arm(row.candidate, row.host, load, 1, rate, request, row.measured.tpot_ms)


def _repeated(arm: Arm, cards: int) -> Arm:
    copies = max(1, cards // len(arm.candidate.gpus))
    return replace(arm, copies=copies, rate=arm.rate * copies)


def _distinct(arms: Sequence[Arm]) -> list[Arm]:
    """One arm a way: measured as a whole before repeated ones, and the best sitting of equals."""
    found: dict[object, Arm] = {}
    for arm in sorted(arms, key=lambda a: (a.copies, -a.rate)):
        found.setdefault(arm.way, arm)
    return list(found.values())
