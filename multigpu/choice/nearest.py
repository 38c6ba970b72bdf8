"""Of the ways that were refused, the one that comes nearest to holding."""

from __future__ import annotations

from collections.abc import Sequence

from multigpu.plan import Rejected

ASIDE = {"model-format", "pinned"}
"""Rules of runtimes that cannot read the format at all, and of what pins rule out."""


def nearest(rejected: Sequence[Rejected]) -> Rejected:
    """The way that fell to the fewest rules, of several the one that nearly fits.

    `rejected` holds at least one.
    """

    def distance(item: Rejected) -> tuple[int, float]:
        shares = (m.total_mib / max(m.capacity_mib, 1.0) for m in item.candidate.memory)
        return len(item.reasons), max(shares, default=0.0)

    kept = [r for r in rejected if not any(reason.rule in ASIDE for reason in r.reasons)]
    return min(kept or rejected, key=distance)
