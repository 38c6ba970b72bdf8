"""What the metadata and tensor names of a GGUF file say about a model.

Caches are in `gguf_cache.py`, what decides compute buffers in `gguf_graph.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeGuard

from multigpu.errors import ModelError

ENCODER = "an encoder (it embeds texts and writes none)"
DIFFUSION = "a diffusion model (no KV cache, and llama-server does not decode it)"

# Those without a memory in `llama_model::create_memory` (src/llama-model.cpp), and those whose
# cache is laid out in ways that are not summed here.
REFUSED = {
    **dict.fromkeys(("bert", "eurobert", "gemma-embedding", "jina-bert-v2"), ENCODER),
    **dict.fromkeys(("jina-bert-v3", "modern-bert", "neo-bert", "nomic-bert"), ENCODER),
    **dict.fromkeys(("llama-embed", "nomic-bert-moe", "t5encoder"), ENCODER),
    **dict.fromkeys(("dream", "llada", "llada-moe", "rnd1"), DIFFUSION),
    "deepseek4": "compressed sparse attention",
    "dflash": "a draft model",
    "eagle3": "a draft model",
    "glm5-next": "sparse attention with an indexer beside a recurrence",
    "hrm-text": "layers that are run several times",
    "minimax-m3": "sparse attention with an indexer",
    "qwen4exp": "sparse attention with an indexer",
    "t5": "an encoder-decoder model",
    "wavtokenizer-dec": "a decoder of sound",
}

# `llm_arch_is_recurrent` in src/llama-arch.cpp.
RECURRENT = {"arwkv7", "mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7"}
MIB = 1024 * 1024
COUNT_MAX = 2**40
COUNT = "a whole number of a size that a model has"
# Beginnings of names outside of the blocks: LLM_TENSOR_LAYER_OUTPUT, and LLM_TENSOR_LAYER_REPEATING
# without a number, in src/llama-arch.cpp.
OUTPUT = ("output", "altup_", "cls", "hc_head")
FIRST = ("per_layer_model_proj", "per_layer_proj_norm")

Tensor = tuple[str, int] | tuple[str, int, int]
"""Name, bytes and, where known, elements of a tensor."""


class GgufHeader:
    """Metadata and tensors of one model. Raises ModelError on what is missing."""

    def __init__(self, fields: Mapping[str, object], tensors: Sequence[Tensor]) -> None:
        self.fields = fields
        architecture = fields.get("general.architecture")
        if not isinstance(architecture, str) or not architecture:
            raise ModelError("the GGUF has no general.architecture: the download is cut")
        if architecture in REFUSED:
            raise ModelError(f"{architecture}: {REFUSED[architecture]} is not supported")
        self.architecture = architecture
        self.block_count = self.integer("block_count")
        if not 0 < self.block_count <= 4096:
            raise ModelError(f"{architecture}.block_count is {self.block_count}")
        self.by_block: tuple[dict[str, int], ...] = tuple({} for _ in range(self.block_count))
        self.other: dict[str, int] = {}
        for tensor in tensors:
            self._place(tensor[0], tensor[1])
        self.num_parameters = _elements(tensors)
        if not any(self.by_block):
            raise ModelError("the GGUF has no blk.* tensors: a shard or the end of it is missing")

    def _place(self, name: str, n_bytes: int) -> None:
        prefix, _, rest = name.partition(".")
        number, _, tensor = rest.partition(".")
        if prefix == "blk" and number.isascii() and number.isdecimal():
            if int(number) >= self.block_count:
                raise ModelError(f"tensor {name} is outside of {self.block_count} blocks")
            self.by_block[int(number)][tensor] = n_bytes
        else:
            self.other[name] = n_bytes

    def optional(self, key: str) -> int | None:
        """`<architecture>.<key>` as a whole number, or None when it is not there."""
        value = self.fields.get(f"{self.architecture}.{key}")
        if value is None:
            return None
        if not _is_count(value):
            raise ModelError(f"{self.architecture}.{key} is {value!r}, {COUNT} is needed")
        return value

    def integer(self, key: str) -> int:
        """`<architecture>.<key>`, which must be there and at least 1."""
        value = self.optional(key)
        if value is None or value < 1:
            raise ModelError(f"{self.architecture}.{key} is {value!r}, at least 1 is needed")
        return value

    def per_layer(self, key: str, *, default: int | None = None) -> tuple[int, ...]:
        """A value for every block: one number in the file, or a list of them."""
        value = self.fields.get(f"{self.architecture}.{key}", default)
        if _is_count(value):
            return (value,) * self.block_count
        if isinstance(value, list | tuple) and len(value) >= self.block_count:
            found = tuple(item for item in value[: self.block_count] if _is_count(item))
            if len(found) == self.block_count:
                return found
        said = repr(value)[:80]
        raise ModelError(f"{self.architecture}.{key} is {said}: {COUNT} is needed, or one a block")

    def kv_heads(self) -> tuple[int, ...]:
        """KV heads of every block; as many as query heads when the file does not say."""
        if f"{self.architecture}.attention.head_count_kv" in self.fields:
            return self.per_layer("attention.head_count_kv")
        return self.heads()

    def heads(self) -> tuple[int, ...]:
        """Query heads of every block; a model that is nothing but a recurrence may name none."""
        default = 0 if self.architecture in RECURRENT else None
        return self.per_layer("attention.head_count", default=default)

    def head_dim(self) -> int:
        """Elements of a key per head (`attention.key_length`, else width over heads)."""
        stated = self.optional("attention.key_length")
        heads = max(self.heads())
        return stated or self.integer("embedding_length") // max(heads, 1)

    def vocab_size(self) -> int:
        """`vocab_size`, else the number of tokens of the tokenizer."""
        stated = self.optional("vocab_size")
        tokens = self.fields.get("tokenizer.ggml.tokens")
        if stated is not None:
            return stated
        if isinstance(tokens, int) and not isinstance(tokens, bool):
            return tokens
        if isinstance(tokens, list | tuple) and tokens:
            return len(tokens)
        raise ModelError("the GGUF names neither a vocab_size nor tokens")

    def file_type(self) -> str | None:
        """`general.file_type` as given (a name), or None."""
        value = self.fields.get("general.file_type")
        return str(value) if value is not None else None

    @property
    def tied(self) -> bool:
        """True when the output layer reads the token embedding (no `output.weight`)."""
        return "output.weight" not in self.other

    def output_mib(self) -> float:
        """Final norm, lm_head and the like; llama.cpp puts them on the last device."""
        return self._outside(*OUTPUT)

    def first_mib(self) -> float:
        """Tensors outside of the blocks that llama.cpp counts as part of the first one."""
        return self._outside(*FIRST)

    def embedding_mib(self) -> float:
        """Everything else; llama.cpp keeps the input layer in the host's memory."""
        return sum(self.other.values()) / MIB - self.output_mib() - self.first_mib()

    def _outside(self, *prefixes: str) -> float:
        return sum(n for name, n in self.other.items() if name.startswith(prefixes)) / MIB

    @property
    def trunk(self) -> int:
        """Blocks without those of multi-token prediction at the end (`nextn`)."""
        return self.block_count - (self.optional("nextn_predict_layers") or 0)

    def has(self, block: int, tensor: str) -> bool:
        """True when the block has that tensor (`ffn_gate.weight`)."""
        return tensor in self.by_block[block]

    def has_any(self, block: int, prefix: str) -> bool:
        """True when a tensor of the block begins so (`ssm_`)."""
        return any(name.startswith(prefix) for name in self.by_block[block])


def _is_count(value: object) -> TypeGuard[int]:
    """Flags are written as booleans, and a damaged header holds any number."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= COUNT_MAX


def _elements(tensors: Sequence[Tensor]) -> int | None:
    """Parameters of all tensors, None where one does not say its own."""
    found = [tensor[2] for tensor in tensors if len(tensor) == 3]
    return sum(found) if found and len(found) == len(tensors) else None
