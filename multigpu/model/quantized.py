"""A checkpoint's quantization as a value: how each of its modules is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from multigpu.model.module_names import Names
from multigpu.model.stored_format import Stored

IGNORE_KEYS = ("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules", "exclude")


@dataclass(frozen=True)
class Quantization:
    """One checkpoint's quantization.

    `scheme` and `group_size` are those of the narrowest format. `rules` are tried in order: the
    first whose names match decides; None as a format means the model's own dtype. What no rule
    names has `default`. `experts_only` leaves everything but routed experts alone.
    """

    scheme: str
    group_size: int | None
    default: Stored | None
    ignored: Names = field(default_factory=lambda: Names(()))
    rules: tuple[tuple[Names, Stored | None], ...] = ()
    experts_only: bool = False
    experts: Stored | None = None
    kv_cache_dtype: str | None = None

    def named(self, module: str) -> Stored | None:
        """How a module outside of the blocks is stored, where a rule names it (lm_head)."""
        return next((found for names, found in self.rules if names.match(None, module)), None)

    def stored(self, layer: int | None, module: str, *, expert: bool = False) -> Stored | None:
        """How a module is stored, or None where it kept the model's dtype."""
        if self.ignored.match(layer, module):
            return None
        for names, found in self.rules:
            if names.match(layer, module):
                return found
        if expert and self.experts is not None:
            return self.experts
        return None if self.experts_only and not expert else self.default


def simple(q: Mapping[str, Any], default: Stored, **more: Any) -> Quantization:
    """All linear modules in one format but those that the lists name."""
    group = default.group_size or None
    ignored = Names(ignored_names(q))
    return Quantization(
        default.scheme, group, default, ignored=ignored, kv_cache_dtype=kv_cache_dtype(q), **more
    )


def ignored_names(q: Mapping[str, Any]) -> tuple[str, ...]:
    """Modules that kept the model's dtype, under all spellings of the key."""
    return tuple(item for key in IGNORE_KEYS for item in texts(q.get(key)))


def kv_cache_dtype(q: Mapping[str, Any]) -> str | None:
    """The type of the KV cache that the checkpoint was calibrated for."""
    algo = q.get("kv_cache_quant_algo") or q.get("kv_cache_scheme")
    if isinstance(algo, str):
        return {"FP8": "fp8", "NVFP4": "nvfp4", "INT8": "int8"}.get(algo.upper())
    if isinstance(algo, Mapping):
        return "fp8" if (algo.get("num_bits"), algo.get("type")) == (8, "float") else None
    return "fp8" if isinstance(q.get("kv_cache_quant_config"), Mapping) else None


def texts(value: object) -> list[str]:
    """The items of a list as texts; nothing of anything else."""
    return [str(item) for item in value] if isinstance(value, list) else []


def whole(value: object) -> int | None:
    """A whole number, None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None
