"""What vLLM holds of each card: against boot logs, by rule, and what must hold for every model."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.vllm_boots import boots
from multigpu import memory as m
from multigpu.hardware import GpuProcess
from multigpu.plan import Candidate, LayerCache, ModelSpec, Strategy, Wish
from multigpu.runtimes import vllm_cache as c
from multigpu.runtimes import vllm_memory as v
from multigpu.runtimes import vllm_release as r
from multigpu.runtimes import vllm_weights as w
from tests.machines import H100, R9700, RTX_3090, RTX_4090, dense, hf, host

SINGLE = Candidate("vllm", Strategy.SINGLE, (0,))
PAIR = Candidate("vllm", Strategy.TENSOR_PARALLEL, (0, 1), tensor_parallel_size=2)
LLAMA = hf()


def wish(**keys: Any) -> Wish:
    return Wish("chat", "org/model", **keys)


def sized(model: ModelSpec = LLAMA, *cards: Any, **keys: Any) -> Candidate:
    """One engine over all the cards, tensor parallel where there are several."""
    gpus = cards or (RTX_3090,)
    way = replace(PAIR, gpus=tuple(range(len(gpus))), tensor_parallel_size=len(gpus))
    return v.sized(way if len(gpus) > 1 else SINGLE, host(*gpus), model, wish(**keys))


def test_no_more_weights_are_offloaded_than_there_are() -> None:
    big = hf(dense(num_hidden_layers=64))
    some, too_many = sized(big, cpu_offload_gib=12), sized(big, cpu_offload_gib=100_000)
    assert some.cpu_offload_mib == 12 * 1024
    assert too_many.cpu_offload_mib == w.weights_mib(big, (0, 64), 1, RTX_3090)


def test_a_larger_card_gets_vllms_larger_defaults() -> None:
    """8192 tokens and 1024 requests from 70 GiB, but not on an A100."""
    a100 = replace(H100, name="NVIDIA A100-SXM4-80GB", memory_mib=81920)
    assert [r.batched_tokens(gpu, {}) for gpu in (RTX_3090, H100, a100)] == [2048, 8192, 2048]
    assert [r.max_num_seqs(gpu, wish(), 1) for gpu in (RTX_3090, H100, a100)] == [64, 1024, 64]
    assert r.batched_tokens(replace(H100, memory_mib=183359), {}) == 16384


def test_flags_of_the_wish_win_over_defaults() -> None:
    flags = {"--max-num-batched-tokens": "4096", "--max-num-seqs": "8"}
    assert r.batched_tokens(H100, flags) == 4096
    assert r.max_num_seqs(H100, wish(flags=flags), 1) == 8


def test_engines_share_the_wished_requests() -> None:
    assert [r.max_num_seqs(RTX_3090, wish(concurrency=400), n) for n in (1, 3)] == [400, 134]
    assert r.max_num_seqs(RTX_3090, wish(concurrency=1), 1) == r.MIN_MAX_NUM_SEQS
    assert r.max_num_seqs(RTX_3090, wish(concurrency=1_000_000), 1) == r.LARGE_MAX_NUM_SEQS


def test_more_requests_leave_less_cache_but_never_refuse() -> None:
    few, many = sized(concurrency=16), sized(concurrency=400)
    assert many.max_num_seqs == 400
    assert (many.kv_tokens or 0) < (few.kv_tokens or 0)
    assert many.memory[0].fits


def test_an_fp8_cache_holds_twice_as_many_tokens() -> None:
    plain, narrow = sized(), sized(kv_cache_dtype="fp8")
    assert narrow.kv_tokens == pytest.approx(2 * (plain.kv_tokens or 0), rel=0.01)


def test_a_checkpoint_that_asks_for_an_fp8_cache_gets_it_unless_another_is_wished() -> None:
    asking = replace(LLAMA, kv_cache_dtype="fp8")
    assert r.kv_bytes(wish(), asking) == 1.0
    assert r.kv_bytes(wish(kv_cache_dtype="bfloat16"), asking) == 2.0


def test_vllm_takes_the_rest_of_its_fraction_as_cache() -> None:
    one = sized()
    (memory,) = one.memory
    assert one.gpu_memory_utilization == v.GPU_MEMORY_UTILIZATION
    assert memory.fits and memory.capacity_mib - memory.total_mib <= 4


def test_the_smallest_rank_decides_the_cache_of_all() -> None:
    split = Candidate(
        "vllm", Strategy.PIPELINE_PARALLEL, (0, 1), pipeline_parallel_size=2, layers=(16, 16)
    )
    small = replace(RTX_3090, memory_mib=16384)
    alike = v.sized(split, host(RTX_3090, RTX_3090), LLAMA, wish())
    mixed = v.sized(split, host(RTX_3090, small), LLAMA, wish())
    assert (mixed.kv_tokens or 0) < (alike.kv_tokens or 0)
    assert mixed.memory[0].total_mib < mixed.memory[0].capacity_mib - 1024


def test_a_candidate_that_cannot_hold_one_request_does_not_fit() -> None:
    one = sized(context=131072)
    assert not one.memory[0].fits
    assert one.kv_sequences == 0


def test_weights_alone_beyond_the_card_do_not_fit() -> None:
    one = sized(hf(weights_bytes=40 * 1024**3))
    assert not one.memory[0].fits and one.kv_tokens == 0 and one.context_limit == 0


def test_other_processes_lower_the_fraction_and_own_ones_do_not() -> None:
    busy = replace(RTX_3090, memory_free_mib=12000)
    ours = GpuProcess(1, used_memory_mib=12000, unit="multigpu-chat-0.service")
    other = replace(ours, unit="multigpu-chatter.service")

    def fraction(*processes: GpuProcess) -> float | None:
        return sized(LLAMA, replace(busy, processes=processes)).gpu_memory_utilization

    assert fraction() == fraction(other) == 0.48
    assert fraction(ours) == v.GPU_MEMORY_UTILIZATION


def test_a_pinned_fraction_is_obeyed() -> None:
    one = sized(gpu_memory_utilization=0.5)
    assert one.memory[0].capacity_mib == int(m.cuda_total_mib(RTX_3090) * 0.5)


def test_eager_mode_holds_no_graphs() -> None:
    eager = sized(flags={"--enforce-eager": None})
    assert eager.memory[0].graphs_mib == 0 < sized().memory[0].graphs_mib


def test_graphs_are_captured_for_the_sizes_that_vllm_prints() -> None:
    """Boot logs: 19 + 11 with 64 requests, 51 + 35 with 256, 51 + 51 with 1024, 7 + 5 with 16."""
    printed = {64: 30, 256: 86, 1024: 102, 16: 12}
    assert {n: r.captured_graphs(n) for n in printed} == printed


def test_older_releases_sort_the_logits_and_leave_graphs_outside() -> None:
    """H100, vLLM 0.11, Qwen3-0.6B: torch_peak 5.56 GiB with 1024 requests."""
    small = replace(LLAMA, vocab_size=151936, hidden_size=1024, intermediate_size=3072)
    old = v.sized(SINGLE, host(H100), small, wish(), r.release("0.11.0")).memory[0]
    new = v.sized(SINGLE, host(H100), small, wish()).memory[0]
    assert old.activations_mib / 1024 == pytest.approx(5.56, abs=0.1)
    assert old.graphs_mib == 0 < new.graphs_mib
    assert new.activations_mib < old.activations_mib / 2


def test_offloaded_weights_leave_the_card_and_are_counted() -> None:
    big = hf(weights_bytes=24 * 1024**3)
    plain, off = sized(big), sized(big, cpu_offload_gib=8.0)
    assert not plain.memory[0].fits and off.memory[0].fits
    assert plain.memory[0].weights_mib - off.memory[0].weights_mib == 8192
    assert off.cpu_offload_mib == 8192 and plain.cpu_offload_mib == 0


def test_nothing_is_offloaded_where_the_model_fits_without() -> None:
    assert sized(cpu_offload_gib=4.0) == sized()


def replicas(*cards: Any, **keys: Any) -> Candidate:
    """A copy on each card."""
    n = len(cards)
    way = Candidate("vllm", Strategy.REPLICAS, tuple(range(n)), replicas=n)
    return v.sized(way, host(*cards), LLAMA, wish(**keys))


def test_unlike_replicas_are_told_what_vllm_takes_for_the_smaller_card() -> None:
    """In either order; each alone would start with other defaults."""
    for cards in ((RTX_3090, H100), (H100, RTX_3090)):
        found = replicas(*cards)
        assert (found.max_num_seqs, found.max_num_batched_tokens) == (64, 2048)
        small = found.memory[cards.index(RTX_3090)]
        assert small == sized().memory[0]
        assert {row.activations_mib for row in found.memory} == {small.activations_mib}
    alike = replicas(H100, H100)
    assert (alike.max_num_seqs, alike.max_num_batched_tokens) == (1024, None)


def test_each_replica_fills_its_own_card() -> None:
    found = replicas(RTX_3090, H100)
    assert found.kv_tokens == sized().kv_tokens
    assert all(row.capacity_mib - row.total_mib <= 4 for row in found.memory)


def test_a_card_of_amd_keeps_more_outside_of_the_pool() -> None:
    amd = sized(LLAMA, R9700).memory[0]
    assert amd.overhead_mib > sized().memory[0].overhead_mib


def test_tensor_parallel_holds_half_and_a_little_more() -> None:
    half = w.weights_mib(LLAMA, (0, 32), 2) / w.weights_mib(LLAMA, (0, 32), 1)
    assert 0.5 < half <= 0.526


def test_a_tower_is_not_divided() -> None:
    seeing = replace(LLAMA, vision_mib=800.0)
    assert w.weights_mib(seeing, (0, 32), 2) - w.weights_mib(LLAMA, (0, 32), 2) == 800


def test_a_tied_embedding_is_held_by_the_first_and_the_last_stage() -> None:
    tied = hf(dense(tie_word_embeddings=True))
    outer = w.weights_mib(tied, (0, 16), 1) + w.weights_mib(tied, (16, 32), 1)
    assert outer == pytest.approx(w.weights_mib(tied, (0, 32), 1) + tied.embedding_mib)


def test_kv_heads_beyond_the_ranks_are_repeated() -> None:
    few = replace(LLAMA, num_key_value_heads=2)
    repeated = w.weights_mib(few, (0, 32), 8) - w.weights_mib(LLAMA, (0, 32), 8)
    assert repeated > 0


def test_mxfp4_experts_are_padded_by_the_kernels() -> None:
    """gpt-oss: 2880 is padded to 3072 everywhere and to 2944 by Marlin."""
    mx = replace(
        LLAMA, quantization="mxfp4", hidden_size=2880, moe_intermediate_size=2880, num_experts=32
    )
    assert w.experts_factor(mx, 1, H100) == pytest.approx(3072 / 2880)
    assert w.experts_factor(mx, 1, RTX_4090) == pytest.approx(3072 / 2880 * 2944 / 2880)


def hybrid(*layers: LayerCache) -> ModelSpec:
    return replace(
        LLAMA, layers=layers, num_hidden_layers=len(layers), layers_mib=(100.0,) * len(layers)
    )


FULL = LayerCache("full", 8, 64)
SLIDING = LayerCache("sliding", 8, 64, window=128)
GPT_OSS_20B = hybrid(*(layer for _ in range(12) for layer in (SLIDING, FULL)))


def test_gpt_oss_has_the_concurrency_that_vllm_printed() -> None:
    """RTX 4090, vLLM 0.12: 7.11 GiB, 16.73 requests of 16,384 tokens, 2048 tokens in flight."""
    one = c.layout(GPT_OSS_20B, (0, 24), 1, 2.0)
    assert one is not None
    blocks = int(7.11 * 1024**3 / one.block_bytes)
    assert blocks / one.blocks(16384, 2048) == pytest.approx(16.73, abs=0.02)


def test_dense_layers_take_the_tokens_that_vllm_printed() -> None:
    """RTX 4090, vLLM 0.12, Llama 3.1 8B: 6.93 GiB, 56,800 tokens."""
    one = c.layout(LLAMA, (0, 32), 1, 2.0)
    assert one is not None
    assert int(6.93 * 1024**3 / one.block_bytes) * 16 == pytest.approx(56800, rel=0.002)


def test_a_recurrent_state_takes_whole_pages_of_the_attention_block() -> None:
    """The attention block grows until its page holds a state; a request keeps two states."""
    state = LayerCache("state", elements=600_000, element_bytes=4)
    one = c.layout(hybrid(*(state, state, state, FULL) * 4), (0, 16), 1, 2.0)
    assert one is not None
    attention = next(bucket for bucket in one.buckets if bucket.window is None)
    page = attention.block_tokens * 2 * 8 * 64 * 2
    assert page >= 2_400_000 > page - 16 * 2 * 8 * 64 * 2
    assert one.blocks(1, 0) == 1 + 3 * 2


def test_a_layer_that_keeps_only_a_state_per_sequence_takes_no_tokens() -> None:
    """Windowed layers of DeepSeek V4: nothing grows, so many bytes per sequence."""
    window = LayerCache("mla", elements=0, sequence_bytes=70_000)
    one = c.layout(hybrid(*(LayerCache("mla", elements=576), window) * 4), (0, 8), 1, 2.0)
    assert one is not None
    assert one.blocks(100_000, 0) > one.blocks(10_000, 0) > 0
    states = c.layout(hybrid(window, window), (0, 2), 8, 2.0)
    assert states is not None and states.blocks(10, 0) == states.blocks(10**6, 0)


def test_a_start_is_promised_only_with_a_margin() -> None:
    """One request more than the cache could hold by less than the margin is refused."""
    limit = sized().context_limit or 0
    spare = sized(context=limit).memory[0]
    request = limit * 2 * 8 * 128 * 2 * 32 / 1024**2
    assert spare.kv_cache_mib - request >= v.FIT_MARGIN_MIB
    refused = sized(context=limit + 16)
    assert not refused.memory[0].fits and refused.kv_sequences == 0


def test_marlin_drops_the_zero_points_of_gptq_and_rocm_keeps_more() -> None:
    gptq = replace(LLAMA, quantization="gptq", group_size=128)
    assert w.resident(gptq, RTX_3090) < 1.0 < w.resident(gptq, R9700)


def test_matrices_of_whole_allocations_lose_nothing() -> None:
    """8B in bfloat16: 14.99 GiB of 14.96; 14B in FP8 loses 3 MiB per layer."""
    assert w.rounded_mib(LLAMA, 1) == 0
    fourteen = replace(
        LLAMA,
        quantization="fp8",
        hidden_size=5120,
        num_attention_heads=40,
        intermediate_size=17408,
    )
    assert w.rounded_mib(fourteen, 1) == 3


MODELS = st.sampled_from(
    (
        LLAMA,
        GPT_OSS_20B,
        hf(dense(tie_word_embeddings=True)),
        hybrid(*(SLIDING, SLIDING, FULL, FULL) * 4),
        hybrid(*(LayerCache("state", elements=300_000, element_bytes=4), FULL) * 8),
        hybrid(*(LayerCache("mla", elements=576),) * 16),
    )
)


@given(MODELS, st.integers(4000, 90000), st.integers(1, 20000))
def test_more_memory_never_lowers_the_cache(model: ModelSpec, mib: int, more: int) -> None:
    tokens = [
        sized(model, replace(RTX_3090, memory_mib=size, memory_free_mib=size)).kv_tokens or 0
        for size in (mib, mib + more)
        if not r.large(replace(RTX_3090, memory_mib=size))
    ]
    assert tokens == sorted(tokens)


@given(MODELS, st.booleans())
def test_more_ranks_never_hold_more_weights_each(model: ModelSpec, experts: bool) -> None:
    n = model.num_hidden_layers
    held = [w.weights_mib(model, (0, n), tp, expert_parallel=experts) for tp in (1, 2, 4, 8)]
    assert all(a >= b for a, b in pairwise(held))


@given(MODELS, st.integers(6000, 60000))
def test_the_longest_context_fits_and_one_block_more_does_not(model: ModelSpec, mib: int) -> None:
    card = replace(RTX_3090, memory_mib=mib, memory_free_mib=mib)
    free = replace(model, max_position_embeddings=None)
    limit = sized(free, card).context_limit or 0
    if not limit:
        assert not sized(free, card, context=2).memory[0].fits
        return
    assert sized(free, card, context=limit).memory[0].fits
    layout = c.layout(free, (0, free.num_hidden_layers), 1, 2.0)
    assert layout is not None
    block = max(bucket.block_tokens for bucket in layout.buckets)
    assert not sized(free, card, context=limit + block).memory[0].fits


@given(MODELS, st.integers(1, 200_000), st.integers(0, 8192))
def test_a_longer_request_never_takes_fewer_blocks(
    model: ModelSpec, context: int, in_flight: int
) -> None:
    layout = c.layout(model, (0, model.num_hidden_layers), 1, 2.0)
    assert layout is not None
    blocks = [layout.blocks(context + more, in_flight) for more in (0, 1, 16, 1000)]
    assert blocks == sorted(blocks)
    assert layout.longest(blocks[0], in_flight) >= context


def test_boots_of_the_rendered_release_on_an_h200_are_predicted_within_a_gib() -> None:
    found = list(boots())
    assert len(found) >= 2
    assert max(abs(boot.error) for boot in found) < 1.0
    assert sum(abs(boot.error) for boot in found) / len(found) < 0.4


def test_a_pinned_release_is_sized_as_that_release_accounts() -> None:
    """0.26 copies no embedding on its first start; 0.33 does, on the first stage, unless eager."""
    later, earlier = sized(), sized(runtime_version="0.26.0")
    assert later.memory[0].activations_mib > earlier.memory[0].activations_mib
    eager = sized(flags={"--enforce-eager": None})
    assert later.memory[0].activations_mib > eager.memory[0].activations_mib
    assert [r.release(said).version for said in (None, "nightly", "0.26.1rc1")] == [
        (0, 33),
        (0, 33),
        (0, 21),
    ]
