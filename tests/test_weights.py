"""Weights by part: bytes of quantized matrices, sums of files, headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.errors import ModelError
from multigpu.model import stored_format as stored
from multigpu.model.tensor_headers import StoredTensor, by_part, read_safetensors
from tests.machines import MIB, dense, hf
from tests.public_models import PUBLIC


@pytest.mark.parametrize(
    ("found", "bits"),
    [
        (stored.awq(4, 128), 4 + 16 / 128 + 4 / 128),
        (stored.integers(4, 32, zeros=False, activations=False), 4 + 16 / 32),
        (stored.fp8(128), 8 + 32 / 128**2),
        (stored.NVFP4, 4.5),
        (stored.MXFP4, 4.25),
    ],
)
def test_scales_and_zeros_are_counted(found: stored.Stored, bits: float) -> None:
    assert found.bytes(4096, 4096) * 8 / 4096**2 == pytest.approx(bits, rel=0.001)


def test_experts_and_what_every_rank_keeps_are_parts_of_their_block() -> None:
    model = hf(PUBLIC["DeepSeek-V2-Lite"].config)
    assert model.experts_mib[0] == 0  # the first block is dense
    assert model.experts_mib[1] * MIB == 3 * 2048 * 1408 * 64 * 2
    latent = (512 + 64) * 2048 * 2 / MIB
    assert latent < model.replicated_mib[0] < latent + 0.1


def test_a_draft_that_the_files_do_not_hold_is_not_counted() -> None:
    config = PUBLIC["GLM-4.5-Air"].config
    shapes = hf(config)
    main = int(shapes.weights_mib * MIB)
    without = hf(config, weights_bytes=main)
    with_draft = hf(config, weights_bytes=main + int(shapes.draft_mib * MIB))
    assert without.draft_mib == 0 and with_draft.draft_mib == shapes.draft_mib > 0
    assert without.weights_mib == pytest.approx(with_draft.weights_mib, rel=1e-6)


def test_a_tower_of_unknown_shape_is_what_the_files_leave() -> None:
    config = {"model_type": "seer", "text_config": dense(), "vision_config": {"model_type": "eye"}}
    shapes = hf(config)
    assert shapes.lower_bound == ("the vision tower eye: its layout is not known",)
    assert not shapes.weights_exact
    model = hf(config, weights_bytes=int((shapes.weights_mib + 1200) * MIB))
    assert model.vision_mib == pytest.approx(1200) and model.lower_bound == ()
    assert model.layers_mib == shapes.layers_mib


def test_gpt_oss_keeps_attention_in_sixteen_bits() -> None:
    """13.76 GB on disk; vLLM pads the experts to 13.72 GiB."""
    config = {
        **PUBLIC["gpt-oss-120b"].config,
        "num_hidden_layers": 24,
        "num_local_experts": 32,
        "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
    }
    assert hf(config).weights_mib * MIB / 1e9 == pytest.approx(13.76, rel=0.01)


@given(st.binary(max_size=200), st.integers(0, 300))
def test_no_header_raises_anything_but_a_model_error(data: bytes, length: int) -> None:
    for head in (data, length.to_bytes(8, "little") + data):
        try:
            assert read_safetensors(head) is not None
        except ModelError:
            continue


names = st.sampled_from(
    ["model.layers.0.mlp.up_proj.weight", "lm_head.weight", "visual.patch.weight", "x", ""]
)


@given(st.lists(st.builds(StoredTensor, names, st.integers(0, 2**40)), max_size=9))
def test_parts_of_listed_tensors_add_up(tensors: list[StoredTensor]) -> None:
    try:
        found = by_part(tensors, 1, tied=False)
    except ModelError:
        assert not any(t.bytes for t in tensors if "layers.0" in t.name)
        return
    total = found.total_mib + found.draft_mib
    assert total == pytest.approx(sum(t.bytes for t in tensors) / MIB)
