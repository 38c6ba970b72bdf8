"""What a card has and what a request caches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from multigpu import memory as m
from multigpu.plan import LayerCache, Wish
from tests.machines import MIB, R9700, RTX_3090, RTX_4090


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
