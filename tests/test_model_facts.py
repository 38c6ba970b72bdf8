"""Costs per token that are summed once per model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.model.facts import facts
from tests.machines import dense, gguf, hf

MOE = dense(num_experts=64, num_experts_per_tok=4, moe_intermediate_size=1024)


def test_a_dense_model_reads_all_blocks_and_the_output_matrix_for_a_token() -> None:
    model = hf()
    assert facts(model).read_mib(1) == pytest.approx(model.weights_mib - model.embedding_mib)
    assert facts(model).read_mib(64) == facts(model).read_mib(1)


def test_tied_embeddings_are_read_as_the_output_matrix() -> None:
    model = hf(dense(tie_word_embeddings=True))
    assert facts(model).read_mib() == pytest.approx(model.weights_mib)


def test_one_token_hits_its_own_experts_and_many_hit_nearly_all() -> None:
    found = facts(hf(MOE))
    assert found.distinct_experts(1) == pytest.approx(4)
    assert 63 < found.distinct_experts(128) < 64


def test_a_counted_model_without_expert_blocks_has_none_whatever_its_class_defaults_to() -> None:
    model = replace(hf(), num_experts=8, num_experts_per_tok=2, moe_intermediate_size=7688)
    assert facts(model).experts_mib == 0
    assert facts(model).read_mib(1) == facts(hf()).read_mib(1)


@given(st.integers(1, 1000))
def test_a_larger_batch_never_reads_less(tokens: int) -> None:
    found = facts(hf(MOE))
    assert found.read_mib(tokens) <= found.read_mib(tokens + 1) <= found.weights_mib


def test_the_cache_grows_by_keys_and_values_of_all_layers() -> None:
    assert facts(hf()).cache_bytes_per_token() == 32 * 2 * 8 * 128 * 2
    assert facts(hf()).cache_bytes(1000, kv_bytes=1.0) == 1000 * 32 * 2 * 8 * 128


def test_a_sliding_layer_reads_no_more_than_its_window() -> None:
    sliding = hf(dense(layer_types=["sliding_attention"] * 32, sliding_window=128))
    assert facts(sliding).cache_bytes(10_000) == facts(sliding).cache_bytes(128)
    assert facts(sliding).cache_bytes_per_token() == 0


def test_arithmetic_is_two_operations_per_parameter_and_the_attention_over_the_history() -> None:
    found = facts(hf())
    assert found.flops_per_token(0) == 2 * found.active_parameters
    attention = found.flops_per_token(1000) - found.flops_per_token(0)
    assert attention == 4 * 32 * 32 * 128 * 1000
    assert found.flops_per_token(0, logits=False) == pytest.approx(
        2 * (found.active_parameters - 128256 * 4096)
    )


def test_active_parameters_of_a_dense_model_are_all_but_the_input_embedding() -> None:
    assert facts(hf()).active_parameters == pytest.approx(8.03e9 - 128256 * 4096, rel=0.01)
    assert facts(gguf()).active_parameters > 1e9


def test_the_sums_of_the_same_object_are_made_once() -> None:
    model = hf()
    assert facts(model) is facts(model)
    assert facts(replace(model, name="other")) is not facts(model)
