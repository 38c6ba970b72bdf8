"""Sums of a model that are made once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from multigpu.model.facts import facts
from multigpu.plan import LayerCache
from multigpu.speed.work import work
from tests.machines import dense, gguf, hf

MOE = dense(num_experts=64, num_experts_per_tok=4, moe_intermediate_size=1024)


def test_a_dense_model_reads_all_blocks_and_the_output_matrix() -> None:
    model = hf()
    assert facts(model).always_mib == pytest.approx(model.weights_mib - model.embedding_mib)
    assert (facts(model).experts_mib, facts(model).num_experts) == (0, 0)


def test_tied_embeddings_are_read_as_the_output_matrix() -> None:
    model = hf(dense(tie_word_embeddings=True))
    assert facts(model).always_mib == pytest.approx(model.weights_mib)


def test_routed_experts_are_not_read_by_every_step() -> None:
    found, model = facts(hf(MOE)), hf(MOE)
    read = model.weights_mib - model.embedding_mib
    assert found.always_mib + found.experts_mib == pytest.approx(read)
    assert found.experts_mib > 0.9 * sum(model.layers_mib)


def test_a_counted_model_without_expert_blocks_has_none_whatever_its_class_defaults_to() -> None:
    model = replace(hf(), num_experts=8, num_experts_per_tok=2, moe_intermediate_size=7688)
    assert facts(model).experts_mib == 0
    assert facts(model).always_mib == facts(hf()).always_mib


def test_equal_layers_are_counted() -> None:
    ((layer, count),) = facts(hf()).caches
    assert (layer.kind, count) == ("full", 32)


def test_active_parameters_of_a_dense_model_are_all_but_the_input_embedding() -> None:
    assert facts(hf()).active_parameters == pytest.approx(8.03e9 - 128256 * 4096, rel=0.01)
    assert facts(gguf()).active_parameters > 1e9


def test_the_sums_of_the_same_object_are_made_once() -> None:
    model = hf()
    assert facts(model) is facts(model)
    assert facts(replace(model, name="other")) is not facts(model)


@pytest.mark.parametrize(("kind", "divided"), [("full", 2), ("mla", 1)])
def test_a_state_beside_the_cache_is_read_and_written_once_a_token(kind: str, divided: int) -> None:
    plain = replace(hf(), layers=(LayerCache(kind, 8, 128, elements=576),) * 32)
    layers = tuple(replace(layer, sequence_bytes=1000) for layer in plain.layers)
    more = work(replace(plain, layers=layers), 2).cached(500) - work(plain, 2).cached(500)
    assert more == pytest.approx(2 * 32 * 1000 / divided)
