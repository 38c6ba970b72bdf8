"""The cost model obeys physics, says when it knows nothing, and is quick."""

from __future__ import annotations

from dataclasses import replace
from math import isclose
from time import perf_counter

from hypothesis import given
from hypothesis import strategies as st

from multigpu.gpus import what_if
from multigpu.hardware import Gpu, Host
from multigpu.plan import (
    Candidate,
    Estimate,
    LayerCache,
    Memory,
    ModelSpec,
    Objective,
    Source,
    Strategy,
    Workload,
)
from multigpu.speed import predict
from multigpu.speed.cards import Join, cards
from multigpu.speed.constants import LINKS
from multigpu.speed.steps import reduce
from multigpu.speed.work import work

LAYERS = 32
CARDS = ("RTX 3060", "RTX 3090", "RTX 4090", "RTX 5090", "L40S")


def model(
    quantization: str | None = None, *, experts: int = 0, format: str = "safetensors"
) -> ModelSpec:
    """Eight billion parameters in 32 blocks; with experts most of them are routed."""
    width = {None: 2.0, "awq": 0.55, "fp8": 1.0, "Q4_K_M": 0.6}[quantization]
    block = 218e6 * width / 2**20
    return ModelSpec(
        name=f"eight-{quantization}-{experts}",
        source=Source.HUB,
        path="x/eight",
        format=format,
        model_type="llama",
        quantization=quantization,
        dtype="bfloat16",
        num_hidden_layers=LAYERS,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        hidden_size=4096,
        intermediate_size=14336,
        vocab_size=128256,
        max_position_embeddings=131072,
        layers=(LayerCache("full", 8, 128),) * LAYERS,
        layers_mib=(block,) * LAYERS,
        experts_mib=(block * 0.8,) * LAYERS if experts else (),
        num_experts=experts or None,
        num_experts_per_tok=8 if experts else None,
        embedding_mib=1002.0,
        output_mib=1002.0,
        num_parameters=8_030_000_000,
    )


def load(concurrency: int = 1, inputs: int = 1024, outputs: int = 256) -> Workload:
    return Workload(Objective.LATENCY, inputs + outputs, concurrency, inputs, outputs)


def tensor_parallel(n: int, runtime: str = "vllm") -> Candidate:
    if n == 1:
        return Candidate(runtime, Strategy.SINGLE, (0,))
    return Candidate(runtime, Strategy.TENSOR_PARALLEL, tuple(range(n)), tensor_parallel_size=n)


def pipeline(n: int) -> Candidate:
    cards_ = tuple(range(n))
    return Candidate("vllm", Strategy.PIPELINE_PARALLEL, cards_, pipeline_parallel_size=n)


def replicas(n: int) -> Candidate:
    return Candidate("vllm", Strategy.REPLICAS, tuple(range(n)), replicas=n)


def decode(candidate: Candidate, host: Host, spec: ModelSpec, work_load: Workload) -> float:
    found = predict(candidate, host, spec, work_load).decode_tokens_per_s
    assert found is not None
    return found.value


def test_a_memory_bound_decode_stays_below_the_bandwidth_of_the_card() -> None:
    spec, host = model("awq"), what_if.host("RTX 3090")
    read = (sum(spec.layers_mib) + spec.output_mib) * 2**20
    assert decode(tensor_parallel(1), host, spec, load()) < 936e9 / read


@given(st.sampled_from(CARDS), st.sampled_from([None, "awq", "fp8"]), st.integers(1, 300))
def test_the_value_lies_in_its_range_and_all_are_positive(
    card: str, quantization: str | None, concurrency: int
) -> None:
    found = predict(
        tensor_parallel(2), what_if.host(f"2x {card}"), model(quantization), load(concurrency)
    )
    for estimate in (
        found.decode_tokens_per_s,
        found.prefill_tokens_per_s,
        found.ttft_ms,
        found.tpot_ms,
    ):
        assert isinstance(estimate, Estimate)
        assert 0 < estimate.low <= estimate.value <= estimate.high


@given(st.integers(1, 200), st.integers(16, 8000), st.integers(16, 2000))
def test_a_card_with_more_of_everything_is_never_slower(
    concurrency: int, inputs: int, outputs: int
) -> None:
    spec, asked = model("awq"), load(concurrency, inputs, outputs)
    rates = [
        decode(tensor_parallel(1), what_if.host(card), spec, asked)
        for card in ("RTX 3060", "RTX 3090", "RTX 4090", "RTX 5090")
    ]
    assert rates == sorted(rates)


@given(st.integers(2, 256), st.integers(16, 8000), st.sampled_from([0, 64]))
def test_more_requests_at_a_time_never_lower_the_output_of_the_service(
    concurrency: int, inputs: int, experts: int
) -> None:
    spec, host = model("awq", experts=experts), what_if.host("RTX 4090")
    fewer = decode(tensor_parallel(1), host, spec, load(concurrency, inputs))
    more = decode(tensor_parallel(1), host, spec, load(concurrency + 1, inputs))
    assert more >= fewer * 0.999


@given(st.sampled_from([2, 4]), st.integers(1, 128), st.sampled_from(["x16", "x8", "x4"]))
def test_tensor_parallel_over_a_slower_link_is_never_faster(
    n: int, concurrency: int, slot: str
) -> None:
    spec, asked = model("awq"), load(concurrency)
    ways = [
        what_if.host(f"{n}x RTX 3090", "gen3 x4"),
        what_if.host(f"{n}x RTX 3090", f"gen4 {slot}"),
        what_if.host(f"{n}x RTX 3090", f"gen4 {slot}", p2p=True),
    ]
    rates = [decode(tensor_parallel(n), host, spec, asked) for host in ways]
    assert rates == sorted(rates)
    first = [predict(tensor_parallel(n), host, spec, asked).ttft_ms for host in ways]
    assert first[0] and first[2] and first[0].value >= first[2].value


def test_a_bridge_is_worth_more_for_prompts_than_for_tokens() -> None:
    spec, asked = model(), load(1, 8192)
    bridged = what_if.host("2x RTX 3090", nvlink=True)
    plain = what_if.host("2x RTX 3090")
    before, after = (predict(tensor_parallel(2), host, spec, asked) for host in (plain, bridged))
    assert before.prefill_tokens_per_s and after.prefill_tokens_per_s
    assert before.decode_tokens_per_s and after.decode_tokens_per_s
    prompts = after.prefill_tokens_per_s.value / before.prefill_tokens_per_s.value
    tokens = after.decode_tokens_per_s.value / before.decode_tokens_per_s.value
    assert prompts > tokens > 1


@given(st.integers(2, 8), st.integers(1, 32))
def test_replicas_with_as_many_requests_each_add_up(n: int, each: int) -> None:
    spec = model("awq")
    one = decode(tensor_parallel(1), what_if.host("RTX 4090"), spec, load(each))
    many = decode(replicas(n), what_if.host(f"{n}x RTX 4090"), spec, load(each * n))
    if each > 1:
        assert abs(many / (n * one) - 1) < 1e-9
    else:  # alone, a request is timed without its own prompt
        assert many <= n * one


def test_replicas_with_unequal_shares_serve_no_more_requests_than_there_are() -> None:
    def decode(engines: int, concurrency: int) -> float:
        found = predict(
            replicas(engines), what_if.host(f"{engines}x RTX 4090"), model("awq"), load(concurrency)
        )
        assert found.decode_tokens_per_s is not None and found.running == concurrency
        return found.decode_tokens_per_s.value

    one_takes_two = decode(2, 4) / 2
    assert isclose(decode(3, 4), one_takes_two + decode(2, 2))
    assert decode(4, 3) < decode(4, 4)


def test_one_request_gains_nothing_from_a_pipeline_and_many_do() -> None:
    spec, host = model(), what_if.host("4x RTX 4090")
    one = decode(tensor_parallel(1), host, spec, load(1))
    assert decode(pipeline(4), host, spec, load(1)) <= one
    crowd = load(128)
    alone = decode(tensor_parallel(1), host, spec, crowd)
    assert decode(pipeline(4), host, spec, crowd) > 1.5 * alone


def test_the_slowest_card_paces_a_tensor_parallel_group() -> None:
    spec = model("awq")
    mixed = what_if.host("RTX 5090 + RTX 3090")
    like = what_if.host("2x RTX 3090")
    assert decode(tensor_parallel(2), mixed, spec, load()) <= 1.05 * decode(
        tensor_parallel(2), like, spec, load()
    )


def test_a_mixture_of_experts_reads_fewer_weights_for_one_request_than_for_many() -> None:
    spec = model("awq", experts=64)
    rank = work(spec, 1)
    assert rank.weights(1)[1] < 0.2 * rank.weights(256)[1]
    assert decode(tensor_parallel(1), what_if.host("RTX 3090"), spec, load()) > 1.2 * decode(
        tensor_parallel(1), what_if.host("RTX 3090"), model("awq"), load()
    )


def test_a_longer_history_slows_decoding() -> None:
    spec, host = model("awq"), what_if.host("RTX 3090")
    rates = [decode(tensor_parallel(1), host, spec, load(1, n)) for n in (512, 8192, 65536)]
    assert rates == sorted(rates, reverse=True) and rates[2] < 0.7 * rates[0]


def test_requests_that_the_cache_does_not_hold_wait_for_their_first_token() -> None:
    spec, host = model("awq"), what_if.host("RTX 3090")
    roomy = replace(tensor_parallel(1), memory=(Memory(8000, 12000, 500, 500, 22000),))
    tight = replace(tensor_parallel(1), memory=(Memory(8000, 1500, 500, 500, 22000),))
    full, short = (predict(c, host, spec, load(64)) for c in (roomy, tight))
    assert full.running == 64 and short.running is not None and short.running < 16
    assert full.ttft_ms and short.ttft_ms and short.ttft_ms.value > 2 * full.ttft_ms.value


def test_a_power_limit_costs_prompts_more_than_tokens() -> None:
    spec = model("awq")
    free, capped = what_if.host("RTX 3090"), what_if.host("RTX 3090 @220W")
    before, after = (predict(tensor_parallel(1), h, spec, load()) for h in (free, capped))
    assert before.prefill_tokens_per_s and after.prefill_tokens_per_s
    assert after.prefill_tokens_per_s.value < 0.85 * before.prefill_tokens_per_s.value
    assert before.decode_tokens_per_s and after.decode_tokens_per_s
    assert after.decode_tokens_per_s.value > 0.95 * before.decode_tokens_per_s.value


def unknown(candidate: Candidate, host: Host, spec: ModelSpec) -> str:
    found = predict(candidate, host, spec, load())
    assert found.decode_tokens_per_s is None and found.ttft_ms is None
    return "; ".join(found.unknown)


def test_a_card_without_data_gives_no_number_but_its_name() -> None:
    host = Host("odd", gpus=(Gpu(0, name="Frobnicator 9000", memory_mib=24576),))
    assert "Frobnicator 9000" in unknown(tensor_parallel(1), host, model())


def test_no_number_without_a_basis() -> None:
    host = what_if.host("RTX 4090")
    offloaded = replace(tensor_parallel(1), cpu_offload_mib=4096.0)
    assert "host's memory" in unknown(offloaded, host, model())
    partial = replace(model(), lower_bound=("the vision tower",))
    assert "the vision tower" in unknown(tensor_parallel(1), host, partial)
    assert "mlx" in unknown(tensor_parallel(1, "mlx"), host, model())
    amd = what_if.host("Radeon RX 7900 XTX")
    assert "AMD" in unknown(tensor_parallel(1, "sglang"), amd, model())


def test_llama_cpp_on_amd_has_a_wide_range_that_holds_what_was_published() -> None:
    """Llama 8B Q4_K_M, tg64 and pp2048 with -ub 512 (llama.cpp pull request 26284)."""
    spec, way = model("Q4_K_M", format="gguf"), tensor_parallel(1, "llama.cpp")
    published = {"Radeon RX 7900 XTX": (105.8, 3227), "Radeon AI PRO R9700": (94.9, 4095)}
    for name, (tokens, prompts) in published.items():
        found = predict(way, what_if.host(name), spec, load(1, 2048, 64))
        decode, prefill = found.decode_tokens_per_s, found.prefill_tokens_per_s
        assert decode and prefill and "RX 7900 XTX" in found.basis
        assert decode.low < tokens < decode.high and prefill.low < prompts < prefill.high
        assert decode.high / decode.low > 2
    other = predict(way, what_if.host("Radeon RX 7800 XT"), spec, load()).decode_tokens_per_s
    assert other and other.high / other.low > 4


@given(st.integers(2, 16), st.floats(1e3, 1e9))
def test_an_all_reduce_is_never_quicker_through_the_host_than_by_peer_access(
    ranks: int, size: float
) -> None:
    staged, peer = (
        reduce(Join(kind, 16e9, ranks > 2), ranks, size, LINKS) for kind in ("staged", "peer")
    )
    assert staged >= peer


def test_a_generation_that_was_not_measured_has_a_wider_range() -> None:
    spec = model("awq")
    seen = predict(tensor_parallel(1), what_if.host("RTX 3090"), spec, load())
    unseen = predict(tensor_parallel(1), what_if.host("Tesla T4"), spec, load())
    a, b = seen.decode_tokens_per_s, unseen.decode_tokens_per_s
    assert a and b and b.high / b.low > 1.5 * a.high / a.low
    assert "wider" in unseen.basis and "wider" not in seen.basis


def test_a_prediction_takes_less_than_a_fifth_of_a_millisecond() -> None:
    spec, host, asked = model("awq"), what_if.host("8x RTX 3090"), load(64)
    ways = [tensor_parallel(8), pipeline(8), replicas(8)]
    for way in ways:
        predict(way, host, spec, asked)
    best = min(_timed(ways, host, spec, asked) for _ in range(5))
    assert best < 200e-6


def _timed(ways: list[Candidate], host: Host, spec: ModelSpec, asked: Workload) -> float:
    start = perf_counter()
    for _ in range(20):
        for way in ways:
            predict(way, host, spec, asked)
    return (perf_counter() - start) / (20 * len(ways))


def test_cards_of_two_hosts_are_not_mixed_up() -> None:
    fast, slow = what_if.host("RTX 5090"), what_if.host("RTX 3060")
    assert cards(fast).by_index[0] != cards(slow).by_index[0]
    assert cards(fast) is cards(fast)


def test_unlike_replicas_lie_between_those_of_like_cards() -> None:
    spec, asked = model("awq"), load(32)
    rates = [
        decode(replicas(2), what_if.host(cards_), spec, asked)
        for cards_ in ("2x RTX 3090", "RTX 5090 + RTX 3090", "RTX 3090 + RTX 5090", "2x RTX 5090")
    ]
    assert rates[0] < rates[1] < rates[3]
    assert abs(rates[1] / rates[2] - 1) < 1e-9


def test_a_team_of_replicas_that_is_joined_worse_slows_the_service() -> None:
    spec, asked = model("awq"), load(64, 4096)
    way = replace(replicas(4), replicas=2, tensor_parallel_size=2)
    plain, bridged = (what_if.host("4x RTX 3090", nvlink=nvlink) for nvlink in (False, True))
    pairs = tuple(
        b if (p.a, p.b) == (0, 1) else p for p, b in zip(plain.pairs, bridged.pairs, strict=True)
    )
    half = replace(plain, pairs=pairs)
    rates = [decode(way, host, spec, asked) for host in (plain, half, bridged)]
    assert rates == sorted(rates) and rates[0] < rates[2]


def test_llama_cpp_on_an_h200_is_met_as_it_was_measured() -> None:
    """llama-bench and llama-batched-bench of llama-cpp-python 0.3.36 (CUDA), 2026-11-23, by us:
    8B Q4_0 337 tok/s, F16 210, Q4_0 with 16 sequences 2,104; prompts of 2,048 11,500 and 24,900."""
    host, way = what_if.host("H200 SXM"), tensor_parallel(1, "llama.cpp")
    active = 7_504_000_000
    blocks = (218e6 * 4.5 / 8 / 2**20,) * LAYERS
    quarter = replace(
        model("Q4_K_M", format="gguf"),
        layers_mib=blocks,
        output_mib=411.0,
        active_parameters=active,
    )
    whole = replace(model(None, format="gguf"), active_parameters=active)
    for spec, concurrency, measured, prompts in (
        (quarter, 1, 337, 11_466),
        (whole, 1, 210, 24_944),
    ):
        found = predict(way, host, spec, load(concurrency, 2048, 64))
        assert found.decode_tokens_per_s and found.prefill_tokens_per_s
        assert abs(found.decode_tokens_per_s.value / measured - 1) < 0.25
        assert abs(found.prefill_tokens_per_s.value / prompts - 1) < 0.25
    many = predict(way, host, quarter, load(16, 512, 64)).tpot_ms
    alone = predict(way, host, quarter, load(1, 512, 64)).tpot_ms
    assert many and alone and 16 * alone.value / many.value < 16 / 2
