"""Ignore lists: names, prefixes, shell patterns and regular expressions."""

from __future__ import annotations

import pytest

from multigpu.errors import ModelError
from multigpu.model.module_names import Names


@pytest.mark.parametrize(
    ("pattern", "layer", "module"),
    [
        ("lm_head", None, "lm_head"),
        ("model.layers.3.self_attn", 3, "self_attn.q_proj"),
        ("model.language_model.layers.3.self_attn*", 3, "self_attn.q_proj"),
        ("backbone.layers.4.mixer.in_proj", 4, "mixer.in_proj"),
        ("model.layers.0*", 0, "mlp.up_proj"),
        ("self_attn", 7, "self_attn.o_proj"),
        ("*.mlp.shared_expert.*", 7, "mlp.shared_expert.up_proj"),
        (r"re:.*mlp\.(gate|up)_proj.*", 7, "mlp.gate_proj"),
        ("model.layers.*.self_attn", 7, "self_attn.q_proj"),
    ],
)
def test_a_pattern_names_its_modules(pattern: str, layer: int | None, module: str) -> None:
    assert Names([pattern]).match(layer, module)


@pytest.mark.parametrize(
    ("pattern", "layer", "module"),
    [
        ("gate", 3, "mlp.experts.0.gate_proj"),
        ("model.layers.1.*", 10, "self_attn.q_proj"),
        ("model.layers.10*", 1, "self_attn.q_proj"),
        ("mtp.layers.0*", 0, "self_attn.q_proj"),
        ("visual.blocks.0.attn", 0, "attn.qkv"),
        (r"re:.*mlp\.(gate|up)_proj.*", 7, "mlp.experts.0.gate_proj"),
        ("lm_head", 3, "self_attn.q_proj"),
    ],
)
def test_a_pattern_names_nothing_else(pattern: str, layer: int, module: str) -> None:
    assert not Names([pattern]).match(layer, module)


@pytest.mark.parametrize("pattern", ["re:(a+)+$", "re:(", "re:" + "a" * 1000])
def test_an_expression_that_cannot_be_used_is_refused(pattern: str) -> None:
    with pytest.raises(ModelError, match="quantization_config"):
        Names([pattern])
