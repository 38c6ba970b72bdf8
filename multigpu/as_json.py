"""Values of ours as plain JSON values: mappings, lists, text, numbers, true, false, null."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any


def as_json(value: object) -> Any:
    """Dataclasses by their fields, enumerations by their words; a key that is a pair is `0-1`.

    Infinity and NaN are no JSON: an impossible number is an unknown one.
    """
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {_key(key): as_json(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        return [as_json(entry) for entry in value]
    return value


def _key(key: object) -> str:
    return "-".join(map(str, key)) if isinstance(key, tuple) else str(as_json(key))
