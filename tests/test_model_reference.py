"""What `model` names on the hub and on the web, and which files of a repository are the model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.errors import ModelError
from multigpu.hub_files import check_code, check_formats, pick_gguf, read_by_runtimes
from multigpu.model_reference import (
    HubReference,
    check_address,
    hub_reference,
    shard_addresses,
)

GGUFS = (
    "README.md",
    "Qwen3-4B-Q4_K_M.gguf",
    "Qwen3-4B-IQ4_XS.gguf",
    "Qwen3-4B-UD-Q4_K_XL.gguf",
    "BF16/Qwen3-4B-BF16-00001-of-00002.gguf",
    "BF16/Qwen3-4B-BF16-00002-of-00002.gguf",
    "mmproj-F16.gguf",
)
HEX = "ab" * 20


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("org/name", HubReference("org/name")),
        ("org/name:Q4_K_M", HubReference("org/name", quantization="Q4_K_M")),
        ("org/name/a.gguf", HubReference("org/name", "a.gguf")),
        ("org/name/BF16/a.gguf", HubReference("org/name", "BF16/a.gguf")),
        ("https://huggingface.co/org/name", HubReference("org/name")),
        ("https://huggingface.co/org/name/tree/v1", HubReference("org/name", revision="v1")),
        (
            f"https://huggingface.co/org/name/resolve/{HEX}/q/a.gguf?download=true",
            HubReference("org/name", "q/a.gguf", revision=HEX),
        ),
        (
            "https://hf.co/org/name/blob/main/a.gguf",
            HubReference("org/name", "a.gguf", None, "main"),
        ),
        ("org/../a.gguf", None),
        ("org/name/../../a.gguf", None),
        ("org/name/notes.txt", None),
        ("name.gguf", None),
        ("org/name.gguf", None),
        ("org/name:", None),
        ("org/name:a/b", None),
        ("https://example.com/org/name/resolve/main/a.gguf", None),
        ("http://huggingface.co/org/name", None),
    ],
)
def test_a_reference_names_a_repository_or_nothing_of_the_hub(
    reference: str, found: HubReference | None
) -> None:
    assert hub_reference(reference) == found


def test_a_mirror_is_the_hub_where_it_is_the_endpoint() -> None:
    mirror = "http://mirror.lan:8080"
    assert hub_reference(f"{mirror}/org/name", mirror) == HubReference("org/name")
    assert hub_reference("http://mirror.lan:9090/org/name", mirror) is None
    assert hub_reference(f"{mirror}/files/a.gguf", mirror) is None


def test_a_page_of_the_hub_without_a_model_is_refused() -> None:
    with pytest.raises(ModelError, match="names no model: give org/name"):
        hub_reference("https://huggingface.co/org/name/discussions/3")


@given(st.text(max_size=60))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        found = hub_reference(text)
    except ModelError:
        return
    assert found is None or ".." not in found.repo_id.split("/")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("https://me:secret@host/a.gguf", "holds a login or a signature"),
        ("https://host/a.gguf?X-Amz-Signature=abc", "holds a login or a signature"),
        ("https://host/a.gguf?token=abc", "holds a login or a signature"),
        ("https://host/a.safetensors", "is no address of a GGUF"),
        ("https:///a.gguf", "is no address of a GGUF"),
    ],
)
def test_an_address_that_plans_must_not_show_is_refused(address: str, said: str) -> None:
    with pytest.raises(ModelError, match=said) as refused:
        check_address(address)
    assert "secret" not in str(refused.value) and "abc" not in str(refused.value)


def test_naming_one_shard_names_all() -> None:
    assert shard_addresses("https://h/m-00001-of-00002.gguf?a=1") == (
        "https://h/m-00001-of-00002.gguf?a=1",
        "https://h/m-00002-of-00002.gguf?a=1",
    )


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (HubReference("o/n", quantization="Q4_K_M"), ("Qwen3-4B-Q4_K_M.gguf",)),
        (HubReference("o/n", quantization="q4_k_m"), ("Qwen3-4B-Q4_K_M.gguf",)),
        (HubReference("o/n", quantization="UD-Q4_K_XL"), ("Qwen3-4B-UD-Q4_K_XL.gguf",)),
        (HubReference("o/n", quantization="BF16"), GGUFS[4:6]),
        (HubReference("o/n", GGUFS[4]), GGUFS[4:6]),
        (HubReference("o/n", "mmproj-F16.gguf"), ("mmproj-F16.gguf",)),
    ],
)
def test_a_quantization_or_a_file_picks_one_gguf_with_all_shards(
    wanted: HubReference, found: tuple[str, ...]
) -> None:
    assert pick_gguf(wanted, GGUFS) == found


@pytest.mark.parametrize(
    ("wanted", "names", "said"),
    [
        (
            HubReference("o/n"),
            GGUFS,
            "o/n holds 4 GGUFs that are meant: name one as o/n/FILE: BF16",
        ),
        (HubReference("o/n", quantization="Q8_0"), GGUFS, "holds no GGUF Q8_0: it holds BF16/"),
        (HubReference("o/n", "x.gguf"), GGUFS, "holds no GGUF x.gguf: it holds"),
        (HubReference("o/n", quantization="Q8_0"), ("config.json",), "holds no GGUF: name a"),
        (HubReference("o/n", quantization="BF16"), GGUFS[:5], "00002.gguf is missing on the hub"),
    ],
)
def test_what_picks_none_or_several_says_what_there_is(
    wanted: HubReference, names: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        pick_gguf(wanted, names)


def test_a_repository_in_transformers_format_is_not_searched_for_ggufs() -> None:
    assert pick_gguf(HubReference("o/n"), ("config.json", "model.safetensors", "a.gguf")) is None
    assert pick_gguf(HubReference("o/n"), ("a.gguf", "mmproj-a.gguf")) == ("a.gguf",)


REPOSITORY = (
    "config.json",
    "consolidated.safetensors",
    "model.safetensors",
    "tokenizer.model",
    "chat_template.jinja",
    "additional_chat_templates/tool.jinja",
    "modeling_x.py",
    "pytorch_model.bin",
    "original/params.json",
    ".gitattributes",
)


def test_what_runtimes_read_is_fetched_and_code_only_when_asked_for() -> None:
    found = set(read_by_runtimes(REPOSITORY, code=False))
    assert found == {
        "config.json",
        "model.safetensors",
        "tokenizer.model",
        "chat_template.jinja",
        "additional_chat_templates/tool.jinja",
    }
    assert set(read_by_runtimes(REPOSITORY, code=True)) - found == {"modeling_x.py"}


def test_weights_in_pickles_only_are_refused() -> None:
    check_formats("o/n", REPOSITORY)
    with pytest.raises(ModelError, match=r"weights are pytorch_model-1\.bin, a pickle"):
        check_formats("o/n", ("config.json", "pytorch_model-1.bin"))


def test_a_model_that_runs_its_own_code_is_refused_unless_asked_for() -> None:
    config = {"model_type": "novel", "auto_map": {"AutoModel": "modeling_novel.Novel"}}
    with pytest.raises(ModelError, match=r"modeling_novel.py.* set trust_remote_code = True"):
        check_code("o/n", config, None)
    with pytest.raises(ModelError):
        check_code("o/n", config, False)
    check_code("o/n", config, True)
    check_code("o/n", {**config, "model_type": "deepseek_v3"}, None)


def test_code_of_another_repository_cannot_be_fetched() -> None:
    config = {"model_type": "novel", "auto_map": {"AutoModel": "other/repo--modeling.Novel"}}
    with pytest.raises(ModelError, match="other/repo"):
        check_code("o/n", config, True)
