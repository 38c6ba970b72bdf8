"""What a wish asks for where it does not say it: context, concurrency and a typical request."""

from __future__ import annotations

from multigpu.errors import WishError
from multigpu.memo import memo
from multigpu.plan import ModelSpec, Objective, Wish, Workload
from multigpu.prefixes import DISABLING

CONTEXT = 8192
CONCURRENCY = {Objective.LATENCY: 1, Objective.THROUGHPUT: 16, Objective.CONTEXT: 1}
INPUT_TOKENS, OUTPUT_TOKENS = 1024, 256


def workload(model: ModelSpec, wish: Wish) -> Workload:
    """The wish with defaults filled in; no default is longer than the model's context.

    Asked for every candidate, so it is kept with the wish. Raises WishError where a request of the
    stated lengths is longer than the context: engines reject it.
    """
    known = memo(wish)
    key = ("workload", model.max_position_embeddings, model.kv_cache_dtype)
    found: Workload | None = known.get(key)
    if found is None:
        found = known[key] = _filled(wish, model)
    return found


def _filled(wish: Wish, model: ModelSpec) -> Workload:
    context = wish.context or _context(wish, model)
    shared = wish.shared_prefix_tokens or 0
    room = context - (wish.input_tokens or shared + 1)
    output = wish.output_tokens or max(1, min(OUTPUT_TOKENS, context // 4, room))
    given = wish.input_tokens or max(shared + 1, min(shared + INPUT_TOKENS, context - output))
    if given + output > context:
        raise WishError(_too_long(wish, context, given))
    if shared >= given:
        raise WishError(_all_shared(wish, given))
    return Workload(
        objective=wish.objective,
        context=context,
        concurrency=wish.concurrency or CONCURRENCY[wish.objective],
        input_tokens=given,
        output_tokens=output,
        ttft_ms=wish.ttft_ms,
        tpot_ms=wish.tpot_ms,
        kv_cache_dtype=kv_cache_dtype(wish, model),
        shared_prefix_tokens=0 if any(flag in wish.flags for flag in DISABLING) else shared,
    )


def _context(wish: Wish, model: ModelSpec) -> int:
    """`CONTEXT`, more where one request of the wish is longer, and never beyond the model's own."""
    shared = wish.shared_prefix_tokens
    given = wish.input_tokens or (shared + INPUT_TOKENS if shared else 1)
    request = given + (wish.output_tokens or OUTPUT_TOKENS)
    wanted = max(CONTEXT, request)
    return min(wanted, model.max_position_embeddings or wanted)


def _too_long(wish: Wish, context: int, given: int) -> str:
    """One line: what a request takes, what there is, what to do."""
    output = wish.output_tokens or (OUTPUT_TOKENS if wish.input_tokens else 1)
    found = f"a request of {given:,} input and {output:,} output tokens"
    whose = "the context" if wish.context else "the model's context"
    raised = f", or raise context to {given + output}" if wish.context else ""
    hint = f"lower input_tokens or output_tokens{raised}"
    return f"{wish.name}: {found} is longer than {whose} of {context:,}: {hint}"


def _all_shared(wish: Wish, given: int) -> str:
    """One line: a request is its own part, too."""
    shared = wish.shared_prefix_tokens or 0
    return (
        f"{wish.name}: shared_prefix_tokens {shared:,} leave nothing of {given:,} input tokens: "
        "they are a part of input_tokens; raise those, or lower the shared ones"
    )


def kv_cache_dtype(wish: Wish, model: ModelSpec) -> str | None:
    """The type of cached elements: what is pinned or passed on, else what the checkpoint asks for.

    `auto` (vLLM, SGLang) leaves it to the checkpoint. llama.cpp's types of keys and values are
    nearly always the same; that of the keys stands for both.
    """
    passed = wish.flags.get("--kv-cache-dtype") or wish.flags.get("--cache-type-k")
    asked = wish.kv_cache_dtype or passed or "auto"
    return model.kv_cache_dtype if asked == "auto" else asked
