"""Configurations of published models and one GGUF metadata block: every clause of the index."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multigpu.parse.engines.gguf_metadata import read_gguf_metadata
from multigpu.parse.engines.model_files import read_hf_config


@dataclass(frozen=True)
class Row:
    """What the index says: architecture, layers, hidden, heads, kv_heads, head_dim, vocab, max."""

    architecture: str
    sizes: tuple[int, int, int, int, int, int, int]
    derived: bool = False
    more: dict[str, Any] = field(default_factory=dict)
    full_attention: int | None = None
    mamba: int = 0
    total_layers: int | None = None
    mla: bool = False
    nested: bool = False
    tied: bool = False


SIZES = (
    *("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads"),
    *("head_dim", "vocab_size", "max_position_embeddings"),
)


def experts(count: int, per_token: int | None = None, size: int | None = None) -> dict[str, Any]:
    found = {"num_experts": count, "num_experts_per_tok": per_token, "moe_intermediate_size": size}
    return {name: value for name, value in found.items() if value is not None}


MLA = {"kv_lora_rank": 512, "qk_rope_head_dim": 64}
LLAMA, QWEN3, QWEN3_MOE = "LlamaForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM"
ROWS = {
    "meta-llama--Meta-Llama-3.1-8B": Row(
        LLAMA, (32, 4096, 32, 8, 128, 128256, 131072), derived=True
    ),
    "meta-llama--Meta-Llama-3.1-70B": Row(
        LLAMA, (80, 8192, 64, 8, 128, 128256, 131072), derived=True
    ),
    "meta-llama--Meta-Llama-3.1-405B": Row(
        LLAMA, (126, 16384, 128, 8, 128, 128256, 131072), derived=True
    ),
    "Qwen--Qwen3-8B": Row(QWEN3, (36, 4096, 32, 8, 128, 151936, 40960)),
    "Qwen--Qwen3-32B": Row(QWEN3, (64, 5120, 64, 8, 128, 151936, 40960)),
    "Qwen--Qwen3-32B-FP8": Row(QWEN3, (64, 5120, 64, 8, 128, 151936, 40960)),
    "Qwen--Qwen3-30B-A3B": Row(
        QWEN3_MOE, (48, 2048, 32, 4, 128, 151936, 40960), more=experts(128, 8, 768)
    ),
    "Qwen--Qwen3-235B-A22B": Row(
        QWEN3_MOE, (94, 4096, 64, 4, 128, 151936, 40960), more=experts(128, 8, 1536)
    ),
    "mistralai--Mixtral-8x7B-v0.1": Row(
        "MixtralForCausalLM",
        (32, 4096, 32, 8, 128, 32000, 32768),
        derived=True,
        more=experts(8, 2),
    ),
    "deepseek-ai--DeepSeek-V3": Row(
        "DeepseekV3ForCausalLM",
        (61, 7168, 128, 128, 56, 129280, 163840),
        derived=True,
        mla=True,
        more={**experts(256, 8, 2048), **MLA},
    ),
    "zai-org--GLM-5": Row(
        "GlmMoeDsaForCausalLM",
        (78, 6144, 64, 64, 64, 154880, 202752),
        mla=True,
        more={**experts(256, 8, 2048), **MLA},
    ),
    "openai--gpt-oss-20b": Row(
        "GptOssForCausalLM",
        (24, 2880, 64, 8, 64, 201088, 131072),
        more={**experts(32, 4), "sliding_window": 128},
        full_attention=12,
        total_layers=24,
    ),
    "nvidia--Nemotron-H-56B-Base-8K": Row(
        "NemotronHForCausalLM",
        (118, 8192, 64, 8, 128, 131072, 8192),
        derived=True,
        mamba=54,
        full_attention=10,
        total_layers=118,
    ),
    "Qwen--Qwen3.5-27B": Row(
        "Qwen3_5ForConditionalGeneration",
        (64, 5120, 24, 4, 256, 248320, 262144),
        full_attention=16,
        total_layers=64,
        nested=True,
    ),
    "google--gemma-4-26B-A4B": Row(
        "Gemma4ForConditionalGeneration",
        (30, 2816, 16, 8, 256, 262144, 262144),
        more={**experts(128, None, 704), "sliding_window": 1024},
        full_attention=5,
        total_layers=30,
        nested=True,
        tied=True,
    ),
    "MiniMaxAI--MiniMax-M2.5": Row(
        "MiniMaxM2ForCausalLM", (62, 3072, 48, 8, 128, 200064, 196608), more=experts(256, 8)
    ),
    "XiaomiMiMo--MiMo-V2-Flash": Row(
        "MiMoV2FlashForCausalLM",
        (48, 4096, 64, 4, 192, 152576, 262144),
        more={**experts(256, 8, 2048), "sliding_window": 128},
    ),
}
# The sparse-attention indexer, which the planner counts beside the 512 + 64: 128 bytes of key and
# 4 of scale per token, in elements of two bytes.
INDEXER = {"zai-org--GLM-5": 66}
# Parameters that llama.cpp states (billions), and GiB that vLLM's weights take with how far the
# shapes alone may be from it: vLLM pads MXFP4 weights.
PARAMS_B = {
    "Qwen--Qwen3-32B": 32.762,
    "Qwen--Qwen3-30B-A3B": 30.532,
    "deepseek-ai--DeepSeek-V3": 671.026,
    "Qwen--Qwen3-235B-A22B": 235.094,
}
WEIGHTS_GIB = {"Qwen--Qwen3-30B-A3B": (56.93, 0.002), "openai--gpt-oss-20b": (13.7193, 0.08)}


def config(name: str) -> Callable[[Path], None]:
    row = ROWS[name]

    def check(path: Path) -> None:
        reading = read_hf_config(path.read_text(encoding="utf-8"))
        found = reading.value
        assert reading.unread == () and reading.lines > 10
        assert found.architecture == row.architecture
        assert tuple(getattr(found, size) for size in SIZES) == row.sizes
        assert found.head_dim_derived is row.derived
        assert found.tie_word_embeddings is row.tied
        assert {key: getattr(found, key) for key in row.more} == row.more
        assert found.nested is row.nested
        check_layers(found)
        check_spec(found)

    def check_layers(found: Any) -> None:
        assert row.mla == (found.kv_lora_rank is not None)
        if row.full_attention is not None:
            assert found.layers_of("full_attention") == row.full_attention
            assert sum(count for _, count in found.layer_types) == row.total_layers
        assert found.layers_of("mamba") == row.mamba

    def check_spec(found: Any) -> None:
        assert found.refused is None and found.spec is not None
        caches = found.spec.layers
        if row.mla:
            expected = found.kv_lora_rank + found.qk_rope_head_dim + INDEXER.get(name, 0)
            assert {(cache.kind, cache.elements) for cache in caches} == {("mla", expected)}
        if row.full_attention is not None:
            assert sum(cache.kind == "full" for cache in caches) == row.full_attention
        assert sum(cache.kind == "state" for cache in caches if row.mamba) == row.mamba
        assert found.spec.tie_word_embeddings is row.tied
        gib = found.spec.weights_mib / 1024
        if name in WEIGHTS_GIB:
            stated, tolerance = WEIGHTS_GIB[name]
            assert abs(gib / stated - 1) < tolerance
        if name in PARAMS_B:
            bytes_each = {None: 2, "fp8": 1}[found.quant_method]
            assert abs(gib * 1024**3 / bytes_each / 1e9 / PARAMS_B[name] - 1) < 0.01

    return check


def gemma3(path: Path) -> None:
    found = read_gguf_metadata(path.read_text(encoding="utf-8")).value
    assert (found.n_layer, found.n_head_kv, found.n_embd_k_gqa) == (62, 16, 2048)
    assert found.params == 27_009_000_000
    assert found.size_mib is not None and found.size_mib / 1024 == 15.404
    assert (found.architecture, found.type, found.ftype) == ("gemma3", "27B", "Q4_K - Medium")


TRUTH: dict[str, Callable[[Path], None]] = {
    **{f"i_model_config/{name}_config.json": config(name) for name in ROWS},
    "i_model_config/gguf_meta_gemma3_27b.txt": gemma3,
}
