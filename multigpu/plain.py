"""Plans as plain values (mappings, lists, text, numbers) and back, for files.

Values at their default are left out. Equal neighbours share an entry: 64 layers, 8 cards filled
alike, and ways that were refused for the same reasons.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from itertools import groupby
from typing import Any

import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
from cattrs.preconf.json import make_converter

from multigpu.backend import Backend
from multigpu.plan import (
    Candidate,
    Estimate,
    LayerCache,
    Memory,
    ModelSpec,
    Plan,
    Reason,
    Rejected,
)
from multigpu.stored import stored

_ORDER = (
    "host",
    "simulated",
    "pinned",
    "chosen",
    "reasons",
    "warnings",
    "justification",
    "assumptions",
    "environment",
    "gpu_uuids",
    "gpu_names",
    "backend",
    "gpu_addresses",
    "workload",
    "rejected",
    "wish",
    "model",
)


def to_plain(plan: Plan) -> dict[str, Any]:
    """What is stored of the plan, with what a person reads first at the beginning."""
    # By way of JSON, so that enumerations and tuples become what a file gives back.
    value = json.loads(json.dumps(_converter.unstructure(stored(plan))))
    return {key: value[key] for key in sorted(value, key=_rank)}


def to_plan(value: Mapping[str, Any]) -> Plan:
    """The plan again. Raises ValueError when the values are not those of a plan."""
    try:
        return _with_backend(_converter.structure(value, Plan), value)
    except (cattrs.BaseValidationError, KeyError, TypeError, AttributeError, ValueError):
        raise ValueError("these are not the values of a plan") from None


def _with_backend(plan: Plan, value: Mapping[str, Any]) -> Plan:
    """Files written before plans had a backend tell ROCm by the variable that names its cards."""
    rocm = any(setting.name == "HIP_VISIBLE_DEVICES" for setting in plan.environment)
    unsaid = "backend" not in value and "HIP_VISIBLE_DEVICES" not in plan.wish.env
    return replace(plan, backend=Backend.HIP) if rocm and unsaid else plan


def _rank(key: str) -> int:
    return _ORDER.index(key) if key in _ORDER else -1


def _mib(value: float) -> float:
    return round(float(value), 1)


def _short(value: float) -> float:
    """1340 for 1340.0."""
    return int(value) if value == int(value) else value


# --- equal neighbours ----------------------------------------------------------------------------


def _run_length(values: Iterable[Any]) -> list[dict[str, Any]]:
    """64 equal layers become one entry with `count: 64`."""
    return [
        {"count": len(list(group)), "each": _converter.unstructure(value)}
        for value, group in groupby(values)
    ]


def _run_length_mib(values: Iterable[float]) -> list[dict[str, Any]]:
    return _run_length(map(_mib, values))


def _expand_cache(runs: Any, _: Any) -> tuple[LayerCache, ...]:
    each = [(run["count"], _converter.structure(run["each"], LayerCache)) for run in runs]
    return tuple(layer for count, layer in each for _ in range(count))


def _expand_mib(runs: Any, _: Any) -> tuple[float, ...]:
    return tuple(float(run["each"]) for run in runs for _ in range(run["count"]))


def _expand_names(runs: Any, _: Any) -> tuple[str | None, ...]:
    return tuple(run["each"] for run in runs for _ in range(run["count"]))


def _memory_rows(memories: Iterable[Memory]) -> list[dict[str, float]]:
    """A line a card, or for cards that are filled alike: whole MiB, the unit said by the key."""
    rows = []
    for memory, group in groupby(memories):
        row = {name: round(getattr(memory, f"{name}_mib")) for name in _TERMS}
        count = len(list(group))
        rows.append({"count": count} | {k: v for k, v in row.items() if v or k in _ALWAYS})
    return rows


_TERMS = tuple(field.name.removesuffix("_mib") for field in fields(Memory))
_ALWAYS = ("weights", "kv_cache", "activations", "overhead", "capacity")


def _memories(rows: Any, _: Any) -> tuple[Memory, ...]:
    return tuple(
        Memory(**{f"{key}_mib": float(value) for key, value in row.items() if key != "count"})
        for row in rows
        for _ in range(row["count"])
    )


def _rejections(rejected: Iterable[Rejected]) -> list[dict[str, Any]]:
    """Ways in a row that fell for the same reasons stand together."""
    return [
        {
            "reasons": _converter.unstructure(reasons),
            "candidates": [_converter.unstructure(item.candidate) for item in group],
        }
        for reasons, group in groupby(rejected, key=lambda item: item.reasons)
    ]


def _expand_rejections(groups: Any, _: Any) -> tuple[Rejected, ...]:
    return tuple(
        Rejected(_converter.structure(candidate, Candidate), reasons)
        for group in groups
        for reasons in [_converter.structure(group["reasons"], tuple[Reason, ...])]
        for candidate in group["candidates"]
    )


# --- the converter -------------------------------------------------------------------------------

_converter = make_converter(omit_if_default=True)
_converter.register_unstructure_hook(
    Estimate, lambda e: [_short(n) for n in (e.value, e.low, e.high)]
)
_converter.register_structure_hook(Estimate, lambda row, _: Estimate(*map(float, row)))


def _register(cls: type, **hooks: Any) -> None:
    """Hooks are `unstruct_hook` and `struct_hook` of a field, in this order."""
    out: dict[str, Any] = {
        k: override(unstruct_hook=h[0], omit_if_default=True) for k, h in hooks.items()
    }
    into: dict[str, Any] = {
        k: override(struct_hook=h[1]) for k, h in hooks.items() if h[1] is not None
    }
    written: Any = make_dict_unstructure_fn(cls, _converter, _cattrs_omit_if_default=True, **out)
    _converter.register_unstructure_hook(cls, written)
    _converter.register_structure_hook(cls, make_dict_structure_fn(cls, _converter, **into))


_MIB, _RUNS = (_mib, None), (_run_length_mib, _expand_mib)
_register(
    ModelSpec,
    layers=(_run_length, _expand_cache),
    layers_mib=_RUNS,
    experts_mib=_RUNS,
    replicated_mib=_RUNS,
    embedding_mib=_MIB,
    output_mib=_MIB,
    vision_mib=_MIB,
    draft_mib=_MIB,
)
_register(Candidate, memory=(_memory_rows, _memories))
_register(
    Plan,
    rejected=(_rejections, _expand_rejections),
    gpu_names=(_run_length, _expand_names),
)
