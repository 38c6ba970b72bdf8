"""Links of a card: lanes and generation of PCIe, NVLinks, the fabric of NVSwitch machines."""

from __future__ import annotations

from collections.abc import Iterator

from multigpu.cautions.caution import (
    Caution,
    Severity,
    alike,
    are,
    indices,
    is_guest,
    is_virtualized,
    names,
    on_baseboard,
)
from multigpu.hardware import Gpu, Host, Limit, PcieLink

CURES = {
    Limit.SLOT: "the slot is wired with fewer lanes: move the card to a wider one, look for a "
    "BIOS setting that splits the slot (bifurcation), or plan a layer split or replicas",
    Limit.RISER: "the slot could carry all lanes: reseat the card, try without riser, look for an "
    "M.2 slot or a bifurcation setting that takes lanes",
    Limit.BRIDGE: "a PCIe switch further up is narrower: cards below it still reach each other at "
    "full width; move the switch to a wider slot for the way to the host",
    Limit.CHIPSET: "move the card to a slot on CPU lanes, or plan a layer split or replicas",
}
UNKNOWN_CURE = "use a slot with more lanes, or plan a layer split or replicas"
KINDS = {
    Limit.SLOT: " (slot)",
    Limit.RISER: " (trained down)",
    Limit.BRIDGE: " (switch further up)",
    Limit.CHIPSET: " (chipset slot)",
}


def limit(link: PcieLink) -> Limit | None:
    """What limits the lanes: the reader's word, else what the narrowest hop tells."""
    if link.limited_by is not None:
        return link.limited_by
    if link.behind_chipset:
        return Limit.CHIPSET
    if link.limited_at_width_max is None or link.width_max is None:
        return None
    return Limit.RISER if link.limited_at_width_max >= link.width_max else Limit.SLOT


def lanes(link: PcieLink) -> int | None:
    """Lanes on the whole way to the processor; None when not seen."""
    known = [width for width in (link.width_current, link.width_path) if width is not None]
    return min(known, default=None)


def _lanes(host: Host) -> Iterator[Caution]:
    """Fewer lanes than the card has; in a guest the ports are emulated and nothing is said."""
    if is_guest(host):
        return
    for (width, width_max, cause), gpus in alike(host.usable, _narrow).items():
        hops = dict.fromkeys(g.pcie.limited_at for g in gpus if g.pcie.limited_at)
        at = f", limited at {', '.join(hops)}{KINDS[cause] if cause else ''}" if hops else ""
        cards = indices(gpus)
        yield Caution(
            "narrow-link",
            f"{names(cards)} {are(cards, 'runs', 'run')} on {width} of {width_max} lanes{at}",
            _lanes_cost(width, width_max),
            CURES[cause] if cause else UNKNOWN_CURE,
            needed=f"{width_max} lanes up to the processor",
            gpus=cards,
        )


def _narrow(gpu: Gpu) -> tuple[int, int, Limit | None] | None:
    width, width_max = lanes(gpu.pcie), gpu.pcie.width_max
    if width is None or width_max is None or width >= width_max:
        return None
    return width, width_max, limit(gpu.pcie)


def _lanes_cost(width: int, width_max: int) -> str:
    if width * 2 >= width_max:
        return "some prefill speed under tensor parallel; nothing measurable for a layer split"
    return (
        "prefill under tensor parallel, and the time to load a model; nothing measurable for a "
        "layer split"
    )


def _generation(host: Host) -> Iterator[Caution]:
    """A slower PCIe generation than the card's own or its twin's; never by the idle speed."""
    if is_guest(host):
        return
    best: dict[str | None, int] = {}
    for gpu in host.usable:
        best[gpu.name] = max(best.get(gpu.name, 0), gpu.pcie.gen_max or 0)
    found = alike(host.usable, lambda gpu: _capped(gpu.pcie, best[gpu.name] if gpu.name else 0))
    for (reached, own), gpus in found.items():
        cards = indices(gpus)
        twins = any((g.pcie.gen_gpu_max or 0) < own for g in gpus)
        yield Caution(
            "pcie-generation",
            f"{names(cards)} {are(cards, 'reaches', 'reach')} PCIe {reached}.0 at most, "
            f"{'a card of the same name' if twins else f'the {_s(cards)}'} {own}.0",
            "half of the bandwidth a generation: prefill under tensor parallel and loading",
            "set the slot's link speed to Auto in the BIOS; a riser or board of the older "
            "generation keeps it",
            gpus=cards,
        )


def _s(cards: tuple[int, ...]) -> str:
    return "card itself" if len(cards) == 1 else "cards themselves"


def _capped(link: PcieLink, twins: int) -> tuple[int, int] | None:
    """(generation reached, generation of the card's own or of its fastest twin) when less."""
    own = max(link.gen_gpu_max or 0, twins)  # a BIOS setting can shrink the card's own LnkCap
    if link.gen_max is None or link.gen_max >= own:
        return None
    return link.gen_max, own


# --- NVLink -----------------------------------------------------------------------------------


def _nvlinks(host: Host) -> Iterator[Caution]:
    """Some links of a card are down, or a card has fewer than its twins."""
    most: dict[str | None, int] = {}
    for gpu in host.usable:
        most[gpu.name] = max(most.get(gpu.name, 0), _up(gpu) or 0)
    found = alike(host.usable, lambda gpu: _missing(gpu, most[gpu.name]))
    for (active, expected), gpus in found.items():
        cards = indices(gpus)
        yield Caution(
            "nvlink-inactive",
            f"{names(cards)} {are(cards, 'has', 'have')} {active} of {expected} NVLinks up",
            "bandwidth between the cards; with none up, traffic goes over PCIe",
            "look for SXid and Xid lines in `journalctl -k`, `systemctl restart "
            "nvidia-fabricmanager` while no job runs, else reboot; a link that stays down is a "
            "matter for the vendor"
            if all(map(on_baseboard, gpus))
            else "reseat the bridge (or all of them: some cards take three)",
            needed=f"{expected} links, as the card has or its twins show",
            gpus=cards,
        )


def _missing(gpu: Gpu, most: int) -> tuple[int, int] | None:
    """(links up, links expected) where some are down, `most` being the best twin's count.

    A bridge card without a bridge has none up, which is no fault.
    """
    up = _up(gpu)
    if up is None or (up == 0 and not on_baseboard(gpu)):
        return None
    expected = max(len(gpu.nvlinks_gb_s) if up else 0, most)
    return None if up >= expected else (up, expected)


def _up(gpu: Gpu) -> int | None:
    if not gpu.nvlinks_gb_s:
        return None
    return sum(rate is not None for rate in gpu.nvlinks_gb_s)


def _fabric(host: Host) -> Iterator[Caution]:
    """NVSwitch machines: until the fabric manager has set up a card, CUDA fails on it."""
    for state, gpus in alike(host.gpus, _unfinished).items():
        cards = indices(gpus)
        yield Caution(
            "fabric-manager",
            f"the NVLink fabric of {names(cards)} is not set up: {state}",
            "CUDA refuses to start on the cards (error 802, system not yet initialized)",
            "`systemctl status nvidia-fabricmanager`; its version must be the driver's"
            + (f", {host.driver}" if host.driver else ""),
            needed="fabric state Completed",
            gpus=cards,
            severity=Severity.BROKEN if not is_virtualized(host) else Severity.DANGER,
        )


def _unfinished(gpu: Gpu) -> str | None:
    state = (gpu.fabric_state or "").strip()
    done = {"", "n/a", "completed", "complete", "not supported", "not_supported"}
    return None if state.lower() in done else state


RULES = (_fabric, _lanes, _generation, _nvlinks)
