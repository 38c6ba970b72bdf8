"""The family of a model where `model_type` does not say it: by its class, or by what wraps it."""

from __future__ import annotations

# Classes of `architectures` -> the model_type whose layout they have (vLLM 0.33's registry).
ARCHITECTURES = {
    "BailingMoeV2_5ForCausalLM": "bailing_moe_v2_5",
    "DeepseekV2ForCausalLM": "deepseek_v2",
    "DeepseekV3ForCausalLM": "deepseek_v3",
    "DeepseekV32ForCausalLM": "deepseek_v32",
    "DeepseekV4ForCausalLM": "deepseek_v4",
    "GlmMoeDsaForCausalLM": "glm_moe_dsa",
    "GptOssForCausalLM": "gpt_oss",
    "IQuestCoderForCausalLM": "llama",
    "KimiLinearForCausalLM": "kimi_linear",
    "LlamaForCausalLM": "llama",
    "MiMoV2FlashForCausalLM": "mimo_v2_flash",
    "MiniMaxM2ForCausalLM": "minimax_m2",
    "MiniMaxText01ForCausalLM": "minimax_text_01",
    "MistralForCausalLM": "mistral",
    "MixtralForCausalLM": "mixtral",
    "NemotronHForCausalLM": "nemotron_h",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3_moe",
    "Qwen3NextForCausalLM": "qwen3_next",
    "TeleChat3ForCausalLM": "llama",
}

# The class decides although these know a model_type: one name for two kinds of linear attention.
CLASS_DECIDES = ("bailing_hybrid",)

# model_type of a wrapper -> the language model in it, where the nested part has no model_type.
WRAPPED = {
    "exaone4_5": "exaone4",
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
    "glm4v": "glm4v_text",
    "glm4v_moe": "glm4v_moe_text",
    "kimi_k25": "kimi_k2",
    "kimi_vl": "deepseek_v3",
    "llama4": "llama4_text",
    "llava": "llama",
    "llava_next": "llama",
    "mistral3": "mistral",
    "molmo2": "molmo2_text",
    "muse_glimmer": "muse_glimmer_text",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen2_vl": "qwen2_vl_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
}
