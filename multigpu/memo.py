"""Values derived from one frozen object, computed once and kept with it.

Planning asks the same of a host or a model thousands of times. A dictionary in the object's own
`__dict__` lives exactly as long as the object; it is no field, so equality, hashing, `replace` and
`asdict` do not see it. Long tuples need not be hashed to find it, as `lru_cache` would.
"""

from __future__ import annotations

from typing import Any, TypeVar

Frozen = TypeVar("Frozen")


def memo(owner: object) -> dict[Any, Any]:
    """The dictionary of `owner`, a frozen dataclass; only what follows from `owner` goes in."""
    try:
        found: dict[Any, Any] = owner.__dict__["_memo"]
    except KeyError:
        found = owner.__dict__["_memo"] = {}
    return found


def changed(owner: Frozen, **changes: object) -> Frozen:
    """`dataclasses.replace` of a frozen dataclass without `__post_init__` and slots, much faster.

    `replace` calls `__init__`, which sets each of the twenty fields of a candidate by
    `object.__setattr__`; here the fields are copied at once. Raises TypeError for an unknown field.
    """
    fields = owner.__dict__
    own = fields.copy()
    own.update(changes)
    if len(own) > len(fields):
        raise TypeError(f"{type(owner).__name__} has no {sorted(changes.keys() - fields.keys())}")
    own.pop("_memo", None)
    made = object.__new__(type(owner))
    object.__setattr__(made, "__dict__", own)
    return made
