"""The value of this room, its severities, and words that all rules share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from multigpu.hardware import Gpu, Host
from multigpu.parse.system import is_virtual_machine

# Less is a console or a driver context, not a tenant.
TENANT_MIB = 256


class Severity(StrEnum):
    """What a finding costs, the worst first; cautions are shown in this order.

    BROKEN: a card or the driver cannot be used. DANGER: answers may be wrong, or work may hang or
    die. SLOW: speed or memory is lost. LIMIT: some plans are ruled out. NOTE: good to know.
    """

    BROKEN = "broken"
    DANGER = "danger"
    SLOW = "slow"
    LIMIT = "limit"
    NOTE = "note"


@dataclass(frozen=True)
class Caution:
    """One thing to mind. `rule` is a stable kebab-case id; `gpus` the NVML indices it is about.

    `found` is what was seen, `needed` what was expected, `costs` what it costs, `do` what to do.
    """

    rule: str
    found: str
    costs: str | None = None
    do: str | None = None
    needed: str | None = None
    gpus: tuple[int, ...] = ()
    severity: Severity = Severity.SLOW


def names(indices: Iterable[int]) -> str:
    """`GPU 1`, `GPUs 0 and 1`, `GPUs 0, 1 and 2`, `GPUs 0-7`."""
    cards = tuple(indices)
    if len(cards) > 3 and cards == tuple(range(cards[0], cards[0] + len(cards))):
        return f"GPUs {cards[0]}-{cards[-1]}"
    words = [str(index) for index in cards]
    if len(words) == 1:
        return f"GPU {words[0]}"
    return f"GPUs {', '.join(words[:-1])} and {words[-1]}"


def are(indices: Iterable[int], one: str = "is", many: str = "are") -> str:
    """The verb for so many cards."""
    return one if len(tuple(indices)) == 1 else many


Key = TypeVar("Key", bound=Hashable)


def alike(gpus: Iterable[Gpu], key: Callable[[Gpu], Key | None]) -> dict[Key, tuple[Gpu, ...]]:
    """Cards by finding, in their order; cards whose key is None have none."""
    found: dict[Key, tuple[Gpu, ...]] = {}
    for gpu in gpus:
        value = key(gpu)
        if value is not None:
            found[value] = (*found.get(value, ()), gpu)
    return found


def indices(gpus: Iterable[Gpu]) -> tuple[int, ...]:
    """Their NVML indices."""
    return tuple(gpu.index for gpu in gpus)


def listed(cards: Iterable[int]) -> str:
    """`0,1`: as `nvidia-smi -i` takes them."""
    return ",".join(map(str, cards))


def amd_names(gpus: Iterable[Gpu]) -> str:
    """As `amd-smi --gpu` takes them: by address, since it counts no card of another vendor."""
    return " ".join(gpu.pci_bus_id or str(gpu.index) for gpu in gpus)


def is_bare(host: Host) -> bool:
    """True on a machine that says it is no guest and no container; unknown is False."""
    return host.virtualization == "none"


def is_virtualized(host: Host) -> bool:
    """True in a guest or a container."""
    return host.virtualization not in {None, "none"}


def is_guest(host: Host) -> bool:
    """True in a virtual machine, whose PCI ports are emulated; unknown counts as bare metal."""
    return is_virtual_machine(host.virtualization)


def on_baseboard(gpu: Gpu) -> bool:
    """SXM cards are wired to each other; PCIe cards only by a bridge that somebody fits."""
    return gpu.fabric_state is not None or "SXM" in (gpu.name or "")
