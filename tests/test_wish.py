"""The inventory's services as wishes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multigpu.errors import WishError
from multigpu.plan import Objective, Strategy, Wish
from multigpu.wish import ALIASES, KEYS, wishes


def one(**keys: Any) -> Wish:
    return wishes({"chat": {"model": "org/model", **keys}})[0]


def test_only_the_model_is_required() -> None:
    assert one() == Wish("chat", "org/model")


def test_every_key_is_read_into_its_type() -> None:
    wish = one(
        objective="context",
        strategy="layer_split",
        gpus=[1, 0],
        devices=["RPC0", "RPC1"],
        layers=[3, 2],
        gpu_memory_utilization=1,
        flags={"--ubatch-size": 256, "--no-warmup": None, "--swa-full": True, "--jinja": False},
        env={"NCCL_P2P_DISABLE": 1},
    )
    assert (wish.objective, wish.strategy) == (Objective.CONTEXT, Strategy.LAYER_SPLIT)
    assert (wish.gpus, wish.devices, wish.layers) == ((1, 0), ("RPC0", "RPC1"), (3, 2))
    assert wish.gpu_memory_utilization == 1.0
    assert dict(wish.flags) == {"--ubatch-size": "256", "--no-warmup": None, "--swa-full": None}
    assert dict(wish.env) == {"NCCL_P2P_DISABLE": "1"}


def test_none_counts_as_left_out() -> None:
    assert one(gpus=None, port=None) == Wish("chat", "org/model")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"tensor_paralel_size": 2}, "did you mean 'tensor_parallel_size'"),
        ({"zzz": 1}, "unknown key 'zzz': use one of model"),
        ({"objective": "speed"}, "objective is 'speed': use one of latency, throughput, context"),
        ({"runtime": "tgi"}, "runtime is 'tgi': use one of vllm, llama.cpp, sglang"),
        ({"strategy": "magic"}, "strategy is 'magic'"),
        ({"port": 0}, "port is 0"),
        ({"revision": "a..b"}, "revision is 'a..b': a commit, a tag or a branch"),
        ({"revision": "-x"}, "revision is '-x': a commit, a tag or a branch"),
        ({"sha256": "abc"}, "sha256 is 'abc': 64 hexadecimal digits"),
        ({"sha256": []}, "64 hexadecimal digits"),
        ({"trust_remote_code": "yes"}, "trust_remote_code is 'yes': True or False"),
        ({"port": 70000}, "port is 70000"),
        ({"port": "8000"}, "port is '8000': a whole number"),
        ({"context": 0}, "context is 0: at least 1"),
        ({"concurrency": True}, "concurrency is True"),
        ({"gpus": 0}, "gpus is 0: a list"),
        ({"gpus": [-1]}, "indices begin at 0"),
        ({"layers": [1.5]}, "layers"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization is 1.5"),
        ({"flags": {"-c": "1"}}, "not a long option"),
        ({"flags": {"--a": "x\ny"}}, "one line"),
        ({"env": {"A B": "1"}}, "not a name of an environment variable"),
        ({"env": ["A"]}, "a dict"),
        ({"model": ""}, "model is ''"),
        ({"model": None}, "model is missing"),
    ],
)
def test_what_is_wrong_is_one_line_with_service_and_key(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(WishError) as caught:
        one(**keys)
    assert str(caught.value).startswith("chat: ") and said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["Chat", "a b", "", "-a", "../x", "install-a", "devices", "fetch-a", 7]
)
def test_a_service_name_that_cannot_be_a_unit_name_is_refused(name: Any) -> None:
    with pytest.raises(WishError, match="lower-case"):
        wishes({name: {"model": "m"}})


def test_one_hash_or_one_for_each_shard_is_taken_in_lower_case() -> None:
    (one,) = wishes({"chat": {"model": "m", "sha256": "AB" * 32}})
    (two,) = wishes({"chat": {"model": "m", "sha256": ["ab" * 32, "cd" * 32]}})
    assert (one.sha256, two.sha256) == (("ab" * 32,), ("ab" * 32, "cd" * 32))


def test_services_that_are_not_dicts_are_refused() -> None:
    with pytest.raises(WishError, match="dict"):
        wishes({"chat": "org/model"})  # type: ignore[dict-item]
    with pytest.raises(WishError, match="dict"):
        wishes(["chat"])  # type: ignore[arg-type]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@given(st.sampled_from(KEYS), anything)
def test_any_value_is_a_wish_or_a_wish_error(key: str, value: object) -> None:
    try:
        one(**{key: value})
    except WishError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "keys",
    [
        {"env": {"HF_TOKEN": "hf_abc"}},
        {"env": {"vllm_api_key": "hf_abc"}},
        {"env": {"AWS_SECRET_ACCESS_KEY": "hf_abc"}},
        {"env": {"DB_PASSWORD": "hf_abc"}},
        {"flags": {"--api-key": "hf_abc"}},
        {"flags": {"--ssl-keyfile-password": "hf_abc"}},
        {"env": {"https_proxy": "http://me:hf_abc@proxy:3128"}},
        {"env": {"EXTRA": "hf_abcdefghijklmnopqrstuvwxyz"}},
        {"flags": {"--otlp-traces-endpoint": "grpc://:hf_abc@collector"}},
    ],
)
def test_a_secret_is_refused_with_a_place_for_it_and_not_repeated(keys: dict[str, Any]) -> None:
    with pytest.raises(WishError, match=r"api_key_file.*EnvironmentFile=") as caught:
        one(**keys)
    said = str(caught.value)
    assert "hf_abc" not in said
    assert next(iter(next(iter(keys.values())))) in said


def test_an_error_about_a_mapping_does_not_repeat_a_secret_in_it() -> None:
    with pytest.raises(WishError, match="A B") as caught:
        one(env={"A B": 1, "HF_TOKEN": "hunter2", "PROXY": "http://me:hunter2@proxy"})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(WishError) as caught:
        one(model="https://me:hunter2@host/x.gguf")
    assert "hunter2" not in str(caught.value)


def test_a_key_file_and_a_flag_of_the_same_meaning_exclude_each_other() -> None:
    with pytest.raises(WishError, match="leave one out"):
        one(api_key_file="key", flags={"--api-key-file": "/x"})
    assert one(api_key_file="key").api_key_file == "key"


def test_names_that_only_look_like_secrets_are_passed_on() -> None:
    env = {
        "NO_PROXY": "http://a:80/b@c",
        "HF_TOKEN_PATH": "/x",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_MAX_TOKENS": "1",
    }
    flags = {"--api-key-file": "/x", "--max-num-batched-tokens": "8"}
    wish = one(env=env, flags=flags)
    assert (dict(wish.env), dict(wish.flags)) == (env, flags)


def test_every_key_has_a_row_in_the_inventory_page() -> None:
    page = (Path(__file__).parents[1] / "docs" / "inventory.md").read_text()
    table = page.split("Host data besides")[0]
    rows = [
        re.findall(r"`(\w+)`", line.split("|")[1]) for line in table.splitlines() if "|" in line
    ]
    assert sorted(key for row in rows for key in row) == sorted((*KEYS, *ALIASES))
