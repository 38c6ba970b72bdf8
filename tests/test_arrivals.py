"""Where the time to the first token comes from, and what else the workload decides."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.gpus import what_if
from multigpu.page.overturn import command
from multigpu.plan import Candidate, Memory, ModelSpec, Prediction, Strategy, Wish
from multigpu.planner import plan
from multigpu.speed import predict
from multigpu.speed.arrivals import arrivals, rounds
from multigpu.speed.work import element_bytes
from multigpu.workload import workload
from tests.machines import RTX_3090, hf, host
from tests.test_speed import load, model, tensor_parallel

HOST = what_if.host("2x RTX 4090")


@given(st.integers(1, 600), st.floats(0.1, 64), st.booleans(), st.floats(2, 500))
def test_the_usual_wait_lies_between_spread_and_bunched_arrivals(
    running: int, fit: float, prompts_first: bool, times: float
) -> None:
    found = arrivals(running, fit, prompts_first, times)
    assert 1.0 <= found.spread <= found.usual <= found.together <= running
    assert 0.0 <= found.between <= running - 1


@given(st.integers(2, 600), st.floats(0.1, 64))
def test_no_prompt_is_counted_twice_by_a_scheduler_that_reads_prompts_first(
    running: int, fit: float
) -> None:
    found = arrivals(running, fit, True, 10.0)
    assert found.usual + found.between == pytest.approx(running)


@given(st.integers(1, 4000))
def test_fewer_requests_at_a_time_make_more_rounds(concurrency: int) -> None:
    assert rounds(concurrency) >= rounds(concurrency + 1) >= 2


def test_the_page_asks_for_the_benchmark_that_the_first_token_is_predicted_for() -> None:
    for concurrency in (1, 16, 64, 800):
        wish = Wish("chat", "m", concurrency=concurrency, context=2048)
        asked = " ".join(command(plan(host(RTX_3090, RTX_3090), hf(), wish)))
        count = re.search(r"--num-prompts (\d+)", asked)
        assert count and int(count[1]) == rounds(concurrency) * concurrency


def times(runtime: str, concurrency: int) -> Prediction:
    return predict(tensor_parallel(2, runtime), HOST, model(), load(concurrency, 2048))


def test_prompts_of_others_belong_to_the_first_token_with_sglang_and_to_the_others_with_vllm() -> (
    None
):
    mixed, first = times("vllm", 16), times("sglang", 16)
    assert mixed.tpot_ms and mixed.ttft_ms and first.tpot_ms and first.ttft_ms
    assert first.tpot_ms.value < mixed.tpot_ms.value
    assert first.ttft_ms.value > mixed.ttft_ms.value
    assert mixed.decode_tokens_per_s == first.decode_tokens_per_s


def test_the_range_of_the_first_token_grows_with_the_requests() -> None:
    few, many = times("vllm", 2).ttft_ms, times("vllm", 64).ttft_ms
    assert few and many and many.high / many.low > few.high / few.low


def test_requests_beyond_the_cache_wait_whole_requests() -> None:
    tight = replace(tensor_parallel(1), memory=(Memory(8000, 1500, 500, 500, 22000),))
    found = predict(tight, HOST, model("awq"), load(64))
    assert found.running and found.ttft_ms and found.tpot_ms
    request = load(64).output_tokens * found.tpot_ms.value
    assert found.ttft_ms.value > (64 / found.running - 1) * request * 0.9


@pytest.mark.parametrize(
    ("dtype", "size"),
    [(None, 2.0), ("f16", 2.0), ("bfloat16", 2.0), ("fp8_e4m3", 1.0), ("q8_0", 34 / 32)],
)
def test_cached_elements_have_the_size_of_their_type(dtype: str | None, size: float) -> None:
    assert element_bytes(dtype) == size


def test_a_quantized_cache_is_read_faster_behind_a_long_history() -> None:
    long = load(1, 32768)
    half = replace(long, kv_cache_dtype="fp8")
    found = [predict(tensor_parallel(2), HOST, model("awq"), asked) for asked in (long, half)]
    rates = [each.decode_tokens_per_s for each in found]
    assert rates[0] and rates[1] and rates[1].value > 1.1 * rates[0].value


def test_the_workload_knows_the_type_of_the_cache() -> None:
    spec, asked = model(), Wish("chat", "m", kv_cache_dtype="fp8")
    assert workload(spec, asked).kv_cache_dtype == "fp8"
    assert workload(spec, Wish("chat", "m")).kv_cache_dtype is None
    nvfp4 = replace(spec, kv_cache_dtype="nvfp4")
    auto = Wish("chat", "m", flags={"--kv-cache-dtype": "auto"})
    assert workload(nvfp4, auto).kv_cache_dtype == "nvfp4"
    q8 = Wish("chat", "m", flags={"--cache-type-k": "q8_0"})
    assert workload(spec, q8).kv_cache_dtype == "q8_0"


def test_splitting_tensors_with_llama_cpp_costs_prompts_and_mixtures_most() -> None:
    """llama.cpp pull request 19378: dense 31B decode x1.36, prompts x0.61; 26B-A4B x0.70, x0.39."""
    host = what_if.host("2x RTX 4090")
    layer = replace(tensor_parallel(2, "llama.cpp"), strategy=Strategy.LAYER_SPLIT)
    layer = replace(layer, tensor_parallel_size=1, layers=(16, 17))
    tensor = replace(layer, strategy=Strategy.TENSOR_SPLIT, layers=(1, 1))
    ratios = []
    for experts in (0, 64):
        spec = model("Q4_K_M", experts=experts, format="gguf")
        before, after = (predict(way, host, spec, load(1, 2048)) for way in (layer, tensor))
        a, b = before.decode_tokens_per_s, after.decode_tokens_per_s
        c, d = before.prefill_tokens_per_s, after.prefill_tokens_per_s
        assert a and b and c and d
        ratios.append((b.value / a.value, d.value / c.value))
    (dense, dense_prompt), (mixture, mixture_prompt) = ratios
    assert mixture < 1 < dense < 1.6
    assert mixture_prompt < dense_prompt < 1


def test_a_split_of_tensors_gains_nothing_for_prompts_of_several_batches() -> None:
    """The same pull request: Gemma 4 31B Q4_K_M, x0.95 at 512 tokens, x0.61 at 2048.

    A layer split reads batches of 512 on both cards at a time; with one batch the cards take turns.
    """
    host = what_if.host("2x RTX 4090")
    layer = Candidate("llama.cpp", Strategy.LAYER_SPLIT, (0, 1), layers=(30, 31))
    tensor = replace(layer, strategy=Strategy.TENSOR_SPLIT, layers=(1, 1))
    spec = large()
    for tokens, published in ((512, 0.95), (2048, 0.61)):
        a, b = (
            predict(w, host, spec, load(1, tokens)).prefill_tokens_per_s for w in (layer, tensor)
        )
        assert a and b and 0.8 < b.value / a.value / published < 1.2


def large(quantization: str = "Q4_K_M", format: str = "gguf") -> ModelSpec:
    """A dense model of 31B parameters in 60 blocks, 4.9 bits each."""
    small = model(quantization, format=format)
    return replace(
        small,
        name="31B",
        num_hidden_layers=60,
        num_attention_heads=32,
        hidden_size=5376,
        intermediate_size=21504,
        layers=small.layers[:1] * 60,
        layers_mib=(285.0,) * 60,
        num_parameters=31_000_000_000,
    )


def test_four_cards_without_peer_access_answer_one_user_sooner_than_two() -> None:
    """27B int4 on RTX 3090s (noonghunna/club-3090): 69.3 tok/s with four, 53.8 with two."""
    rig = what_if.host("4x RTX 3090")
    two, four = (
        predict(tensor_parallel(n), rig, large("awq", "safetensors"), load(1, 512)) for n in (2, 4)
    )
    a, b = two.decode_tokens_per_s, four.decode_tokens_per_s
    assert a and b and 1 < b.value / a.value < 69.3 / 53.8
