"""What llama.cpp could serve, but not with memory that is known beforehand."""

from __future__ import annotations

from collections.abc import Iterator

from multigpu.plan import Candidate, ModelSpec, Reason, Strategy


def shared_cache(candidate: Candidate, model: ModelSpec) -> Iterator[Reason]:
    """Blocks that read the cache of earlier ones have it copied to their card, step by step.

    Seen with gemma3n over two devices: up to 2.5 GiB beyond the other compute buffers at 131,072
    tokens (llama-server 0.5.0-dev).
    """
    shared = model.gguf is not None and model.gguf.shared_cache
    if shared and candidate.strategy is Strategy.LAYER_SPLIT:
        found = f"the last blocks of {model.model_type} read the KV cache of earlier ones"
        hint = "serve it on one card, it is small; or as replicas"
        yield Reason("shared-cache", found, "all of them on one card", hint)
