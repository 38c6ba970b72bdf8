"""One option of a runtime's command line, as the runtime's own parser describes it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Flag:
    """`arity` is how many words follow: 0, 1, "?" (0 or 1), "+" (1 or more) or "*" (any).

    `kind` is int, float or None where any word is accepted; `choices` None where they are open.
    """

    spellings: tuple[str, ...]
    arity: int | str = 0
    kind: str | None = None
    choices: tuple[str, ...] | None = None
