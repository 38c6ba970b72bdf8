"""What a card has, what a request caches, and what llama.cpp holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from multigpu import memory as m
from multigpu.plan import Candidate, LayerCache, ModelSpec, Strategy, Wish
from multigpu.runtimes import llama_cpp_memory as g
from tests.machines import MIB, R9700, RTX_3090, RTX_4090, gguf, host


def wish(**keys: Any) -> Wish:
    return Wish("chat", "org/model", **keys)


FULL = LayerCache("full", num_key_value_heads=8, head_dim=128)


def one_request(layer: LayerCache, context: int = 4096, **keys: Any) -> float:
    return m.request_mib([layer], context, kv_bytes=2.0, **keys) * MIB


def test_a_full_layer_keeps_keys_and_values_of_every_token() -> None:
    assert one_request(FULL) == 4096 * 2 * 8 * 128 * 2


def test_kv_heads_are_divided_down_to_one_per_card() -> None:
    assert one_request(FULL, tensor_parallel_size=8) == one_request(FULL) / 8
    assert one_request(FULL, tensor_parallel_size=16) == one_request(FULL) / 8


def test_mla_is_not_divided_by_tensor_parallel() -> None:
    mla = LayerCache("mla", elements=576)
    assert one_request(mla, tensor_parallel_size=8) == one_request(mla) == 4096 * 576 * 2


def test_a_sliding_layer_keeps_its_window_and_the_tokens_in_flight() -> None:
    sliding = replace(FULL, kind="sliding", window=1024)
    assert one_request(sliding, in_flight=2048) == (1024 + 2048) * 2 * 8 * 128 * 2
    assert one_request(sliding, context=512, in_flight=2048) == one_request(FULL, context=512)


def test_recurrent_state_does_not_grow_with_context() -> None:
    state = LayerCache("state", elements=1000, element_bytes=4)
    assert one_request(state, context=10) == one_request(state, context=10**6) == 4000


def test_nvml_reserved_memory_replaces_the_assumed_one() -> None:
    assert m.cuda_total_mib(replace(RTX_3090, memory_reserved_mib=317)) == 24576 - 317


def test_cuda_sees_less_of_a_card_than_nvidia_smi_and_hip_all_of_it() -> None:
    """23.69 GiB of an RTX 3090, 23.64 of an RTX 4090 (PyTorch's messages)."""
    assert m.cuda_total_mib(RTX_3090) / 1024 == pytest.approx(23.69, abs=0.01)
    assert m.cuda_total_mib(RTX_4090) / 1024 == pytest.approx(23.64, abs=0.01)
    assert m.cuda_total_mib(R9700) == R9700.memory_mib


def test_an_unknown_card_loses_a_small_share() -> None:
    lost = 20000 - m.cuda_total_mib(replace(RTX_3090, memory_mib=20000))
    assert 0.01 * 20000 < lost < 0.02 * 20000


def split_gguf(model: ModelSpec, wished: Wish, layers: tuple[int, int]) -> Candidate:
    split = Candidate("llama.cpp", Strategy.LAYER_SPLIT, (0, 1), layers=layers)
    return g.sized(split, host(RTX_3090, RTX_3090), model, wished)


def test_llama_cpp_takes_exactly_the_asked_cache() -> None:
    sized = split_gguf(gguf(), wish(context=4096, concurrency=2), (17, 16))
    assert sized.kv_tokens == 8192
    per_block = 8192 * 2 * 8 * 128 * 2 / MIB
    assert [x.kv_cache_mib for x in sized.memory] == [17 * per_block, 15 * per_block]
    assert [x.weights_mib for x in sized.memory] == [17 * 128, 15 * 128 + 400]


def test_a_quantized_llama_cpp_cache_is_smaller() -> None:
    flags = {"--cache-type-k": "q8_0", "--cache-type-v": "q8_0"}
    plain = split_gguf(gguf(), wish(), (17, 16)).memory[0].kv_cache_mib
    assert split_gguf(gguf(), wish(flags=flags), (17, 16)).memory[0].kv_cache_mib == pytest.approx(
        plain * 34 / 64, rel=0.01
    )


def test_pipeline_copies_of_the_mask_count_on_several_cards() -> None:
    wished = wish(context=32768, concurrency=1)
    one = g.sized(Candidate("llama.cpp", Strategy.SINGLE, (0,)), host(RTX_3090), gguf(), wished)
    assert (
        split_gguf(gguf(), wished, (17, 16)).memory[1].activations_mib
        > one.memory[0].activations_mib
    )
