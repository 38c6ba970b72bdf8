"""config.json and GGUF metadata as text: what the file says, cut files, hostile values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.parse.engines.gguf_metadata import read_gguf_metadata
from multigpu.parse.engines.model_files import KINDS, read_hf_config
from multigpu.parse.kinds import guess
from tests.rigs.engine_logs import config_json, print_meta

HF_CONFIG, GGUF = KINDS
sizes = st.fixed_dictionaries(
    {
        "num_hidden_layers": st.integers(1, 200),
        "hidden_size": st.sampled_from([1024, 4096, 7168]),
        "num_attention_heads": st.sampled_from([8, 32, 64]),
        "vocab_size": st.integers(1, 300_000),
        "intermediate_size": st.integers(1, 30_000),
        "max_position_embeddings": st.integers(1, 10**6),
    },
    optional={
        "num_key_value_heads": st.sampled_from([1, 4, 8]),
        "head_dim": st.sampled_from([64, 128, 256]),
        "tie_word_embeddings": st.booleans(),
        "sliding_window": st.none() | st.integers(1, 4096),
    },
)


@given(sizes, st.booleans(), st.sampled_from(["dtype", "torch_dtype"]))
def test_what_the_file_says_is_read_back(said: dict[str, Any], nested: bool, spelling: str) -> None:
    reading = read_hf_config(config_json(said, nested, spelling))
    found = reading.value
    assert reading.unread == ()
    derived = said["hidden_size"] // said["num_attention_heads"]
    assert found.head_dim == said.get("head_dim", derived)
    assert found.head_dim_derived is ("head_dim" not in said)
    for key in sizes_only(said):
        assert getattr(found, key) == said[key]
    assert found.num_key_value_heads == said.get("num_key_value_heads")
    assert found.tie_word_embeddings is said.get("tie_word_embeddings")
    assert (found.nested, found.dtype) == (nested, "bfloat16")
    assert found.architecture == "LlamaForCausalLM"
    assert found.spec is not None and found.refused is None
    assert found.spec.num_hidden_layers == said["num_hidden_layers"]


def sizes_only(said: dict[str, Any]) -> list[str]:
    return [key for key in said if key not in ("head_dim", "tie_word_embeddings")]


def test_layers_are_counted_by_type() -> None:
    types = ["linear_attention", "linear_attention", "full_attention"]
    found = read_hf_config(json.dumps({"model_type": "m", "layer_types": types})).value
    assert found.layer_types == (("linear_attention", 2), ("full_attention", 1))
    assert (found.layers_of("full_attention"), found.layers_of("sliding_attention")) == (1, 0)


def test_a_pattern_of_letters_is_counted_by_type() -> None:
    found = read_hf_config(json.dumps({"hybrid_override_pattern": "M-M-*-"})).value
    assert dict(found.layer_types) == {"mamba": 2, "mlp": 3, "full_attention": 1}


def test_a_model_that_is_refused_gives_the_reason_and_its_sizes() -> None:
    found = read_hf_config('{"architectures": ["X"], "num_hidden_layers": 4}').value
    assert found.spec is None and found.num_hidden_layers == 4
    assert found.refused is not None and "needed" in found.refused


def test_a_file_that_was_cut_keeps_what_came_before() -> None:
    text = config_json({"hidden_size": 4096, "vocab_size": 32000}, False, "dtype")
    cut = text[: text.index('"vocab_size"') + 14]
    reading = read_hf_config(cut)
    assert (reading.value.hidden_size, reading.value.vocab_size) == (4096, None)
    assert [line.text.strip() for line in reading.unread] == ['"vocab_size":']


def test_text_that_is_no_object_gives_nothing_and_stays_unread() -> None:
    reading = read_hf_config("not json\n\n[1, 2]")
    assert reading.value.num_hidden_layers is None
    assert (len(reading.unread), reading.lines) == (2, 2)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(sizes, st.data())
def test_no_value_raises(said: dict[str, Any], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from([*said, "layer_types", "quantization_config", "text_config"]))
    read_hf_config(json.dumps({"model_type": "m", **said, key: data.draw(values)}))


@given(st.text(), st.integers(0, 400))
def test_no_text_raises(text: str, at: int) -> None:
    whole = config_json({"hidden_size": 4096, "num_hidden_layers": 2}, True, "dtype")
    for mutated in (text, whole[:at], whole[:at] + text + whole[at:]):
        read_hf_config(mutated)
        read_gguf_metadata(mutated)


@pytest.mark.parametrize("number", ["9" * 5000, "1e999", "1000000000000", "-5", "NaN", '"7"'])
def test_a_number_that_no_model_has_is_a_refusal(number: str) -> None:
    found = read_hf_config(f'{{"model_type": "m", "num_hidden_layers": {number}}}').value
    assert found.num_hidden_layers is None and found.spec is None


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, '{"a": "' + "\\" * 99_999, '{"a": "' + '\\"' * 99_999],
)
def test_deep_and_open_ended_text_is_read_in_no_time(text: str) -> None:
    assert read_hf_config(text).value.spec is None


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("pasted", [False, True])
def test_printed_metadata_is_read_in_old_and_new_words(new: bool, pasted: bool) -> None:
    lines = list(print_meta("qwen3moe", 94, new))
    text = "\n".join(" ".join(line.split()) if pasted else line for line in lines)
    reading = read_gguf_metadata(text)
    found = reading.value
    assert (found.architecture, found.n_layer, found.n_head) == ("qwen3moe", 94, 64)
    # Layers that differ are printed as a list: the largest counts.
    assert (found.n_head_kv, found.n_expert, found.n_ctx_train) == (4, 0, 40960)
    assert found.params == (235_090_000_000 if new else 235_094_000_000)
    assert found.size_mib == 106.83 * 1024 and found.type is None
    assert reading.unread == () and GGUF.recognise(text) > 0


def test_the_keys_of_the_file_stand_in_for_lines_that_are_missing() -> None:
    found = read_gguf_metadata(
        "llama_model_loader: loaded meta data with 3 key-value pairs and 291 tensors from "
        "/m/a b.gguf (version GGUF V3 (latest))\n"
        "llama_model_loader: - kv   0:       general.architecture str              = llama\n"
        "llama_model_loader: - kv   1:          llama.block_count u32              = 32\n"
        "llama_model_loader: - kv   2: llama.attention.head_count_kv arr[i32,3]    = [8, 0, 4]\n"
        "llama_model_loader: - type q4_K:  193 tensors\n"
    ).value
    assert (found.path, found.n_layer, found.n_head_kv) == ("/m/a b.gguf", 32, 8)
    assert found.tensor_types == (("q4_K", 193),) and found.n_head is None


def test_a_config_is_not_metadata_and_metadata_is_no_config() -> None:
    config = config_json({"hidden_size": 4096}, True, "dtype")
    printed = "\n".join(print_meta("llama", 32, True))
    assert HF_CONFIG.recognise(config) > 0 and GGUF.recognise(config) == 0
    assert HF_CONFIG.recognise(printed) == 0 and GGUF.recognise(printed) > 0


def test_rubbish_in_the_middle_hides_only_what_follows() -> None:
    keys = {f"key_{index}": index for index in range(60)}
    text = json.dumps({"hidden_size": 4096, "broken": "HERE", "n_layer": 3, **keys})
    found = read_hf_config(text.replace('"HERE"', '"HE"RE')).value
    assert (found.hidden_size, found.num_hidden_layers) == (4096, None)


def test_a_fragment_without_braces_is_read() -> None:
    fragment = '  "hidden_size": 4096,\n  "num_hidden_layers": 32,\n  "vocab_size": 320'
    reading = read_hf_config(f"$ cat config.json\n{fragment}")
    found = reading.value
    assert HF_CONFIG.recognise(fragment) > 0
    assert (found.hidden_size, found.num_hidden_layers, found.vocab_size) == (4096, 32, None)
    assert [line.line for line in reading.unread] == [1, 4]


def test_layers_left_out_of_quantization_are_not_taken_for_fields_of_nvidia_smi() -> None:
    config = {
        "architectures": ["Qwen3MoeForCausalLM"],
        "hidden_size": 4096,
        "quantization_config": {"modules_to_not_convert": ["lm_head", "model.layers.0.mlp.gate"]},
    }
    known = guess(json.dumps(config, indent=2))
    assert known is not None and known.name == "hf-config"
