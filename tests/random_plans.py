"""Any plan that could stand in a file: strategies for property tests."""

from __future__ import annotations

import string
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from multigpu.plan import (
    Estimate,
    Justification,
    LayerCache,
    Memory,
    ModelSize,
    ModelSpec,
    Objective,
    Plan,
    Prediction,
    Reason,
    Rejected,
    Setting,
    Strategy,
    Workload,
)
from tests.plans import LAYER_SPLIT, MODEL, TENSOR_PARALLEL, plan

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
names = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=12)
tenths = st.integers(0, 10**7).map(lambda value: value / 10)
whole = st.integers(0, 10**6).map(float)
memories = st.builds(Memory, whole, whole, whole, whole, whole, whole, whole)
speeds = st.floats(0.01, 1e6)
estimates = st.none() | st.builds(Estimate, speeds, speeds, speeds)
reasons = st.builds(
    Reason, names | st.just("ranked-lower"), texts, st.none() | texts, st.none() | texts
)
caches = st.builds(
    LayerCache, st.sampled_from(["full", "sliding", "mla"]), st.integers(0, 64), st.integers(0, 256)
)
predictions = st.none() | st.builds(
    Prediction,
    estimates,
    estimates,
    estimates,
    estimates,
    st.none() | st.integers(1, 512),
    texts,
    st.booleans(),
    st.lists(texts, max_size=2).map(tuple),
)
justifications = st.none() | st.builds(
    Justification,
    names,
    st.integers(1, 8),
    st.integers(1, 8),
    st.integers(1, 99),
    st.none() | texts,
    st.none() | texts,
    st.none() | speeds,
    st.none() | speeds,
    st.none() | speeds,
    st.lists(st.builds(ModelSize, st.sampled_from([4, 8, 16]), speeds, speeds)).map(tuple),
    st.lists(texts, max_size=2).map(tuple),
)
fractions = st.none() | st.floats(0.01, 1)


@st.composite
def models(draw: st.DrawFn) -> ModelSpec:
    return replace(
        MODEL,
        name=draw(texts),
        quantization=draw(st.none() | names),
        layers=tuple(draw(st.lists(caches, max_size=8))),
        layers_mib=tuple(draw(st.lists(tenths, max_size=8))),
        embedding_mib=draw(tenths),
        revision=draw(st.none() | names),
    )


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    held = draw(st.lists(memories, min_size=1, max_size=3))
    chosen = replace(
        TENSOR_PARALLEL,
        gpus=tuple(range(len(held))),
        strategy=draw(st.sampled_from(Strategy)),
        memory=draw(st.sampled_from([(), tuple(held)])),
        layers=draw(st.none() | st.lists(st.integers(0, 99), max_size=3).map(tuple)),
        gpu_memory_utilization=draw(fractions),
        max_model_len=draw(st.none() | st.integers(1, 10**6)),
        cpu_offload_mib=draw(tenths),
        expert_parallel=draw(st.booleans()),
        predicted=draw(predictions),
    )
    lost = replace(chosen, kv_tokens=7, predicted=draw(predictions))
    wish: dict[str, Any] = {
        "name": draw(names),
        "flags": draw(st.dictionaries(texts, st.none() | texts, max_size=3)),
        "env": draw(st.dictionaries(texts, texts, max_size=3)),
        "served_model_name": draw(st.none() | texts),
        "gpu_memory_utilization": draw(fractions),
    }
    return replace(
        plan(chosen, **wish),
        model=draw(models()),
        gpu_uuids=tuple(draw(st.lists(st.none() | names, max_size=3))),
        reasons=tuple(draw(st.lists(reasons, max_size=3))),
        environment=tuple(draw(st.lists(st.builds(Setting, names, texts, texts), max_size=3))),
        simulated=draw(st.booleans()),
        rejected=tuple(
            Rejected(draw(st.sampled_from([chosen, lost, LAYER_SPLIT])), tuple(found))
            for found in draw(st.lists(st.lists(reasons, min_size=1, max_size=2), max_size=4))
        ),
        justification=draw(justifications),
        workload=Workload(Objective.CONTEXT, draw(st.integers(1, 10**6)), 3, 7, 5, 1.5, None),
        assumptions=tuple(draw(st.lists(texts, max_size=2))),
        gpu_names=tuple(draw(st.lists(st.none() | texts, max_size=3))),
    )


@st.composite
def refusals(draw: st.DrawFn) -> Plan:
    """A plan with something rejected, as the parts of a NoPlan."""
    made = draw(plans())
    reason = Reason(draw(names), draw(texts))
    return replace(made, rejected=(*made.rejected, Rejected(LAYER_SPLIT, (reason,))))
