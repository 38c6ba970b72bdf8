"""Metadata of published models, one or more of every architecture that is compared.

Keys are those of GGUF without the architecture in front; one that begins with a slash is whole.
Sizes are the models' own, from their config.json on the Hugging Face hub. No tensor's shape stands
here: llama.cpp itself says which tensors an architecture has (`tensors.py`).
"""

from __future__ import annotations

from typing import Any

Metadata = dict[str, Any]


def _base(
    layers: int, width: int, heads: int, kv: int | list[int], ff: Any, vocab: int, **more: Any
) -> Metadata:
    dim = more.pop("dim", None)
    if dim is None:
        dim = width // heads if isinstance(heads, int) else 128
    known = {
        "block_count": layers,
        "embedding_length": width,
        "attention.head_count": heads,
        "attention.head_count_kv": kv,
        "feed_forward_length": ff,
        "vocab_size": vocab,
        "context_length": 131072,
        "attention.key_length": dim,
        "attention.value_length": dim,
        "rope.dimension_count": dim,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "attention.layer_norm_epsilon": 1e-6,
    }
    return known | {key.replace("__", "."): value for key, value in more.items()}


def _moe(experts: int, used: int, size: int, shared: int = 0, **more: Any) -> Metadata:
    known: Metadata = {
        "expert_count": experts,
        "expert_used_count": used,
        "expert_feed_forward_length": size,
    }
    if shared:
        known |= {"expert_shared_feed_forward_length": shared, "expert_shared_count": 1}
    return known | more


def _window(window: int, pattern: Any = None) -> Metadata:
    known: Metadata = {"attention.sliding_window": window}
    return known if pattern is None else known | {"attention.sliding_window_pattern": pattern}


def _ssm(inner: int, state: int, groups: int, rank: int, kernel: int = 4) -> Metadata:
    return {
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.group_count": groups,
        "ssm.time_step_rank": rank,
        "ssm.conv_kernel": kernel,
    }


def _mla(q: int, kv: int, rope: int, nope: int, value: int) -> Metadata:
    return {
        "attention.kv_lora_rank": kv,
        "attention.key_length": kv + rope,
        "attention.value_length": kv,
        "attention.key_length_mla": nope + rope,
        "attention.value_length_mla": value,
        "rope.dimension_count": rope,
        **({"attention.q_lora_rank": q} if q else {}),
    }


def _every(layers: int, period: int, on: Any, off: Any) -> list[Any]:
    """`on` at the last of every `period` layers."""
    return [on if (i + 1) % period == 0 else off for i in range(layers)]


_DEEPSEEK = {
    "expert_weights_scale": 1.0,
    "leading_dense_block_count": 1,
    "expert_gating_func": 2,
    "rope.scaling.yarn_log_multiplier": 0.1,
}
_NEMOTRON = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"
_SECTIONS = {"rope.dimension_sections": [11, 11, 10, 0]}

# name -> (architecture, metadata)
MODELS: dict[str, tuple[str, Metadata]] = {
    "Llama-3.1-8B": ("llama", _base(32, 4096, 32, 8, 14336, 128256)),
    "Llama-3.3-70B": ("llama", _base(80, 8192, 64, 8, 28672, 128256)),
    "Mixtral-8x7B": ("llama", _base(32, 4096, 32, 8, 14336, 32000) | _moe(8, 2, 14336)),
    "Llama-4-Scout": (
        "llama4",
        _base(48, 5120, 40, 8, 16384, 202048)
        | _moe(16, 1, 8192, 8192)
        | {"interleave_moe_layer_step": 1, "attention.chunk_size": 8192},
    ),
    "Qwen2.5-0.5B": ("qwen2", _base(24, 896, 14, 2, 4864, 151936)),
    "Qwen2.5-7B": ("qwen2", _base(28, 3584, 28, 4, 18944, 152064)),
    "Qwen1.5-MoE-A2.7B": (
        "qwen2moe",
        _base(24, 2048, 16, 16, 5632, 151936) | _moe(60, 4, 1408, 5632),
    ),
    "Qwen3-32B": ("qwen3", _base(64, 5120, 64, 8, 25600, 151936, dim=128)),
    "Qwen3-30B-A3B": (
        "qwen3moe",
        _base(48, 2048, 32, 4, 6144, 151936, dim=128) | _moe(128, 8, 768),
    ),
    "Qwen3-Next-80B-A3B": (
        "qwen3next",
        _base(48, 2048, 16, 2, 5120, 151936, dim=256, rope__dimension_count=64)
        | _moe(512, 10, 512, 512)
        | _ssm(4096, 128, 16, 32)
        | {"full_attention_interval": 4},
    ),
    "Qwen3.5-27B": (
        "qwen35",
        _base(64, 5120, 24, 4, 17408, 248320, dim=256, rope__dimension_count=64)
        | _ssm(6144, 128, 16, 48)
        | {"full_attention_interval": 4}
        | _SECTIONS,
    ),
    "Qwen3.5-35B-A3B": (
        "qwen35moe",
        _base(40, 2048, 16, 2, 0, 248320, dim=256, rope__dimension_count=64)
        | _moe(256, 8, 512, 512)
        | _ssm(4096, 128, 16, 32)
        | {"full_attention_interval": 4}
        | _SECTIONS,
    ),
    "Gemma-2-9B": ("gemma2", _base(42, 3584, 16, 8, 14336, 256000, dim=256) | _window(4096)),
    "Gemma-3-27B": ("gemma3", _base(62, 5376, 32, 16, 21504, 262144, dim=128) | _window(1024)),
    "Gemma-4-31B": (
        "gemma4",
        _base(60, 5376, 32, _every(60, 6, 4, 16), 21504, 262144, dim=512)
        | _window(1024, _every(60, 6, False, True))
        | {
            "attention.key_length_swa": 256,
            "attention.value_length_swa": 256,
            "rope.dimension_count_swa": 256,
            "rope.freq_base_swa": 10000.0,
            "embedding_length_per_layer_input": 0,
            "attention.shared_kv_layers": 0,
        },
    ),
    "Gemma-3n-E4B": (
        "gemma3n",
        _base(35, 2048, 8, 2, 16384, 262144, dim=256)
        | _window(512, _every(35, 5, False, True))
        | {"embedding_length_per_layer_input": 256, "attention.shared_kv_layers": 15},
    ),
    "Phi-3-medium": ("phi3", _base(40, 5120, 40, 10, 17920, 32064)),
    "Phi-3.5-MoE": ("phimoe", _base(32, 4096, 32, 8, 6400, 32064) | _moe(16, 2, 6400)),
    "gpt-oss-20b": (
        "gpt-oss",
        _base(24, 2880, 64, 8, 2880, 201088, dim=64) | _moe(32, 4, 2880) | _window(128),
    ),
    "gpt-oss-120b": (
        "gpt-oss",
        _base(36, 2880, 64, 8, 2880, 201088, dim=64) | _moe(128, 4, 2880) | _window(128),
    ),
    "DeepSeek-V2-Lite": (
        "deepseek2",
        _base(27, 2048, 16, 1, 10944, 102400)
        | _moe(64, 6, 1408, expert_shared_count=2)
        | _mla(0, 512, 64, 128, 128)
        | _DEEPSEEK,
    ),
    "GLM-4.7-Flash": (
        "deepseek2",
        _base(47, 2048, 20, 1, 10240, 154880)
        | _moe(64, 4, 1536, expert_shared_count=1)
        | _mla(768, 512, 64, 192, 256)
        | _DEEPSEEK,
    ),
    "GLM-4-32B": ("glm4", _base(61, 6144, 48, 2, 23040, 151552, dim=128, rope__dimension_count=64)),
    "GLM-4.5-Air": (
        "glm4moe",
        _base(47, 4096, 96, 8, 10944, 151552, dim=128, rope__dimension_count=64)
        | _moe(128, 8, 1408, expert_shared_count=1)
        | {"leading_dense_block_count": 1, "nextn_predict_layers": 1, "expert_gating_func": 2},
    ),
    "Mamba-2.8B": ("mamba", _base(64, 2560, 0, 0, 0, 50280, dim=0) | _ssm(5120, 16, 0, 160)),
    "Mamba-Codestral-7B": (
        "mamba2",
        _base(64, 4096, 0, 0, 0, 32768, dim=0) | _ssm(8192, 128, 8, 128),
    ),
    "Jamba-Mini": (
        "jamba",
        _base(32, 4096, 32, [8 if i % 8 == 4 else 0 for i in range(32)], 14336, 65536)
        | _moe(16, 2, 14336)
        | _ssm(8192, 16, 0, 256),
    ),
    "Falcon-H1-34B": (
        "falcon-h1",
        _base(72, 5120, 20, 4, 21504, 261120, dim=128) | _ssm(12288, 256, 2, 96),
    ),
    "Granite-3.3-8B": ("granite", _base(40, 4096, 32, 8, 12800, 49159, logit_scale=16.0)),
    "Granite-4.0-H-Small": (
        "granitehybrid",
        _base(40, 4096, 32, [8 if i in (5, 15, 25, 35) else 0 for i in range(40)], 1536, 100352)
        | _moe(72, 10, 768, 1536)
        | _ssm(8192, 128, 1, 128),
    ),
    "Nemotron-H-8B": (
        "nemotron_h",
        _base(
            len(_NEMOTRON),
            4096,
            32,
            [8 if c == "*" else 0 for c in _NEMOTRON],
            [21504 if c == "-" else 0 for c in _NEMOTRON],
            131072,
        )
        | _ssm(8192, 128, 8, 128),
    ),
    "Command-R-35B": ("command-r", _base(40, 8192, 64, 64, 22528, 256000)),
    "Command-R7B": (
        "cohere2",
        _base(32, 4096, 32, 8, 14336, 256000, logit_scale=0.25) | _window(4096),
    ),
    "OLMo-2-13B": ("olmo2", _base(40, 5120, 40, 40, 13824, 100352)),
    "OLMoE-1B-7B": ("olmoe", _base(16, 2048, 16, 16, 1024, 50304) | _moe(64, 8, 1024)),
    "StarCoder2-15B": ("starcoder2", _base(40, 6144, 48, 4, 24576, 49152)),
    "GPT-NeoX-20B": (
        "gptneox",
        _base(44, 6144, 64, 64, 24576, 50432, rope__dimension_count=24, use_parallel_residual=True),
    ),
    "Falcon-40B": ("falcon", _base(60, 8192, 128, 8, 32768, 65024)),
    "Bloom-7B1": ("bloom", _base(30, 4096, 32, 32, 16384, 250880)),
    "StableLM-2-12B": ("stablelm", _base(40, 5120, 32, 8, 13824, 100352, rope__dimension_count=40)),
    "EXAONE-4.0-32B": ("exaone4", _base(64, 5120, 40, 8, 27392, 102400) | _window(4096)),
    "ERNIE-4.5-21B-A3B": (
        "ernie4_5-moe",
        _base(28, 2560, 20, 4, 12288, 103424, dim=128)
        | _moe(64, 6, 1536, 3072, expert_shared_count=2)
        | {"leading_dense_block_count": 1, "interleave_moe_layer_step": 1},
    ),
    "dots.llm1": (
        "dots1",
        _base(62, 4096, 32, 32, 10944, 152064)
        | _moe(128, 6, 1408, expert_shared_count=2)
        | {"leading_dense_block_count": 1, "expert_gating_func": 2},
    ),
    "MiniMax-M2": (
        "minimax-m2",
        _base(62, 3072, 48, 8, 1536, 200064, dim=128, rope__dimension_count=64)
        | _moe(256, 8, 1536)
        | {"expert_gating_func": 2},
    ),
    "InternLM2-20B": ("internlm2", _base(48, 6144, 48, 8, 16384, 92544)),
    "Seed-OSS-36B": ("seed_oss", _base(64, 5120, 80, 8, 27648, 155136, dim=128)),
    "SmolLM3-3B": ("smollm3", _base(36, 2048, 16, 4, 11008, 128256)),
    "Hunyuan-A13B": (
        "hunyuan-moe",
        _base(32, 4096, 32, 8, 3072, 128167) | _moe(64, 8, 3072, 3072),
    ),
    "Ling-mini-2.0": (
        "bailingmoe2",
        _base(20, 2048, 16, 4, 5120, 157184, dim=128, rope__dimension_count=64)
        | _moe(256, 8, 512, expert_shared_count=1)
        | {"leading_dense_block_count": 1, "expert_gating_func": 2},
    ),
    "DBRX": (
        "dbrx",
        _base(40, 6144, 48, 8, 10752, 100352, attention__clamp_kqv=8.0) | _moe(16, 4, 10752),
    ),
    "Arctic": ("arctic", _base(35, 7168, 56, 8, 4864, 32000) | _moe(128, 2, 4864)),
    "Nemotron-4-15B": ("nemotron", _base(32, 6144, 48, 8, 24576, 256000, rope__dimension_count=64)),
    "Apertus-70B": (
        "apertus",
        _base(80, 8192, 64, 8, 43008, 131072)
        | {f"/xielu.{key}": [0.5] * 80 for key in ("alpha_n", "alpha_p", "beta", "eps")},
    ),
    "LFM2-8B-A1B": (
        "lfm2moe",
        _base(
            24, 2048, 32, [8 if i in (2, 6, 10, 14, 18, 21) else 0 for i in range(24)], 7168, 65536
        )
        | _moe(32, 4, 1792)
        | {"leading_dense_block_count": 2, "shortconv.l_cache": 3, "expert_gating_func": 2},
    ),
    "LFM2-2.6B": (
        "lfm2",
        _base(30, 2048, 32, [8 if i % 4 == 2 else 0 for i in range(30)], 10752, 65536)
        | {"shortconv.l_cache": 3},
    ),
    "Kimi-Linear-48B": (
        "kimi-linear",
        _base(27, 2304, 32, _every(27, 4, 1, 0), 9216, 163840)
        | _moe(256, 8, 1024, expert_shared_count=1)
        | _mla(0, 512, 64, 128, 128)
        | {
            "leading_dense_block_count": 1,
            "expert_gating_func": 2,
            "kda.head_dim": 128,
            "ssm.conv_kernel": 4,
            "expert_weights_scale": 1.0,
        },
    ),
    "RWKV6-Finch-7B": (
        "rwkv6",
        _base(32, 4096, 0, 0, 14336, 65536, dim=0)
        | {
            "wkv.head_size": 64,
            "time_mix_extra_dim": 64,
            "time_decay_extra_dim": 128,
            "rescale_every_n_layers": 6,
            "token_shift_count": 2,
        },
    ),
    # Added after the sums were written, to see whether they hold for what they were not made with.
    "GPT-2-XL": ("gpt2", _base(48, 1600, 25, 25, 6400, 50257)),
    "Baichuan2-13B": ("baichuan", _base(40, 5120, 40, 40, 13696, 125696)),
    "DeepSeek-MoE-16B": (
        "deepseek",
        _base(28, 2048, 16, 16, 10944, 102400)
        | _moe(64, 6, 1408, expert_shared_count=2)
        | {"leading_dense_block_count": 1, "expert_weights_scale": 1.0},
    ),
    "Arcee-AFM-4.5B": ("arcee", _base(36, 2560, 20, 4, 18432, 128005, dim=128)),
    "ERNIE-4.5-0.3B": ("ernie4_5", _base(18, 1024, 16, 2, 3072, 103424, dim=128)),
    "Hunyuan-7B": ("hunyuan-dense", _base(32, 4096, 32, 8, 14336, 128167)),
    "SmallThinker-21B": (
        "smallthinker",
        _base(52, 2560, 28, 4, 768, 151936, dim=128)
        | _moe(64, 6, 768)
        | _window(4096)
        | {"expert_gating_func": 2},
    ),
    "Trinity-Mini": (
        "afmoe",
        _base(32, 2048, 32, 4, 6144, 200192, dim=128)
        | _moe(128, 8, 1024, expert_shared_count=1)
        | _window(2048)
        | {"leading_dense_block_count": 2, "expert_gating_func": 2},
    ),
    "MiMo-V2-Flash": (
        "mimo2",
        _base(48, 4096, 64, _every(48, 6, 4, 8), 16384, 152576, dim=192)
        | {"attention.value_length": 128, "rope.dimension_count": 64}
        | _moe(256, 8, 2048)
        | _window(128, _every(48, 6, False, True))
        | {"expert_gating_func": 2},
    ),
    "Qwen3-VL-8B": ("qwen3vl", _base(36, 4096, 32, 8, 12288, 151936) | _SECTIONS),
    "OLMo-7B": ("olmo", _base(32, 4096, 32, 32, 11008, 50304)),
}

# Models whose files have no `output.weight`.
TIED = {
    *("Command-R-35B", "Command-R7B", "Gemma-2-9B", "Gemma-3-27B", "Gemma-3n-E4B", "Gemma-4-31B"),
    *("Granite-3.3-8B", "Qwen2.5-0.5B", "SmolLM3-3B"),
}
