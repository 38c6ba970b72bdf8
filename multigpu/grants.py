"""What the driver says of peer access, pair by pair (`nvidia-smi topo -p2p`)."""

from __future__ import annotations

from collections.abc import Sequence

from multigpu.hardware import GpuPair, P2p

MEANING = {
    P2p.OK: "granted",
    P2p.CHIPSET_NOT_SUPPORTED: "chipset not supported",
    P2p.GPU_NOT_SUPPORTED: "GPU not supported",
    P2p.TOPOLOGY_NOT_SUPPORTED: "topology not supported",
    P2p.NOT_SUPPORTED: "not supported",
    P2p.DISABLED_BY_REGISTRY: "disabled by a driver registry key",
    P2p.UNKNOWN: "status unknown",
}


def granted(pair: GpuPair | None) -> bool | None:
    """True when the driver grants both directions that were seen, None when none was.

    U is what it says of a card that does not answer: nothing.
    """
    seen = () if pair is None else (pair.p2p_read, pair.p2p_write)
    known = [grant for grant in seen if grant not in (None, P2p.UNKNOWN)]
    return all(grant is P2p.OK for grant in known) if known else None


def named(pairs: Sequence[tuple[int, int]]) -> str:
    """`0-1, 2-3`; a count where there are more than four."""
    if len(pairs) > 4:
        return f"{len(pairs)} pairs"
    return ", ".join(f"{a}-{b}" for a, b in pairs)
