"""What model families do their own way, by `model_type` of config.json.

Sources: the configuration and modelling files of Transformers 5.20 and of vLLM 0.33, and the
families' own `modeling_*.py` on the hub. `KNOWN` lists the families whose blocks are modelled; any
other is refused, because a wrong KV cache size is worse than none.
"""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """Names that stand in a text, apart by blanks."""
    return frozenset(text.split())


# Blocks of the Llama shape: attention (grouped or not) and a gated feed-forward part.
LLAMA_LIKE = words(
    """llama llama4_text mistral ministral ministral3 mixtral qwen qwen2 qwen2_moe qwen3 qwen3_moe
    qwen3_vl_text qwen3_vl_moe_text qwen2_vl qwen2_vl_text qwen2_5_vl qwen2_5_vl_text
    qwen2_5_omni qwen2_5_omni_text qwen3_omni_moe_text qwen2_audio gemma gemma2 gemma3_text
    gemma3n_text gemma4_text gemma4_unified_text phi3 phi3_v phi4mm phi4_multimodal phimoe
    internlm internlm2 internlm3 baichuan aquila xverse yi Yi exaone exaone4 exaone_moe
    exaone4_5 solar solar_open stablelm stablelm_epoch cohere cohere2 cohere2_moe olmo olmo2
    olmo3 olmoe flex_olmo granite granitemoe granitemoeshared granite_swa granitemoe_swa glm
    glm4 glm4_moe glm4v_text glm4v_moe_text glm_ocr_text chatglm gpt_oss minicpm minicpmv
    minicpmo minimax_m2 mimo mimo_v2 mimo_v2_flash ernie4_5 ernie4_5_moe ernie4_5_moe_vl
    ernie4_5_vl_moe_text hunyuan_v1_dense hunyuan hunyuan_v1_moe hunyuan_vl hunyuan_vl_text
    hy_v3 seed_oss smollm3 bailing_moe bailing_moe_v2 dots1 deepseek arcee apertus afmoe arctic
    cwm helium step1 step3p5 step3p7_text step3p7 teleflm telechat telechat2 telechat3 orion
    tele-chat rnj1 dbrx hyperclovax iquestcoder laguna sarvam_moe kolibri1 mellum nanbeige
    vaultgemma muse_glimmer grok-1 aria_text lighton_ocr_text paddleocr_vl_text mistral3_text
    decilm nemotron-nas nemotron PanguEmbedded pangu_embedded keye keye_vl1_5 param2moe
    domyn_edge beam molmo2_text cosmos3_edge_text muse_glimmer_text muse_spark_text"""
)

# No gate projection: the feed-forward part is one matrix up and one down.
NOT_GATED = words(
    """gpt2 gpt-sw3 gpt_bigcode gpt_neo gpt_neox gptj bloom opt falcon RefinedWeb RefinedWebModel
    mpt phi starcoder2 nemotron nemotron_h nemotron_h_puzzle persimmon fuyu jais2 apertus arcee
    codegen cosmos3_edge_text"""
)

# Blocks of the same shape without a gate, or with spellings of their own.
GPT_LIKE = words(
    """gpt2 gpt-sw3 gpt_bigcode gpt_neox gptj bloom opt falcon RefinedWeb RefinedWebModel mpt phi
    starcoder2 persimmon fuyu jais2 codegen"""
)

# Latent attention where `kv_lora_rank` is there.
LATENT = words(
    """deepseek_v2 deepseek_v3 deepseek_v32 deepseek_vl_v2 deepseek_ocr kimi_k2 kimi_vl glm_moe_dsa
    glm4_moe_lite minicpm3 axk1 mistral4 mistral_large_3 sarvam_mla longcat_flash youtu
    pangu_ultra_moe bailing_moe_v2_5 bailing_moe_linear bailing_hybrid kimi_linear deepseek_v4"""
)

# Recurrent layers, alone or between attention layers.
RECURRENT = words(
    """qwen3_next qwen3_5_text qwen3_5_moe_text qwen3_5 qwen3_5_moe olmo_hybrid mamba falcon_mamba
    mamba2 jamba bamba granitemoehybrid falcon_h1 nemotron_h nemotron_h_puzzle zamba2 minimax
    minimax_text_01 minimax_m1 kimi_linear lfm2 lfm2_moe plamo2 bailing_hybrid"""
)

KNOWN = LLAMA_LIKE | GPT_LIKE | LATENT | RECURRENT

# Windows: these families slide on every layer when a window is set and no list says which.
ALL_SLIDING = words("mistral ministral phi3 starcoder2 mixtral phimoe")

# Biases of query, key and value projections that no key of config.json states.
QKV_BIAS = words(
    """qwen qwen2 qwen2_moe qwen2_vl qwen2_vl_text qwen2_5_vl qwen2_5_vl_text qwen2_5_omni
    qwen2_5_omni_text qwen2_audio gpt2 gpt_bigcode bloom opt phi starcoder2 gpt_neox persimmon"""
)

# A vector of the width of all query heads gates the output of attention.
OUTPUT_GATE = words("afmoe beam muse_glimmer_text muse_spark_text")
# One number per query head does.
HEAD_GATE = words("step3p5 step3p7 step3p7_text laguna")

# Not served as a generator of text by a planner of this kind, and why.
REFUSED: dict[str, str] = {
    **dict.fromkeys(
        words(
            """t5 mt5 umt5 bart mbart pegasus marian m2m_100 nllb-moe blenderbot led prophetnet
            florence2 whisper cohere_asr nemotron_parse moonshine speech_to_text vision-encoder-
            decoder encoder- decoder donut-swin t5gemma t5gemma2 mllama"""
        ),
        "an encoder-decoder model: the cache of its cross-attention is not modelled",
    ),
    **dict.fromkeys(
        words(
            """bert roberta xlm-roberta albert electra distilbert deberta deberta-v2 mpnet
            modernbert nomic_bert gte new clip siglip siglip2 vit dinov2 camembert ernie ColBERT
            colpali jina_embeddings_v3"""
        ),
        "an encoder: it embeds or classifies and generates no text",
    ),
    **dict.fromkeys(("rwkv", "rwkv5", "rwkv6", "rwkv7"), "RWKV, which vLLM does not serve"),
}

# Classes in `architectures` that put another head on a language model.
NOT_GENERATIVE = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForRewardModel",
    "ForProcessRewardModel",
    "ForMaskedLM",
    "ForQuestionAnswering",
    "ForRanking",
    "ForRetrieval",
)
EMBEDDING_CLASSES = words(
    """BertModel RobertaModel XLMRobertaModel MistralModel LlamaModel Qwen2Model Qwen3Model
    Gemma2Model Gemma3TextModel ModernBertModel NomicBertModel GteModel CLIPModel SiglipModel"""
)
