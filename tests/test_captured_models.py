"""Configurations of released models, read in place: sizes against what their names state.

A name states whole billions, of the language model alone or with its towers, and the active
parameters with or without the embedding: the nearest counts, within 6 % or half of the last digit.
Skipped where the folder does not lie beside the checkout.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from multigpu.model import from_hf_config
from multigpu.plan import ModelSpec, Source
from tests.machines import SHARED

CONFIGS = sorted(
    path for path in SHARED.glob("models/*_config.json") if "hf_quant" not in path.name
)
pytestmark = pytest.mark.skipif(not CONFIGS, reason="no captured models beside the checkout")

# Billions that the makers state where the name says nothing: model cards and papers.
STATED = {
    "deepseek-ai--DeepSeek-V3": (671.0, 37.0),
    "deepseek-ai--DeepSeek-R1": (671.0, 37.0),
    "deepseek-ai--DeepSeek-V4-Pro": (1600.0, 49.0),
    "sgl-project--DeepSeek-V4-Flash-FP8": (284.0, 13.0),
    "moonshotai--Kimi-K2.5": (1030.0, 32.0),
    "MiniMaxAI--MiniMax-M2.5": (229.0, 10.0),
    "XiaomiMiMo--MiMo-V2-Flash": (309.0, 15.0),
    "stepfun-ai--Step-3.7-Flash-FP8": (196.0, 11.0),
    "zai-org--GLM-5": (744.0, 40.0),
    "openai--gpt-oss-20b": (20.9, 3.6),
    "mistralai--Mixtral-8x7B-v0.1": (46.7, 12.9),
    "meta-llama--Llama-4-Maverick-17B-128E-Instruct": (400.0, 17.0),
}


def load(path: Path) -> ModelSpec:
    quant = path.with_name(path.name.replace("_config.json", "_hf_quant_config.json"))
    return from_hf_config(
        json.loads(path.read_text(encoding="utf-8")),
        name=path.stem,
        source=Source.HUB,
        path=path.stem,
        weights_bytes=None,
        quant_config=json.loads(quant.read_text(encoding="utf-8")) if quant.exists() else None,
    )


def near(stated: float, digits: str, *found: float) -> bool:
    """Within 6 %, or half of the last digit of the name."""
    half = 0.5 * 10.0 ** -len(digits.partition(".")[2])
    return bool(min(abs(value - stated) for value in found) <= max(0.06 * stated, half))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_parameters_are_what_the_name_states(path: Path) -> None:
    model, name = load(path), path.name.removesuffix("_config.json")
    total = re.search(r"(?<!A)-(\d+(?:\.\d+)?)B", name)
    active = re.search(r"-A(\d+(?:\.\d+)?)B", name)
    assert model.num_parameters is not None and model.active_parameters is not None
    billions = model.num_parameters / 1e9
    towers = model.vision_mib * 1024**2 / 2e9
    embedding = model.vocab_size * model.hidden_size / 1e9
    if total is not None and name not in STATED:
        assert near(float(total[1]), total[1], billions, billions - towers)
    if active is not None:
        found = model.active_parameters / 1e9
        assert near(float(active[1]), active[1], found, found + embedding)


@pytest.mark.parametrize("name", STATED)
def test_parameters_are_what_the_makers_state(name: str) -> None:
    path = SHARED / "models" / f"{name}_config.json"
    if not path.exists():
        pytest.skip("not among the captured models")
    model, (total, active) = load(path), STATED[name]
    assert model.num_parameters is not None and model.active_parameters is not None
    embedding = model.vocab_size * model.hidden_size / 1e9
    found = model.active_parameters / 1e9
    assert model.num_parameters / 1e9 == pytest.approx(total, rel=0.02)
    assert min(abs(found - active), abs(found + embedding - active)) < 0.06 * active


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_parts_of_a_block_are_within_it(path: Path) -> None:
    model = load(path)
    experts = model.experts_mib or (0.0,) * len(model.layers_mib)
    for whole, routed, kept in zip(model.layers_mib, experts, model.replicated_mib, strict=True):
        assert 0 <= routed + kept <= whole * (1 + 1e-9)
    assert len(model.layers) == model.num_hidden_layers


@pytest.mark.parametrize(
    ("name", "caches"),
    [
        ("Qwen--Qwen3.5-27B", {"state": 48, "full": 16}),
        ("deepseek-ai--DeepSeek-V4-Pro", {"mla": 61}),
        ("XiaomiMiMo--MiMo-V2-Flash", {"sliding": 39, "full": 9}),
        ("stepfun-ai--Step-3.7-Flash-FP8", {"sliding": 33, "full": 12}),
        ("nvidia--NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16", {"state": 48, "none": 48, "full": 12}),
        ("meta-llama--Llama-4-Maverick-17B-128E-Instruct", {"sliding": 36, "full": 12}),
    ],
)
def test_layers_are_counted_by_kind(name: str, caches: dict[str, int]) -> None:
    path = SHARED / "models" / f"{name}_config.json"
    assert Counter(layer.kind for layer in load(path).layers) == caches


def test_a_mixed_checkpoint_stores_each_module_its_own_way() -> None:
    """Qwen3.6-27B of NVIDIA: FP8 in linear attention, NVFP4 in the feed-forward part."""
    model = load(SHARED / "models" / "nvidia--Qwen3.6-27B-NVFP4_config.json")
    assert (model.quantization, model.kv_cache_dtype) == ("nvfp4", "fp8")
    assert 0.56 < model.layers_mib[0] * 1024**2 / 408e6 < 1.0


def test_compressed_attention_keeps_bytes_per_token_and_per_sequence() -> None:
    """584 bytes per entry; a fourth of them and of the indexer's 132 per token where it is 4."""
    path = SHARED / "models" / "deepseek-ai--DeepSeek-V4-Pro_config.json"
    ratios = json.loads(path.read_text(encoding="utf-8"))["compress_ratios"]
    for layer, ratio in zip(load(path).layers, ratios, strict=False):
        assert layer.elements == {4: 146 + 33, 128: 5, 0: 0}[ratio]
        assert layer.sequence_bytes >= 128 * 584 and layer.element_bytes == 1
