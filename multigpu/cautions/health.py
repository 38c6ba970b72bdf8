"""Is a card well? Cards that do not answer, errors of memory, kernel messages, throttling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from multigpu.cautions.caution import (
    Caution,
    Severity,
    alike,
    amd_names,
    are,
    indices,
    listed,
    names,
    on_baseboard,
)
from multigpu.cautions.kernel import affected, is_loss, of_card, when
from multigpu.hardware import Gpu, Host, Vendor
from multigpu.parse.pci.cards import PCI_ONLY

OFF_THE_BUS = (
    "power cables, another slot, no riser; a card that falls off again under load is short of "
    "power or broken"
)


def _lost(host: Host) -> Iterator[Caution]:
    """Cards that fell off the bus, by the kernel's word; they may answer again after a reboot."""
    losses = [event for event in host.kernel_events if is_loss(event)]
    if not losses:
        return
    gpus, elsewhere = affected(host, losses)
    who = [names(gpus)] if gpus else []
    who += [f"the card at {address}" for address in elsewhere]
    gone = any(host.gpu(index).error is not None for index in gpus) or bool(elsewhere)
    last = losses[-1]
    at = f" ({when(last)})" if last.time else ""
    yield Caution(
        "gpu-lost",
        f"{' and '.join(who) or 'a card'} fell off the PCIe bus{at}{_quoted(last.text)}",
        "it is gone until a reboot; a service that spans it stops"
        if gone
        else "it can happen again, and a service that spans it stops",
        f"{'reboot; then ' if gone else ''}{OFF_THE_BUS}",
        needed="no such message since the boot",
        gpus=gpus,
        severity=Severity.BROKEN,
    )


def _quoted(text: str | None) -> str:
    return f': "{text.strip()[:100]}"' if text and text.strip() else ""


def _unusable(host: Host) -> Iterator[Caution]:
    """Cards with an error, one warning per error."""
    for error, gpus in alike(host.gpus, _error).items():
        if error.startswith(PCI_ONLY) or (host.problems and error.startswith(SAID_BY_PROBLEMS)):
            continue
        yield Caution(
            "gpu-unusable",
            f"{names(indices(gpus))} cannot be used: {error}",
            "the planner counts on the other cards only" if host.usable else "no card is left",
            _cure(gpus[0], host),
            needed="a card that answers the driver",
            gpus=indices(gpus),
            severity=Severity.BROKEN,
        )


ASKED = "the driver asks for"
# What a sentence of the reader says of all cards at once.
SAID_BY_PROBLEMS = ("the driver does not answer", "no kernel driver holds it")


def _pci_only(host: Host) -> Iterator[Caution]:
    """Cards of a folder of outputs in which nothing but PCI speaks of them."""
    for error, gpus in alike(host.gpus, lambda gpu: gpu.error).items():
        if error.startswith(PCI_ONLY):
            cards = indices(gpus)
            nvidia = gpus[0].vendor is Vendor.NVIDIA
            yield Caution(
                "pci-only",
                f"{names(cards)} {are(cards)} {error}",
                f"VRAM and health are unknown: no plan counts on {are(cards, 'it', 'them')}",
                f"add the output of `{'nvidia-smi -q -x' if nvidia else 'amd-smi static --json'}`",
                needed="what the driver says of the card",
                gpus=cards,
                severity=Severity.LIMIT,
            )


def _error(gpu: Gpu) -> str | None:
    """What keeps the card out; a recovery that is asked for has a caution of its own."""
    return None if (gpu.error or "").startswith(ASKED) and _action(gpu) else gpu.error


def _cure(gpu: Gpu, host: Host) -> str | None:
    if "take it again" in (gpu.error or ""):
        return None
    if gpu.vendor is not Vendor.NVIDIA:
        return f"look for amdgpu lines of {gpu.pci_bus_id or 'this card'} in `journalctl -k`"
    if "nouveau" in (gpu.error or ""):
        return (
            "install the distribution's NVIDIA driver package, which keeps nouveau from loading; "
            "reboot"
        )
    if "bound to" in (gpu.error or ""):
        return "leave it to its guest, or bind it to nvidia again (driverctl unset-override)"
    if (gpu.error or "").startswith(ASKED):
        return _recovery_steps(gpu.error or "", (gpu.index,))
    if of_card(host, gpu):
        return "reboot; its kernel messages are among the findings here"
    lost = "the vendor's service" if on_baseboard(gpu) else "power cables, riser, another slot"
    return (
        f"look for Xid lines of {gpu.pci_bus_id or 'this card'} in `journalctl -k`; reboot; when "
        f"it comes back lost: {lost}"
    )


def _recovery(host: Host) -> Iterator[Caution]:
    """NVML's own word on what a card needs (GPU recovery action, driver 570 and newer)."""
    for action, gpus in alike(host.gpus, _action).items():
        cards = indices(gpus)
        yield Caution(
            "recovery-action",
            f"the driver asks for a recovery of {names(cards)}: {action}",
            "until then work on it fails or hangs",
            _recovery_steps(action, cards),
            needed="recovery action None",
            gpus=cards,
            severity=Severity.BROKEN,
        )


def _action(gpu: Gpu) -> str | None:
    action = (gpu.recovery_action or "").strip()
    return action if action.lower() not in {"", "none", "n/a"} else None


def _recovery_steps(action: str, cards: Sequence[int]) -> str:
    said = action.lower()
    reset = f"`nvidia-smi --gpu-reset -i {listed(cards)}`"
    if "reboot" in said:
        return "stop the services and reboot the host"
    if "drain" in said and "reset" not in said:
        return f"stop what uses P2P with it, let the rest end, then {reset}"
    return f"stop every process on it (`fuser -v /dev/nvidia*`), then {reset}; else reboot"


def _ecc(host: Host) -> Iterator[Caution]:
    found = [gpu for gpu in host.gpus if (gpu.ecc_uncorrected or 0) > 0]
    for vendor, bad in alike(found, lambda gpu: gpu.vendor).items():
        counts = ", ".join(f"{gpu.index}: {gpu.ecc_uncorrected}" for gpu in bad)
        yield Caution(
            "ecc-uncorrected",
            f"uncorrectable memory errors since the driver was loaded on {names(indices(bad))} "
            f"({counts})",
            "the process that met them was stopped, or its data is wrong",
            f"`nvidia-smi --gpu-reset -i {listed(indices(bad))}`; when they come back, "
            "`dcgmi diag -r 3` and replace the card"
            if vendor is Vendor.NVIDIA
            else f"`amd-smi reset --gpureset --gpu {amd_names(bad)}`; when they come back, replace "
            "the card",
            needed="0",
            gpus=indices(bad),
            severity=Severity.DANGER,
        )


def _remapping(host: Host) -> Iterator[Caution]:
    failed = [g.index for g in host.gpus if g.remapped_rows and g.remapped_rows.failure]
    if failed:
        yield Caution(
            "row-remap-failure",
            f"{names(failed)} could not replace bad rows of memory",
            "errors in these rows go on: wrong data or stopped processes",
            "take it out of service and have it replaced (a reason for RMA)",
            needed="every bad row replaced",
            gpus=tuple(failed),
            severity=Severity.DANGER,
        )
    pending = [g.index for g in host.gpus if g.remapped_rows and g.remapped_rows.pending]
    if pending:
        yield Caution(
            "row-remap-pending",
            f"{names(pending)} {are(pending, 'has', 'have')} bad rows of memory that wait for a "
            "reset to be replaced",
            "the rows are in use until then",
            f"at the next stop: `nvidia-smi --gpu-reset -i {listed(pending)}`",
            needed="no row that waits",
            gpus=tuple(pending),
            severity=Severity.DANGER,
        )


def _retirement(host: Host) -> Iterator[Caution]:
    """What remapped rows are on cards before Ampere."""
    pending = [gpu.index for gpu in host.gpus if gpu.retired_pages_pending]
    if pending:
        yield Caution(
            "retired-pages-pending",
            f"{names(pending)} {are(pending, 'has', 'have')} bad pages of memory that wait for a "
            "reset to be taken out",
            "the pages are in use until then",
            f"at the next stop: `nvidia-smi --gpu-reset -i {listed(pending)}`",
            needed="no page that waits",
            gpus=tuple(pending),
            severity=Severity.DANGER,
        )


def _throttling(host: Host) -> Iterator[Caution]:
    """Slowdowns in force at the moment of the survey; idle clocks and the power cap are none."""
    for cause, gpus in alike(host.gpus, _cause).items():
        cards = indices(gpus)
        heat = ", ".join(f"{g.temperature_c} C" for g in gpus if g.temperature_c is not None)
        yield Caution(
            "throttling",
            f"{names(cards)} {are(cards)} slowed down now: {cause}{heat and f' ({heat})'}",
            "decode and prefill; a split model waits for its slowest card",
            THROTTLE_CURES[cause],
            needed="clocks that nothing holds down",
            gpus=cards,
        )


THROTTLE_CURES = {
    "power brake": "the board or the power supply pulls the brake: check supply and cables",
    "heat": "air: fans, dust, spacing between the cards; a lower power limit costs less",
    "hardware slowdown": "heat or power supply; `nvidia-smi -q -d PERFORMANCE` names the reason",
}


def _cause(gpu: Gpu) -> str | None:
    """The gravest reason among those that are active, in any release's spelling."""
    words = " ".join(gpu.throttle_reasons).lower().replace("_", "").replace(" ", "")
    if "powerbrake" in words:
        return "power brake"
    if "thermal" in words:
        return "heat"
    return "hardware slowdown" if "hwslowdown" in words or "hardwareslow" in words else None


RULES = (_lost, _unusable, _pci_only, _recovery, _ecc, _remapping, _retirement, _throttling)
