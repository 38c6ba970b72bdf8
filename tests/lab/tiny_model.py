"""A language model made from nothing: random weights, a tokenizer of its own, no download.

    python tests/lab/tiny_model.py OUT [--size-mib 96]

writes OUT/tiny.gguf (F16, for llama.cpp) and OUT/hf/ (the same kind of model in Hugging Face's
layout, small). What it says is noise, always the same noise; how it loads, splits over devices and
generates is real. It never ends by itself: control tokens get no weight, and neither does anything
but printable ASCII, so the text is always valid UTF-8. Needs gguf and numpy.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

SEED = 7
CONTEXT = 8192
HF_SIZE_MIB = 8
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WORDS = (
    "the", "of", "and", "to", "in", "is", "that", "for", "on", "with", "as", "card", "model",
    "layer", "token", "memory", "split", "two",
)  # fmt: skip
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
Array = np.ndarray


@dataclass(frozen=True)
class Shape:
    """Sizes by their names in Hugging Face's configuration."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    head_dim: int = 64


def shape_for(size_mib: int, vocab_size: int) -> Shape:
    """Twelve layers, feed-forward about 2.7 times the width, filled up to `size_mib` of F16."""
    layers = 12
    parameters = size_mib * 2**20 / 2
    hidden = max(128, round(math.sqrt(parameters / layers / 11) / 128) * 128)
    attention = 3 * hidden * hidden  # q and o in full, k and v with half the heads
    per_layer = (parameters - 2 * vocab_size * hidden) / layers
    feed_forward = max(64, round((per_layer - attention) / (3 * hidden) / 32) * 32)
    heads = hidden // Shape.head_dim
    return Shape(hidden, feed_forward, layers, heads, max(1, heads // 2), vocab_size)


# --- the tokenizer: byte-level BPE, as GPT-2's ---------------------------------------------------


def byte_characters() -> list[str]:
    """GPT-2's printable stand-in for each byte: itself, or a character from U+0100 on."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(spare)) for byte in range(256)]


def merges() -> list[tuple[str, str]]:
    """Merges that build each word, with its leading blank, from left to right."""
    blank = byte_characters()[ord(" ")]
    found: dict[tuple[str, str], None] = {}
    for word in WORDS:
        left = blank
        for letter in word:
            found[(left, letter)] = None
            left += letter
    return list(found)


def tokens() -> list[str]:
    """The vocabulary in order of token ids: control tokens, bytes, merged pieces."""
    return [*CONTROL, *byte_characters(), *(a + b for a, b in merges())]


def speakable(vocabulary: list[str]) -> Array:
    """1 for tokens of printable ASCII, 0 for the others."""
    characters = byte_characters()
    allowed = {characters[byte] for byte in range(32, 127)}
    marks = [float(set(token) <= allowed and token not in CONTROL) for token in vocabulary]
    return np.array(marks, np.float32)


# --- the weights ---------------------------------------------------------------------------------


def tensors(shape: Shape, vocabulary: list[str]) -> Iterator[tuple[str, Array]]:
    """Names as in Hugging Face's Llama, weights as float32."""
    random = np.random.default_rng(SEED)
    hidden, feed, kv = shape.hidden_size, shape.intermediate_size, shape.num_key_value_heads

    def matrix(rows: int, columns: int, gain: float = 1.0) -> Array:
        values = random.standard_normal((rows, columns), dtype=np.float32)
        return values * np.float32(gain / math.sqrt(columns))

    yield "model.embed_tokens.weight", matrix(shape.vocab_size, hidden, math.sqrt(hidden))
    for layer in range(shape.num_hidden_layers):
        block = f"model.layers.{layer}"
        sizes = {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (kv * shape.head_dim, hidden),
            "self_attn.v_proj": (kv * shape.head_dim, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (feed, hidden),
            "mlp.up_proj": (feed, hidden),
            "mlp.down_proj": (hidden, feed),
        }
        for name, size in sizes.items():
            yield f"{block}.{name}.weight", matrix(*size)
        yield f"{block}.input_layernorm.weight", np.ones(hidden, np.float32)
        yield f"{block}.post_attention_layernorm.weight", np.ones(hidden, np.float32)
    yield "model.norm.weight", np.ones(hidden, np.float32)
    # Logits spread by 6, those of silent tokens are 0: the best token is always a speakable one.
    head = matrix(shape.vocab_size, hidden, 6.0) * speakable(vocabulary)[:, None]
    yield "lm_head.weight", head


# --- GGUF ----------------------------------------------------------------------------------------

GGUF_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def write_gguf(path: Path, shape: Shape, vocabulary: list[str]) -> None:
    writer = gguf.GGUFWriter(str(path), "llama")
    describe(writer, shape)
    add_tokenizer(writer, vocabulary)
    for name, weight in tensors(shape, vocabulary):
        values = rope_order(name, weight, shape)
        kind = np.float32 if values.ndim == 1 else np.float16
        writer.add_tensor(gguf_name(name), values.astype(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def describe(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_name("multigpu lab, random weights")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.num_key_value_heads)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def add_tokenizer(writer: gguf.GGUFWriter, vocabulary: list[str]) -> None:
    kinds = gguf.TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([kinds.CONTROL if t in CONTROL else kinds.NORMAL for t in vocabulary])
    writer.add_token_merges([f"{a} {b}" for a, b in merges()])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def gguf_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if not stem.startswith("model.layers."):
        return f"{GGUF_NAMES[stem]}.weight"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[rest]}.weight"


def rope_order(name: str, weight: Array, shape: Shape) -> Array:
    """Rows of q and k in the order ggml rotates them in, as convert_hf_to_gguf.py does it."""
    heads = {"q_proj": shape.num_attention_heads, "k_proj": shape.num_key_value_heads}
    count = next((number for part, number in heads.items() if part in name), None)
    if count is None:
        return weight
    halves = weight.reshape(count, 2, weight.shape[0] // count // 2, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


# --- Hugging Face --------------------------------------------------------------------------------


def write_hf(folder: Path, shape: Shape, vocabulary: list[str]) -> None:
    folder.mkdir(parents=True)
    write_json(folder / "config.json", hf_config(shape))
    write_json(folder / "tokenizer.json", hf_tokenizer(vocabulary))
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": CONTROL[0],
        "eos_token": CONTROL[2], "pad_token": CONTROL[0], "chat_template": CHAT_TEMPLATE,
    })  # fmt: skip
    write_json(folder / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 2})
    weights = {name: w.astype(np.float16) for name, w in tensors(shape, vocabulary)}
    write_safetensors(folder / "model.safetensors", weights)


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def hf_config(shape: Shape) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **vars(shape),
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "torch_dtype": "float16",
    }


def hf_tokenizer(vocabulary: list[str]) -> dict[str, object]:
    control = [
        {"id": number, "content": text, "special": True, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False}
        for number, text in enumerate(CONTROL)
    ]  # fmt: skip
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "added_tokens": control,
        "pre_tokenizer": {**level, "use_regex": True},
        "decoder": {**level, "use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": {token: number for number, token in enumerate(vocabulary)},
            "merges": [list(pair) for pair in merges()],
        },
    }


def write_safetensors(path: Path, weights: dict[str, Array]) -> None:
    """Eight bytes with the length of a JSON header, the header, then array after array."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, weight in weights.items():
        end = offset + weight.nbytes
        header[name] = {"dtype": "F16", "shape": list(weight.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for weight in weights.values():
            file.write(weight.tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--size-mib", type=int, default=96, help="of tiny.gguf")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    vocabulary = tokens()
    write_gguf(options.out / "tiny.gguf", shape_for(options.size_mib, len(vocabulary)), vocabulary)
    write_hf(options.out / "hf", shape_for(HF_SIZE_MIB, len(vocabulary)), vocabulary)


if __name__ == "__main__":
    main()
