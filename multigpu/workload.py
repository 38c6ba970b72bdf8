"""What a wish asks for where it does not say it: context, concurrency and a typical request."""

from __future__ import annotations

from multigpu.memo import memo
from multigpu.plan import ModelSpec, Objective, Wish, Workload

CONTEXT = 8192
CONCURRENCY = {Objective.LATENCY: 1, Objective.THROUGHPUT: 16, Objective.CONTEXT: 1}
INPUT_TOKENS, OUTPUT_TOKENS = 1024, 256


def workload(model: ModelSpec, wish: Wish) -> Workload:
    """The wish with defaults filled in; no default is longer than the model's context.

    Asked for every candidate, so it is kept with the wish.
    """
    known = memo(wish)
    key = ("workload", model.max_position_embeddings, model.kv_cache_dtype)
    found: Workload | None = known.get(key)
    if found is None:
        found = known[key] = _filled(wish, model)
    return found


def _filled(wish: Wish, model: ModelSpec) -> Workload:
    longest = model.max_position_embeddings or CONTEXT
    context = wish.context or min(CONTEXT, longest)
    output = wish.output_tokens or min(OUTPUT_TOKENS, max(1, context // 4))
    given = wish.input_tokens or INPUT_TOKENS
    return Workload(
        objective=wish.objective,
        context=context,
        concurrency=wish.concurrency or CONCURRENCY[wish.objective],
        input_tokens=given if wish.input_tokens else max(1, min(given, context - output)),
        output_tokens=output,
        ttft_ms=wish.ttft_ms,
        tpot_ms=wish.tpot_ms,
        kv_cache_dtype=kv_cache_dtype(wish, model),
    )


def kv_cache_dtype(wish: Wish, model: ModelSpec) -> str | None:
    """The type of cached elements: what is pinned or passed on, else what the checkpoint asks for.

    `auto` (vLLM, SGLang) leaves it to the checkpoint. llama.cpp's types of keys and values are
    nearly always the same; that of the keys stands for both.
    """
    passed = wish.flags.get("--kv-cache-dtype") or wish.flags.get("--cache-type-k")
    asked = wish.kv_cache_dtype or passed or "auto"
    return model.kv_cache_dtype if asked == "auto" else asked
