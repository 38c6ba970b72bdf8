"""Parameters and caches of public models against what their makers state."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.errors import ModelError
from tests.machines import hf
from tests.public_models import PUBLIC, Public


@pytest.mark.parametrize("public", PUBLIC.values(), ids=PUBLIC)
def test_parameters_are_within_two_percent_of_what_is_stated(public: Public) -> None:
    model = hf(public.config)
    assert model.num_parameters is not None
    assert model.num_parameters / 1e9 == pytest.approx(public.total, rel=0.02)


@pytest.mark.parametrize(
    "public", [p for p in PUBLIC.values() if p.active], ids=[k for k in PUBLIC if PUBLIC[k].active]
)
def test_active_parameters_are_what_is_stated(public: Public) -> None:
    """Makers count the embedding, the output matrix, both or none, and round to whole billions."""
    model = hf(public.config)
    assert model.active_parameters is not None and public.active is not None
    found = model.active_parameters / 1e9
    embedding = model.vocab_size * model.hidden_size / 1e9
    near = min(abs(found + i * embedding - public.active) for i in (-1, 0, 1))
    assert near < max(0.06 * public.active, 0.5)


@pytest.mark.parametrize(
    "public", [p for p in PUBLIC.values() if p.caches], ids=[k for k in PUBLIC if PUBLIC[k].caches]
)
def test_every_layer_caches_as_it_should(public: Public) -> None:
    assert Counter(layer.kind for layer in hf(public.config).layers) == public.caches


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-2, 9)
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["full_attention", "mamba", "M*", "fp8", "awq", "re:(a+)+$", "*", "["]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=5,
)
QUANTIZED = {
    "quant_method": "compressed-tensors",
    "config_groups": {"group_0": {"weights": {"num_bits": 4}, "targets": ["Linear"]}},
    "ignore": ["lm_head"],
    "bits": 4,
    "weight_block_size": [128, 128],
    "dynamic": {},
    "extra_config": {},
    "kv_cache_scheme": None,
}
METHODS = ["awq", "gptq", "fp8", "mxfp4", "modelopt", "quark", "torchao", "bitsandbytes", "inc"]


@given(st.sampled_from(sorted(PUBLIC)), st.data())
def test_a_mutated_config_is_a_model_or_a_model_error(name: str, data: st.DataObject) -> None:
    config = dict(PUBLIC[name].config)
    keys = [*config, "layer_types", "head_dim", "num_experts", "sliding_window", "text_config"]
    for key in data.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=3)):
        config[key] = data.draw(values)
    try:
        hf(config)
    except ModelError:
        return


@given(st.sampled_from(METHODS), st.sampled_from(sorted(QUANTIZED)), values)
def test_a_mutated_quantization_is_a_model_or_a_model_error(
    method: str, key: str, value: object
) -> None:
    described = {**QUANTIZED, "quant_method": method, key: value}
    try:
        model = hf({**PUBLIC["OLMoE-1B-7B"].config, "quantization_config": described})
    except ModelError:
        return
    assert model.weights_mib > 0
