"""Model facts from config.json and GGUF headers."""

from __future__ import annotations

import json
import math
import pathlib
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.errors import ModelError
from multigpu.model import from_gguf, from_hf_config
from multigpu.plan import LayerCache, ModelSpec, Source
from tests.machines import MIB, SHARED, config_of, dense, gguf, gguf_fields, gguf_tensors, hf

captured = pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="no captured models here")


def kinds(model: ModelSpec) -> Counter[str]:
    return Counter(layer.kind for layer in model.layers)


def configs() -> list[pathlib.Path]:
    found = [
        *SHARED.glob("models/*_config.json"),
        *SHARED.glob("rigs/i_model_config/*_config.json"),
    ]
    return sorted(path for path in found if "hf_quant_config" not in path.name)


@pytest.mark.parametrize("path", configs(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_captured_config_is_a_model_or_a_named_refusal(path: pathlib.Path) -> None:
    quant = path.with_name(path.name.replace("_config.json", "_hf_quant_config.json"))
    quant_config = json.loads(quant.read_text()) if quant.exists() else None
    try:
        model = from_hf_config(
            json.loads(path.read_text()),
            name=path.stem,
            source=Source.HUB,
            path=path.stem,
            weights_bytes=None,
            quant_config=quant_config,
        )
    except ModelError as error:
        pytest.fail(str(error))
    assert len(model.layers) == len(model.layers_mib) == model.num_hidden_layers
    assert model.weights_mib > 0 and min(model.layers_mib) > 0


@captured
@pytest.mark.parametrize(
    ("name", "gib"),
    [
        ("Qwen--Qwen3-30B-A3B", 56.93),  # vLLM: Model loading took
        ("meta-llama--Meta-Llama-3.1-8B", 14.99),
        ("meta-llama--Meta-Llama-3.1-70B", 131.4),  # 70.55 B parameters
        ("deepseek-ai--DeepSeek-V3", 626.0),  # 671 B parameters, 1 byte each but the embeddings
    ],
)
def test_estimated_weights_are_within_one_percent_of_what_is_known(name: str, gib: float) -> None:
    assert hf(config_of(name)).weights_mib / 1024 == pytest.approx(gib, rel=0.01)


@captured
def test_layers_of_a_hybrid_model_are_counted_by_kind() -> None:
    assert kinds(hf(config_of("Qwen--Qwen3.5-27B"))) == {"state": 48, "full": 16}
    assert kinds(hf(config_of("nvidia--Nemotron-H-56B-Base-8K")))["full"] == 10
    assert kinds(hf(config_of("openai--gpt-oss-20b"))) == {"sliding": 12, "full": 12}


@captured
def test_a_gated_delta_net_keeps_three_mib_per_layer_and_sequence() -> None:
    state = next(x for x in hf(config_of("Qwen--Qwen3.5-27B")).layers if x.kind == "state")
    assert state.element_bytes == 4
    assert state.elements * 4 / MIB == pytest.approx(3.0, rel=0.05)


@captured
def test_mla_ignores_the_number_of_key_value_heads() -> None:
    model = hf(config_of("deepseek-ai--DeepSeek-V3"))
    assert model.layers[0] == LayerCache("mla", elements=576)


@captured
def test_gemma_changes_heads_and_width_on_full_layers() -> None:
    layers = hf(config_of("google--gemma-4-26B-A4B")).layers
    assert layers[0] == LayerCache("sliding", 8, 256, 1024)
    assert layers[5] == LayerCache("full", 2, 512)


def test_head_dim_is_hidden_over_heads_only_when_the_key_is_absent() -> None:
    assert hf().head_dim == 128
    assert hf(dense(head_dim=64)).head_dim == 64


def test_text_config_is_read_when_the_model_is_nested() -> None:
    assert hf({"model_type": "vision", "text_config": dense()}).num_hidden_layers == 32


def test_known_file_sizes_replace_the_estimate() -> None:
    assert hf(weights_bytes=20_000 * MIB).weights_mib == pytest.approx(20_000)


def test_tied_embeddings_have_no_output_weights() -> None:
    model = hf(dense(tie_word_embeddings=True))
    assert model.output_mib == 0 and model.embedding_mib > 1000


@pytest.mark.parametrize(
    ("config", "scheme", "group"),
    [
        ({"quant_method": "awq", "group_size": 128}, "awq", 128),
        ({"quant_method": "gptq", "group_size": 64, "bits": 4}, "gptq", 64),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", 128),
        ({"quant_method": "fp8"}, "fp8", None),
        ({"quant_method": "torchao", "quant_type": "int8_weight_only"}, "w8a16", None),
        ({"quant_method": "auto-round", "bits": 4, "group_size": 128}, "gptq", 128),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4", 16),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes", None),
    ],
)
def test_quantization_has_one_word_and_its_group(
    config: dict[str, Any], scheme: str, group: int | None
) -> None:
    model = hf(dense(quantization_config=config))
    assert (model.quantization, model.group_size) == (scheme, group)
    assert model.weights_mib < hf().weights_mib


def test_compressed_tensors_are_named_by_bits_and_activations() -> None:
    def scheme(**weights: object) -> str | None:
        groups = {"group_0": {"weights": weights, "input_activations": None}}
        q = {"quant_method": "compressed-tensors", "config_groups": groups}
        return hf(dense(quantization_config=q)).quantization

    assert scheme(num_bits=4, type="int", group_size=32) == "w4a16"
    assert scheme(num_bits=8, type="float") == "fp8"
    assert scheme(num_bits=8, type="int") == "w8a16"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"hidden_size": "big"}, "hidden_size"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"num_attention_heads": None}, "num_attention_heads"),
        ({"layer_types": ["wavelet"] * 32}, "wavelet"),
        ({"layer_types": ["full_attention"] * 3}, "3 layer types for 32"),
        ({"model_type": "wavelets"}, "wavelets.* is not known"),
        ({"model_type": "whisper"}, "encoder-decoder"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "generates no text"),
        ({"compress_ratios": [4], "model_type": "deepseek_v4", "head_dim": 512}, "qk_rope"),
        ({"quantization_config": {"quant_method": "quark"}}, "quark"),
        ({"hybrid_override_pattern": "M?"}, "?"),
    ],
)
def test_a_config_that_cannot_be_planned_says_why(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said.replace("?", r"\?")):
        hf(dense(**changes))


def test_weight_files_smaller_than_the_embeddings_are_a_cut_download() -> None:
    with pytest.raises(ModelError, match="cut"):
        hf(weights_bytes=5 * MIB)


values = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 9), st.text(max_size=3), st.lists(st.integers(0, 1))
)


@given(st.sampled_from(sorted(dense())), values)
def test_a_damaged_config_is_a_model_or_a_model_error(key: str, value: object) -> None:
    try:
        model = hf(dense(**{key: value}))
    except ModelError:
        return
    assert math.isfinite(model.weights_mib)


def test_a_gguf_gives_its_blocks_and_its_output_layer() -> None:
    model = gguf(blocks=32, block_mib=128)
    assert model.layers_mib == (128.0,) * 32
    assert (model.embedding_mib, model.output_mib) == (300.0, 400.0)
    assert model.layers[0] == LayerCache("full", 8, 128)
    assert not model.tie_word_embeddings


def test_a_gguf_without_output_weights_is_tied() -> None:
    tensors = [t for t in gguf_tensors() if t[0] != "output.weight"]
    model = from_gguf(gguf_fields(), tensors, name="x", source=Source.HOST, path="/x", size_bytes=1)
    assert model.tie_word_embeddings and model.output_mib == 0


def test_a_gguf_of_gemma_slides_on_five_of_six_blocks() -> None:
    fields = {k.replace("llama.", "gemma3."): v for k, v in gguf_fields(12).items()}
    fields |= {"general.architecture": "gemma3", "gemma3.attention.sliding_window": 1024}
    model = from_gguf(
        fields, gguf_tensors(12), name="x", source=Source.HOST, path="/x", size_bytes=1
    )
    assert kinds(model) == {"sliding": 10, "full": 2}
    assert model.layers[5].kind == model.layers[11].kind == "full"


def test_recurrent_blocks_of_a_gguf_are_told_by_their_tensors() -> None:
    tensors = [(name.replace("0.attn_q", "0.ssm_in"), n) for name, n in gguf_tensors(2)]
    fields = gguf_fields(2) | {
        "llama.ssm.inner_size": 64,
        "llama.ssm.state_size": 16,
        "llama.ssm.conv_kernel": 4,
    }
    model = from_gguf(fields, tensors, name="x", source=Source.HOST, path="/x", size_bytes=1)
    assert model.layers[0] == LayerCache("state", elements=16 * 64 + 3 * 64, element_bytes=4)
    assert model.layers[1].kind == "full"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"general.architecture": None}, "general.architecture"),
        ({"general.architecture": "deepseek4"}, "compressed"),
        ({"llama.block_count": None}, "block_count"),
        ({"llama.block_count": 2}, "outside of 2 blocks"),
        ({"llama.embedding_length": "x"}, "embedding_length"),
        ({"llama.attention.head_count": None}, "head_count"),
        ({"llama.vocab_size": None}, "vocab_size"),
        ({"llama.attention.head_count_kv": -8}, "head_count_kv is -8"),
        ({"llama.attention.head_count_kv": 2**63}, "head_count_kv"),
        ({"llama.attention.head_count_kv": ["a"] * 4}, "one a block"),
        ({"llama.attention.sliding_window": -1}, "sliding_window is -1"),
    ],
)
def test_a_gguf_that_cannot_be_planned_says_why(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        gguf(**changes)


def test_a_tensor_whose_number_is_no_plain_number_is_of_no_block() -> None:
    tensors = [*gguf_tensors(), ("blk.\N{SUPERSCRIPT TWO}.attn_k.weight", 1)]
    found = from_gguf(gguf_fields(), tensors, name="x", source=Source.HOST, path="/x", size_bytes=1)
    assert found.num_hidden_layers == gguf().num_hidden_layers


def test_a_gguf_without_blocks_is_cut() -> None:
    with pytest.raises(ModelError, match="shard"):
        from_gguf(gguf_fields(), [], name="x", source=Source.HOST, path="/x", size_bytes=1)
