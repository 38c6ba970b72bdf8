"""What the metadata and tensor names of a GGUF file say about a model.

Facts of llama.cpp 0.5.0-dev (0c1e57098): `src/llama-hparams.cpp` for windows and recurrent state,
`src/llama-kv-cache.cpp` for what an MLA layer keeps (K only).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from multigpu.errors import ModelError
from multigpu.plan import LayerCache

MIB = 1024 * 1024

# Sliding-window period and whether the first block of a period is the full one, where the file does
# not say it (`load_swa_pattern` in src/models/*.cpp).
SWA_PATTERNS = {
    "cohere2": (4, False),
    "exaone4": (4, False),
    "gemma2": (2, False),
    "gemma3": (6, False),
    "gemma3n": (5, False),
    "gpt-oss": (2, False),
    "llama4": (4, False),
    "olmo2": (4, False),
    "smallthinker": (4, True),
}

REFUSED = {
    "deepseek4": "compressed sparse attention",
    "kimi-linear": "Kimi linear attention",
    "lfm2": "short convolutions",
    "rwkv6": "RWKV",
    "rwkv7": "RWKV",
    "t5": "an encoder-decoder model",
}


class GgufHeader:
    """Metadata of one model; `tensors` are (name, bytes). Raises ModelError on what is missing."""

    def __init__(self, fields: Mapping[str, object], tensors: Sequence[tuple[str, int]]) -> None:
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
        for name, n_bytes in tensors:
            self._place(name, n_bytes)
        if not any(self.by_block):
            raise ModelError("the GGUF has no blk.* tensors: a shard or the end of it is missing")

    def _place(self, name: str, n_bytes: int) -> None:
        prefix, _, rest = name.partition(".")
        number, _, tensor = rest.partition(".")
        if prefix == "blk" and number.isdigit():
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
        if isinstance(value, bool) or not isinstance(value, int):
            raise ModelError(f"{self.architecture}.{key} is {value!r}, a whole number is needed")
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
        if isinstance(value, int) and not isinstance(value, bool):
            return (value,) * self.block_count
        if isinstance(value, list | tuple) and len(value) >= self.block_count:
            return tuple(int(item) for item in value[: self.block_count])
        raise ModelError(f"{self.architecture}.{key} is {value!r}: one number or one per block")

    def kv_heads(self) -> tuple[int, ...]:
        """KV heads of every block; as many as query heads when the file does not say."""
        if f"{self.architecture}.attention.head_count_kv" in self.fields:
            return self.per_layer("attention.head_count_kv")
        return self.per_layer("attention.head_count")

    def head_dim(self) -> int:
        """Elements of a key per head (`attention.key_length`, else width over heads)."""
        stated = self.optional("attention.key_length")
        heads = max(self.per_layer("attention.head_count"))
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

    def layers_mib(self) -> tuple[float, ...]:
        """Weights of each block."""
        return tuple(sum(block.values()) / MIB for block in self.by_block)

    def output_mib(self) -> float:
        """Final norm and lm_head; llama.cpp puts them on the last device."""
        return sum(n for name, n in self.other.items() if name.startswith("output")) / MIB

    def embedding_mib(self) -> float:
        """Everything else; llama.cpp keeps the input layer in the host's memory."""
        return sum(n for name, n in self.other.items() if not name.startswith("output")) / MIB

    def caches(self) -> tuple[LayerCache, ...]:
        """What each block keeps per token or per sequence."""
        sliding = self._sliding()
        trunk = self.block_count - (self.optional("nextn_predict_layers") or 0)
        shared = self.optional("attention.shared_kv_layers") or 0
        return tuple(
            self._cache(i, sliding[i]) if i < trunk - shared else LayerCache("none")
            for i in range(self.block_count)
        )

    def _cache(self, index: int, sliding: bool) -> LayerCache:
        names = self.by_block[index]
        if any(name.startswith("ssm_") for name in names):
            return self._state()
        heads = self.kv_heads()[index]
        if heads == 0 or not any(name.startswith("attn_") for name in names):
            return LayerCache("none")
        rank = self.optional("attention.kv_lora_rank")
        if rank:
            rope = self.integer("rope.dimension_count")
            return LayerCache("mla", elements=rank + rope)
        if sliding:
            dim = self.optional("attention.key_length_swa") or self.head_dim()
            return LayerCache("sliding", heads, dim, self.integer("attention.sliding_window"))
        return LayerCache("full", heads, self._mean_dim())

    def _mean_dim(self) -> int:
        """Keys and values may differ in width; their mean keeps `2 * heads * head_dim` true."""
        value = self.optional("attention.value_length") or self.head_dim()
        return -(-(self.head_dim() + value) // 2)

    def _sliding(self) -> tuple[bool, ...]:
        """Which blocks attend over a window; unknown patterns count as full, an upper bound."""
        key = f"{self.architecture}.attention.sliding_window_pattern"
        stated = self.fields.get(key)
        if not self.optional("attention.sliding_window"):
            return (False,) * self.block_count
        if isinstance(stated, list | tuple) and len(stated) >= self.block_count:
            return tuple(bool(item) for item in stated[: self.block_count])
        period, dense_first = SWA_PATTERNS.get(self.architecture, (1, False))
        if isinstance(stated, int) and not isinstance(stated, bool) and stated > 0:
            period = stated
        full = 0 if dense_first else period - 1
        return tuple(i % period != full for i in range(self.block_count))

    def _state(self) -> LayerCache:
        """Recurrent state in float32: `n_embd_r` + `n_embd_s`."""
        inner, size = self.integer("ssm.inner_size"), self.integer("ssm.state_size")
        groups = self.optional("ssm.group_count") or 0
        kernel = self.optional("ssm.conv_kernel") or 1
        elements = size * inner + (kernel - 1) * (inner + 2 * groups * size)
        return LayerCache("state", elements=elements, element_bytes=4)
