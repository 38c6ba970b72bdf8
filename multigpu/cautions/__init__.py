"""What an operator should mind about a machine before planning on it.

Each rule is a function of the host that yields `Caution`s; they are shown by severity, and within
one severity in the order of `RULES`. Normal things are no caution: an idle link at generation 1,
half of the lanes in a guest, PHB on a board without a PCIe switch, vLLM's custom all-reduce off on
more than two PCIe cards, a display that is attached and shows nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from multigpu.cautions import cards, health, kernel, links, machine, mixture, peers, tenants
from multigpu.cautions.caution import TENANT_MIB, Caution, Severity
from multigpu.cautions.tenants import vram_in_use_mib
from multigpu.grants import MEANING
from multigpu.hardware import Host

__all__ = ["MEANING", "TENANT_MIB", "Caution", "Severity", "vram_in_use_mib", "warnings"]

RULES: tuple[Callable[[Host], Iterator[Caution]], ...] = (
    *machine.BROKEN,
    *health.RULES,
    *kernel.RULES,
    *links.RULES,
    *peers.RULES,
    *cards.RULES,
    *tenants.RULES,
    *mixture.RULES,
    *machine.RULES,
)
RANK = {severity: rank for rank, severity in enumerate(Severity)}


def warnings(host: Host) -> tuple[Caution, ...]:
    """Everything to mind about this host, the worst first; empty for a healthy one."""
    found = (caution for rule in RULES for caution in rule(host))
    return tuple(sorted(found, key=lambda caution: RANK[caution.severity]))
