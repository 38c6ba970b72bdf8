"""Values derived from one frozen object, computed once and kept with it.

Planning asks the same of a host or a model thousands of times. A dictionary in the object's own
`__dict__` lives exactly as long as the object; it is no field, so equality, hashing, `replace` and
`asdict` do not see it. Long tuples need not be hashed to find it, as `lru_cache` would.
"""

from __future__ import annotations

from typing import Any


def memo(owner: object) -> dict[Any, Any]:
    """The dictionary of `owner`, a frozen dataclass; only what follows from `owner` goes in."""
    try:
        found: dict[Any, Any] = owner.__dict__["_memo"]
    except KeyError:
        found = owner.__dict__["_memo"] = {}
    return found
