"""Prompts that begin alike: what engines need not read again, and where a cache of them decides.

All engines keep the prefix of earlier prompts by default. vLLM 0.33.0 finds it by hashes of full
blocks of 16 tokens (`config/cache.py`, docs/design/prefix_caching), SGLang 0.5.23 by a radix tree
of single tokens (`mem_cache/radix_cache.py`), llama-server in the slot that served a like prompt
(`--cache-prompt`).
"""

from __future__ import annotations

from multigpu.plan import Objective, Workload

WHOLE_BLOCKS = {"vllm": 16}
"""Tokens of the blocks that are found again whole or not at all (`CacheConfig.block_size`)."""

MOST = 0.5
"""Share of the prompt from which on reading the rest is the smaller part of the work."""

DISABLING = (
    "--no-enable-prefix-caching",
    "--disable-radix-cache",
    "--no-cache-prompt",
)
"""Flags of vLLM, SGLang and llama-server that turn the reuse off."""


def reused(runtime: str, load: Workload, *, states: bool, windows: bool) -> int:
    """Tokens of a prompt that an engine at work finds in its cache.

    Counted as none: recurrent `states`, which are resumed at checkpoints only (vLLM:
    docs/features/automatic_prefix_caching), and llama.cpp's `windows`, whose cells before the
    window are gone once the prompt was read (`--swa-full` of llama-server's help).
    """
    if states or (windows and runtime.startswith("llama")):
        return 0
    block = WHOLE_BLOCKS.get(runtime, 1)
    return load.shared_prefix_tokens // block * block


def pays(load: Workload) -> bool:
    """True where the way an engine keeps prefixes decides more than anything else it does.

    Requests that share most of their prompts, several at a time: they queue, and the cache holds
    more than one conversation. Of one request after another vLLM 0.23.0 and SGLang 0.5.9 were
    measured alike (first token of 0.102 s and 0.112 s, krabarena.com, Qwen2.5-3B AWQ).
    """
    most = load.shared_prefix_tokens >= MOST * load.input_tokens
    return load.concurrency > 1 and most and load.objective is not Objective.CONTEXT
