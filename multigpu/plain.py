"""Plans as plain values (mappings, lists, text, numbers) and back, for files.

Values at their default are left out; MiB are rounded to a tenth, which is more than any prediction
knows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
from cattrs.preconf.json import make_converter

from multigpu.plan import LayerCache, Memory, ModelSpec, Plan

_ORDER = ("chosen", "reasons", "warnings", "environment", "gpu_uuids", "rejected", "wish", "model")


def to_plain(plan: Plan) -> dict[str, Any]:
    """The plan with what a person reads first at the beginning."""
    # By way of JSON, so that enumerations and tuples become what a file gives back.
    value = json.loads(json.dumps(_converter.unstructure(plan)))
    return {key: value[key] for key in sorted(value, key=_rank)}


def to_plan(value: Mapping[str, Any]) -> Plan:
    """The plan again. Raises ValueError when the values are not those of a plan."""
    try:
        return _converter.structure(value, Plan)
    except (cattrs.BaseValidationError, KeyError, TypeError, AttributeError):
        raise ValueError("these are not the values of a plan") from None


def _rank(key: str) -> int:
    return _ORDER.index(key) if key in _ORDER else -1


def _mib(value: float) -> float:
    return round(float(value), 1)


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


_converter = make_converter(omit_if_default=True)
_converter.register_unstructure_hook(
    ModelSpec,
    make_dict_unstructure_fn(
        ModelSpec,
        _converter,
        _cattrs_omit_if_default=True,
        layers=override(unstruct_hook=_run_length),
        layers_mib=override(unstruct_hook=_run_length_mib),
        embedding_mib=override(unstruct_hook=_mib),
        output_mib=override(unstruct_hook=_mib),
        vision_mib=override(unstruct_hook=_mib),
        draft_mib=override(unstruct_hook=_mib),
        experts_mib=override(unstruct_hook=_run_length_mib, omit_if_default=True),
        replicated_mib=override(unstruct_hook=_run_length_mib, omit_if_default=True),
    ),
)
_converter.register_structure_hook(
    ModelSpec,
    make_dict_structure_fn(
        ModelSpec,
        _converter,
        layers=override(struct_hook=_expand_cache),
        layers_mib=override(struct_hook=_expand_mib),
        experts_mib=override(struct_hook=_expand_mib),
        replicated_mib=override(struct_hook=_expand_mib),
    ),
)
_converter.register_unstructure_hook(
    Memory,
    make_dict_unstructure_fn(
        Memory,
        _converter,
        weights_mib=override(unstruct_hook=_mib),
        kv_cache_mib=override(unstruct_hook=_mib),
        activations_mib=override(unstruct_hook=_mib),
        overhead_mib=override(unstruct_hook=_mib),
        capacity_mib=override(unstruct_hook=_mib),
        graphs_mib=override(unstruct_hook=_mib),
        other_mib=override(unstruct_hook=_mib),
    ),
)
