"""What tensor parallelism must divide: heads, widths, and the groups and tiles of quantizations.

These follow from the model and the sizes alone, so they are asked once per model. vLLM 0.33.0:
`config/model.py` (heads), `layers/linear.py` and `layers/vocab_parallel_embedding.py` (widths),
`layers/quantization/utils/marlin_utils.py` (tiles of 64 outputs and 128 inputs),
`layers/quantization/utils/fp8_utils.py` (whole blocks per rank), `models/gpt_oss.py` (MXFP4 deals
whole blocks to ranks and pads). SGLang 0.5.23 inherited them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil

from multigpu.memo import memo
from multigpu.model.quantization import MARLIN
from multigpu.plan import ModelSpec, Reason

VOCAB_PADDING = 64
MARLIN_INPUTS, MARLIN_OUTPUTS = 128, 64
W4A8_EXPERTS = 256
FP8_BLOCK = 128


def sharding(model: ModelSpec, tp: int, expert_parallel: bool = False) -> tuple[Reason, ...]:
    """What does not divide at this tensor parallel size; nothing when it is valid.

    With expert parallelism a rank holds whole experts, so that their width is not divided.
    """
    if tp == 1:
        return ()
    known = memo(model)
    key = ("sharding", tp, expert_parallel)
    if key not in known:
        known[key] = tuple(_reasons(model, tp, expert_parallel))
    found: tuple[Reason, ...] = known[key]
    return found


def _reasons(model: ModelSpec, tp: int, expert_parallel: bool) -> Iterator[Reason]:
    hint = advice(model, tp)
    for reason in _indivisible(model, tp, expert_parallel):
        yield replace(reason, hint=hint)


def advice(model: ModelSpec, tp: int) -> str:
    """The next valid size and its idle cards, and what takes all of them."""
    smaller = next((n for n in range(tp - 1, 1, -1) if valid(model, n)), 1)
    others = f"pipeline parallel or replicas take all {tp}"
    if smaller == 1:
        return f"no smaller TP is valid; {others}"
    idle = tp - smaller
    left = f"leaves {idle} card{'s' if idle > 1 else ''} of {tp} idle"
    return f"TP={smaller} is the next valid size and {left}; {others}"


def valid(model: ModelSpec, tp: int, expert_parallel: bool = False) -> bool:
    """True when everything divides at this size."""
    return not sharding(model, tp, expert_parallel)


def experts_dealt(model: ModelSpec, tp: int, wished: bool | None) -> bool | None:
    """Whether experts are dealt whole at this size; None where no way is valid.

    They are where dividing each of them would break the groups of its quantization.
    """
    known = memo(model)
    key = ("experts-dealt", tp, wished)
    if key not in known:
        mixture = (model.num_experts or 0) >= tp
        ways = [
            way for way in ((False, True) if wished is None else (wished,)) if mixture or not way
        ]
        known[key] = next((way for way in ways if valid(model, tp, way)), None)
    found: bool | None = known[key]
    return found


def _indivisible(model: ModelSpec, tp: int, expert_parallel: bool) -> Iterator[Reason]:
    """Everything that does not divide, without advice."""
    yield from _heads(model, tp)
    yield from _widths(model, tp, expert_parallel)
    yield from _groups(model, tp, expert_parallel)


def _heads(model: ModelSpec, tp: int) -> Iterator[Reason]:
    """Query heads divide; KV heads divide, or are replicated evenly."""
    if model.num_attention_heads % tp:
        found = f"{model.num_attention_heads} attention heads over TP={tp}"
        yield Reason("attention-heads", found, f"a multiple of {tp}")
    for kv in sorted({layer.num_key_value_heads for layer in model.layers} - {0}):
        if kv % tp if kv >= tp else tp % kv:
            found = f"{kv} KV heads over TP={tp}"
            yield Reason("kv-heads", found, f"a multiple or a divisor of {tp}")


def _widths(model: ModelSpec, tp: int, expert_parallel: bool) -> Iterator[Reason]:
    """Hidden size, feed-forward sizes and the padded vocabulary divide."""
    needed, dense = f"a multiple of {tp}", _dense(model)
    experts = _experts(model, expert_parallel)
    if dense is not None and dense % tp:
        yield Reason("ffn-size", f"intermediate_size {dense} over TP={tp}", needed)
    if experts is not None and experts % tp:
        yield Reason("expert-size", f"moe_intermediate_size {experts} over TP={tp}", needed)
    if model.hidden_size % tp:
        yield Reason("hidden-size", f"hidden_size {model.hidden_size} over TP={tp}", needed)
    padded = ceil(model.vocab_size / VOCAB_PADDING) * VOCAB_PADDING
    if padded % tp:
        yield Reason("vocab-size", f"padded vocab_size {padded} over TP={tp}", needed)


def _dense(model: ModelSpec) -> int | None:
    """Width of dense feed-forwards; Mixtral and gpt-oss have none and name their experts' so."""
    if model.num_experts and model.intermediate_size == model.moe_intermediate_size:
        return None
    return model.intermediate_size


def _experts(model: ModelSpec, expert_parallel: bool) -> int | None:
    """Width of an expert where it is divided among ranks and must come out even."""
    return None if expert_parallel or padded_experts(model) else model.moe_intermediate_size


def padded_experts(model: ModelSpec) -> bool:
    """True where the runtime deals whole blocks of experts to ranks and pads the rest (gpt-oss)."""
    return model.quantization == "mxfp4" and model.num_experts is not None


def _groups(model: ModelSpec, tp: int, expert_parallel: bool) -> Iterator[Reason]:
    """Each rank's share of a quantized matrix is whole groups, blocks and tiles."""
    scheme = model.quantization
    if scheme is None:
        return
    experts = _experts(model, expert_parallel)
    width = experts or (None if model.num_experts else model.intermediate_size)
    inputs, outputs = _tiles(scheme, model.group_size, experts is not None)
    query, kv = _attention(model, tp)
    for what, size, tile in (
        ("expert columns" if experts else "feed-forward columns", width, max(inputs, outputs)),
        ("attention columns", query, inputs),
        ("KV columns", kv, outputs if scheme == "fp8" else 1),
    ):
        if size is not None and size % tp == 0 and (size // tp) % tile:
            found = f"{scheme}: {size // tp} of {size} {what} per rank at TP={tp}"
            yield Reason("quantization-groups", found, f"a multiple of {tile}")


def _attention(model: ModelSpec, tp: int) -> tuple[int | None, int | None]:
    """Columns of all query heads and of all KV heads (replicated ones counted).

    None where heads are not of one width (MLA, hybrids, Gemma 4).
    """
    shapes = {(layer.num_key_value_heads, layer.head_dim) for layer in model.layers}
    if len(shapes) != 1 or any(layer.kind not in ("full", "sliding") for layer in model.layers):
        return None, None
    (kv, width), *_ = shapes
    return model.num_attention_heads * width, max(kv, tp) * width


def _tiles(scheme: str, group_size: int | None, experts: bool) -> tuple[int, int]:
    """(inputs, outputs) of a matrix that a rank holds must be multiples of these."""
    group = group_size if group_size and group_size > 0 else 1
    if scheme.startswith("w4a8"):
        return (W4A8_EXPERTS if experts else max(FP8_BLOCK, group)), MARLIN_OUTPUTS
    if scheme in MARLIN:
        return max(MARLIN_INPUTS, group), MARLIN_OUTPUTS
    if scheme == "fp8" and group > 1:
        return group, group
    return (group, 1) if scheme in ("nvfp4", "mxfp4") else (1, 1)
