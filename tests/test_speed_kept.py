"""Times of engines that are kept with a model are those that would be worked out anew."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.planning_time import DENSE
from benchmarks.random_hosts import hosts
from multigpu.memo import memo
from multigpu.model import from_hf_config
from multigpu.plan import ModelSpec, Objective, Source, Wish
from multigpu.planner import sift
from multigpu.speed import predict
from multigpu.workload import workload


def dense() -> ModelSpec:
    return from_hf_config(DENSE, name="m", source=Source.HUB, path="m", weights_bytes=None)


KEPT = dense()


@given(seed=st.integers(0, 10_000), concurrency=st.sampled_from([1, 3, 16, 40]))
def test_a_prediction_does_not_depend_on_the_hosts_that_were_planned_before(
    seed: int, concurrency: int
) -> None:
    wish = Wish("chat", "m", objective=Objective.THROUGHPUT, concurrency=concurrency)
    load = workload(KEPT, wish)
    for host in hosts(3, seed):
        for way in sift(host, KEPT, wish)[0]:
            found = predict(way, host, KEPT, load)
            assert found == predict(way, replace(host), replace(KEPT), load)
    assert memo(KEPT)["speed-engines"][load]
