"""llama.cpp's tensor split (`--split-mode tensor`): every layer over all cards, experimental.

Facts of 0.5.0-dev (0c1e57098): architectures from `llm_arch_supports_sm_tensor` in
src/llama-arch.cpp, flash attention from src/llama-context.cpp, no fitting from common/fit.cpp.
Pull request #19378 of llama.cpp measured dense 31B decode 1.36 times as fast over two cards, and
mixtures of experts slower than by layer.
"""

from __future__ import annotations

from collections.abc import Iterator

from multigpu.groups import best, classes_of, pool
from multigpu.hardware import Host
from multigpu.memo import memo
from multigpu.plan import Candidate, ModelSpec, Reason, Strategy, Wish
from multigpu.runtimes.llama_cpp_profile import Part
from multigpu.runtimes.llama_cpp_settings import Slots
from multigpu.runtimes.llama_cpp_shares import Shares, attention_share

CARDS = 2
DENIED = {
    *("bailingmoe3", "bitnet", "deepseek2", "deepseek32", "dots3note", "falcon-h1", "gemma3n"),
    *("glm-dsa", "glm5-next", "granitehybrid", "grok", "hy-v4", "jamba", "kimi-k3"),
    *("kimi-linear", "mamba", "mamba2", "minicpm3", "minimax-01", "minimax-m2", "minimax-m3"),
    *("mistral4", "mpt", "nemotron_h", "nemotron_h_moe", "olmo2", "olmoe", "plamo2", "qwen3tts"),
    *("qwen4exp", "t5"),
}
CACHE_TYPES = ("f16", "bf16", "f32")


def ways(runtime: str, host: Host, model: ModelSpec, wish: Wish) -> Iterator[Candidate]:
    """The best-connected pair of every class, where it can pay: dense, and not by other flags.

    A pinned strategy is proposed whatever the model, so that the refusal says why.
    """
    pinned = wish.strategy is Strategy.TENSOR_SPLIT
    if not pinned and (model.num_experts or next(objections(model, wish), None)):
        return
    cards = pool(host, wish.gpus)
    if wish.gpus is not None and len(cards) > 1 and pinned:
        yield _way(runtime, tuple(gpu.index for gpu in cards), wish)
        return
    for group in classes_of(host, cards):
        if len(group) >= CARDS:
            pair = best(host, sorted(group, key=lambda gpu: gpu.index), CARDS)
            yield _way(runtime, pair, wish)


def _way(runtime: str, gpus: tuple[int, ...], wish: Wish) -> Candidate:
    """Every card as much as the others, or the shares that `layers` of the wish name."""
    pinned = wish.layers if wish.layers and len(wish.layers) == len(gpus) else None
    return Candidate(runtime, Strategy.TENSOR_SPLIT, gpus, layers=pinned or (1,) * len(gpus))


def objections(model: ModelSpec, wish: Wish, cards: int = CARDS) -> Iterator[Reason]:
    """What llama.cpp itself refuses, or cannot divide."""
    by_layer = "use strategy layer_split"
    if model.model_type in DENIED:
        found = f"llama.cpp does not divide the layers of {model.model_type}"
        yield Reason("tensor-split-model", found, None, by_layer)
    heads = model.num_key_value_heads
    if heads and heads < cards:
        needed = f"at least {cards}"
        yield Reason("tensor-split-model", f"{heads} KV heads", needed, by_layer)
    if wish.flags.get("--flash-attn") == "off":
        hint = "leave --flash-attn out"
        yield Reason("tensor-split-flags", "--flash-attn off", "flash attention", hint)
    for x in "kv":
        kind = wish.flags.get(f"--cache-type-{x}") or wish.kv_cache_dtype or "f16"
        if kind not in CACHE_TYPES:
            found, needed = f"a KV cache in {kind}", ", ".join(CACHE_TYPES)
            hint = "take one of these types, or strategy layer_split"
            yield Reason("tensor-split-flags", found, needed, hint)


def weights_mib(part: Part, model: ModelSpec, share: Shares) -> float:
    """One card's share of what is divided, and all of the norms, routers and small projections."""
    known = memo(model)
    if "llama.cpp-divided" not in known:
        known["llama.cpp-divided"] = sum(model.replicated_mib), attention_share(model)
    sums: tuple[float, float] = known["llama.cpp-divided"]
    whole, attention_part = sums
    output = part.profile.output_mib
    # A tied output layer is a copy of the token embedding, which is not divided.
    if model.tie_word_embeddings:
        whole, output = whole + output, 0.0
    divided = max(0.0, part.weights - whole - output)
    attention = attention_part * divided
    networks = (divided - attention) * share.feed_forward
    return whole + attention * share.attention + networks + output * share.plain


def cache_mib(part: Part, slots: Slots, share: Shares) -> float:
    """The share of the KV heads, of the state of recurrences too."""
    return part.cache(slots) * share.attention


def compute_mib(part: Part, slots: Slots) -> float:
    """As much as on one card alone: buffers have the sizes of the whole tensors (H200)."""
    return part.compute(slots)
