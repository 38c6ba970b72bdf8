"""Which reaction a request gets: values in, a decision out.

The ladder is NVIDIA's own (NVML field 230, GPU recovery action): a reset where a reset is asked
for, a reboot where only that helps or where the reset is not allowed, spent or failed, and after
that a fence. What a request says of itself decides nothing but that somebody asks; the cards of a
service come from root's file, their need from NVML and the kernel, the rest from the ledger.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Dict, FrozenSet, Iterable, Optional, Tuple

from multigpu.host.ledger import Clock, Entry, Ledger
from multigpu.host.requests import FENCE, GPU_RESET, REBOOT, Refused, Request

SCHEMA = 1
LADDER = (GPU_RESET, REBOOT)
LATE_S, EARLY_S = 600.0, 60.0
"""A request is answered within seconds; an older one is a copy, or the clock has jumped."""


@dataclass(frozen=True)
class ServiceTruth:
    """What root knows of a service: its account, its units with the cards that each uses, its
    cards (UUID, or PCI address of an AMD card) with their PCI address, None where not known."""

    user: str
    units: Dict[str, Tuple[str, ...]] = field(default_factory=dict)
    gpus: Dict[str, Optional[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Truth:
    """/etc/multigpu/reactions.json: what the operator allows, and whose the cards are."""

    allow: FrozenSet[str] = frozenset()
    services: Dict[str, ServiceTruth] = field(default_factory=dict)

    def units_of(self, gpus: Iterable[str]) -> Tuple[str, ...]:
        """The units, of whatever service, that use one of these cards."""
        wanted = set(gpus)
        return tuple(
            unit
            for service in self.services.values()
            for unit, cards in service.units.items()
            if wanted & set(cards)
        )


@dataclass(frozen=True)
class Need:
    """What NVML or the kernel says that a card needs: GPU_RESET or REBOOT, and its words.

    `host` is true where NVML asks for the host as a whole.
    """

    what: str
    text: str
    host: bool = False


@dataclass(frozen=True)
class Decision:
    """What to do, None to do nothing; `text` says why. A fence of the host keeps all down."""

    what: Optional[str]
    text: str
    gpus: Tuple[str, ...] = ()
    host: bool = False


def read_truth(content: bytes) -> Truth:
    """Root's file. Raises ValueError when it is none: without it nothing is done."""
    try:
        found = json.loads(content)
        if found["schema"] != SCHEMA:
            raise ValueError(f"schema {found['schema']!r}, this release reads {SCHEMA}")
        services = {str(name): _service(row) for name, row in found["services"].items()}
        return Truth(frozenset(w for w in found["allow"] if w in LADDER), services)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not as it should be: {error!r}") from None


def _service(row: Dict[str, Any]) -> ServiceTruth:
    units = {str(unit): tuple(str(c) for c in cards) for unit, cards in row["units"].items()}
    cards = {str(gpu): None if pci is None else str(pci) for gpu, pci in row["gpus"].items()}
    return ServiceTruth(str(row["user"]), units, cards)


def admit(request: Request, service: str, truth: Truth, ledger: Ledger, now: Clock) -> None:
    """Raises Refused for what is seen without asking the cards."""
    if service not in truth.services:
        raise Refused("no service of this host")
    foreign = [gpu for gpu in request.gpus if gpu not in truth.services[service].gpus]
    if foreign:
        raise Refused(f"{', '.join(foreign)} is no card of {service}'s plan")
    if not -EARLY_S <= now.at - request.at <= LATE_S:
        raise Refused(f"asked {now.at - request.at:.0f} s ago, {LATE_S:.0f} s at most")
    if ledger.seen(service, request.id):
        raise Refused("answered before")


def decide(
    request: Request,
    service: str,
    truth: Truth,
    needs: Dict[str, Need],
    ledger: Ledger,
    now: Clock,
) -> Decision:
    """The first step of the ladder that helps, is allowed, and is left; else a fence.

    `needs` are those of the service's own cards. Raises Refused where there is no need.
    """
    cards = request.gpus or tuple(truth.services[service].gpus)
    needy = {gpu: needs[gpu] for gpu in cards if gpu in needs}
    if request.what == FENCE:
        return Decision(FENCE, f"{service} asks to be kept down", cards)
    if not needy:
        raise Refused(
            f"neither NVML nor the kernel log states that {', '.join(cards) or 'a card'} needs it"
        )
    return _step(service, truth, needy, ledger, now)


def _step(
    service: str, truth: Truth, needy: Dict[str, Need], ledger: Ledger, now: Clock
) -> Decision:
    said = "; ".join(need.text for need in needy.values())
    worst = max((need.what for need in needy.values()), key=LADDER.index)
    passed = []
    for what in LADDER[LADDER.index(worst) :]:
        why = _why_not(what, tuple(needy), truth, ledger, now)
        if why is None:
            return Decision(what, said, tuple(needy))
        passed.append(why)
    host = any(need.host for need in needy.values())
    return Decision(FENCE, f"{said}; {'; '.join(passed)}", tuple(needy), host)


def _why_not(
    what: str, gpus: Tuple[str, ...], truth: Truth, ledger: Ledger, now: Clock
) -> Optional[str]:
    if what not in truth.allow:
        return f"{what} is not allowed here"
    if not ledger.left(what, now):
        return f"no {what} is left for today"
    if what == GPU_RESET and any(ledger.failed_lately(what, gpu, now) for gpu in gpus):
        return f"{what} was tried and did not help"
    return None


def entry(request: Request, service: str, what: str, outcome: str, now: Clock, text: str) -> Entry:
    """The ledger's record of an answer."""
    return Entry(
        id=request.id,
        service=service,
        what=what,
        outcome=outcome,
        at=now.at,
        boot=now.boot,
        uptime_s=now.uptime_s,
        asked=request.what,
        reason=request.why,
        text=text,
        gpus=request.gpus,
    )
