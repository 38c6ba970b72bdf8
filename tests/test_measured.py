"""What was measured on a rig replaces the prediction, and only there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from multigpu.gpus import what_if
from multigpu.plan import Estimate, Strategy
from multigpu.speed import predict
from multigpu.speed.measured import Measurement, gpus_of, judged, links_of, matching
from multigpu.speed.measured_file import MeasurementError, read, write
from tests.test_speed import load, model, tensor_parallel

HOST = what_if.host("2x RTX 3090", "x8")
WAY = tensor_parallel(2)
MODEL = model("awq")
LOAD = load(8)


def measured(**changes: object) -> Measurement:
    found = Measurement(
        gpus=gpus_of(WAY, HOST),
        links=links_of(WAY, HOST),
        driver="595.71.05",
        runtime="vllm",
        runtime_version="0.33.0",
        model=MODEL.name,
        quantization="awq",
        strategy=Strategy.TENSOR_PARALLEL,
        tensor_parallel_size=2,
        concurrency=8,
        input_tokens=1024,
        output_tokens=256,
        when="2026-11-20",
        tool="multigpu bench 1",
        decode_tokens_per_s=Estimate(321.0, 310.0, 330.0),
        ttft_ms=Estimate(150.0, 140.0, 170.0),
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def test_a_measurement_of_the_same_rig_model_and_workload_is_cited() -> None:
    found = judged(WAY, HOST, MODEL, LOAD, [measured()])
    assert found.measured and found.decode_tokens_per_s == Estimate(321.0, 310.0, 330.0)
    assert "multigpu bench 1" in found.basis and "2026-11-20" in found.basis
    assert "vllm 0.33.0" in found.basis


def test_what_the_benchmark_left_out_is_predicted_and_said_so() -> None:
    found = judged(WAY, HOST, MODEL, LOAD, [measured()])
    assert found.tpot_ms == predict(WAY, HOST, MODEL, LOAD).tpot_ms
    assert "predicted: prefill_tokens_per_s, tpot_ms" in found.basis


@pytest.mark.parametrize(
    "change",
    [
        {"concurrency": 9},
        {"input_tokens": 2048},
        {"output_tokens": 1024},
        {"runtime": "sglang"},
        {"model": "x/another"},
        {"quantization": None},
        {"strategy": Strategy.PIPELINE_PARALLEL},
        {"tensor_parallel_size": 4},
        {"replicas": 2},
        {"gpus": ("NVIDIA GeForce RTX 3090", "NVIDIA GeForce RTX 3090 Ti")},
        {"links": ("lane gen4 x16", "lane gen4 x16", "pair PHB")},
    ],
)
def test_a_measurement_of_something_else_is_not_taken(change: dict[str, object]) -> None:
    other = measured(**change)
    assert matching([other], WAY, HOST, MODEL, LOAD) == ()
    assert judged(WAY, HOST, MODEL, LOAD, [other]) == predict(WAY, HOST, MODEL, LOAD)


def test_the_newest_of_several_counts() -> None:
    old = measured(when="2025-01-01", decode_tokens_per_s=Estimate(1.0, 1.0, 1.0))
    assert matching([old, measured()], WAY, HOST, MODEL, LOAD)[0] == measured()


def test_lengths_within_a_quarter_and_unseen_links_match() -> None:
    near = measured(input_tokens=1200, output_tokens=220, links=())
    assert matching([near], WAY, HOST, MODEL, LOAD) == (near,)


def test_a_file_gives_back_what_was_written() -> None:
    rows = (measured(), measured(when="2026-11-21T10:00:00Z", layers=(16, 16), note="warm"))
    assert read(write(rows), "measurements/rig.yaml") == rows
    assert read("", "measurements/rig.yaml") == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{not: [yaml", "no YAML"),
        ("a: 1", "a list of measurements"),
        ("- 3", "measurement 1: a mapping"),
        ("- runtime: vllm", "measurement 1"),
        (write([measured()]).replace("concurrency: 8", "concurrency: many"), "measurement 1"),
        (write([measured()]) + "  speed: 3\n", "speed"),
    ],
)
def test_a_broken_file_is_refused_with_its_place(text: str, says: str) -> None:
    with pytest.raises(MeasurementError, match=r"measurements/rig\.yaml") as error:
        read(text, "measurements/rig.yaml")
    assert says in str(error.value)
