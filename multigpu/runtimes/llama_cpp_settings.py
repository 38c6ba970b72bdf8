"""What llama-server is told that decides memory: types, batches, and how slots share the context.

Facts of 0.5.0-dev (0c1e57098): common/arg.cpp for the words, src/llama-context.cpp for padding.
"""

from __future__ import annotations

from dataclasses import dataclass

# The context is padded to 256 (llama-context.cpp), a window's cells too (llama-kv-cache-iswa.cpp).
KV_PAD = 256

CACHE_TYPE_BYTES = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}


@dataclass(frozen=True)
class Settings:
    """Flags of llama-server that decide memory: `--ubatch-size`, `--flash-attn`, cache types.

    `flash_attn` None is `auto`: where the card has a kernel for the model's heads, or a quantized V
    demands it. `swa_full` keeps the whole context for sliding windows too. `device` is "cuda" (ROCm
    is built of the same source), "vulkan" or "rpc" (a CPU), which read any cache as it is: Vulkan's
    flash attention has every type here (`fa_kv_ok` in ggml-vulkan.cpp), and nothing is unpacked.
    """

    ubatch: int = 512
    flash_attn: bool | None = None
    k_type: str = "f16"
    v_type: str = "f16"
    swa_full: bool = False
    device: str = "cuda"

    @property
    def k_bytes(self) -> float:
        """Bytes per cached element of K; two for a type that is not known."""
        return CACHE_TYPE_BYTES.get(self.k_type, 2.0)

    @property
    def v_bytes(self) -> float:
        """The same of V."""
        return CACHE_TYPE_BYTES.get(self.v_type, 2.0)


class Slots:
    """How the context is shared: `tokens` in all (`--ctx-size`) over `count` slots.

    With `unified` every slot may use all of it, else each has its own equal part: `streams` caches
    of `stream_tokens` cells stand side by side.
    """

    __slots__ = ("count", "key", "stream_tokens", "streams", "tokens", "unified")

    def __init__(self, tokens: int, count: int = 1, unified: bool = False) -> None:
        self.key = tokens, count, unified
        self.tokens, self.count, self.unified = tokens, count, unified
        self.streams = 1 if unified else count
        self.stream_tokens = tokens // self.streams


def padded(tokens: int) -> int:
    """A multiple of 256, as llama.cpp rounds up."""
    return -(-tokens // KV_PAD) * KV_PAD
