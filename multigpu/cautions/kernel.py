"""What the kernel log says of the cards: Xid, SXid, PCIe errors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from multigpu.cautions.caution import Caution, Severity, names
from multigpu.hardware import Gpu, Host, KernelEvent
from multigpu.xids import Reach, Remedy, xid

XID_OFF_THE_BUS = 79
# A few are corrected while links train; more mark a bad riser or slot. The log is rate-limited.
AER_MANY, AER_LOGGED = 100, 3


def is_loss(event: KernelEvent) -> bool:
    """True for a card that left the bus, with or without an Xid."""
    return event.kind in ("off-the-bus", "d3cold") or (
        event.kind == "xid" and event.code == XID_OFF_THE_BUS
    )


def affected(host: Host, events: Iterable[KernelEvent]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Cards that these events name, and addresses that no card of the host has."""
    known = {gpu.pci_bus_id: gpu.index for gpu in host.gpus if gpu.pci_bus_id}
    known |= {gpu.uuid: gpu.index for gpu in host.gpus if gpu.uuid}
    gpus: set[int] = set()
    elsewhere: list[str] = []
    for event in events:
        found = [known[name] for name in (event.address, event.uuid) if name in known]
        gpus.update(found[:1])
        if not found and event.address:
            elsewhere.append(event.address)
    return tuple(sorted(gpus)), tuple(dict.fromkeys(elsewhere))


def of_card(host: Host, gpu: Gpu) -> bool:
    """True when an Xid or a loss of this card is among the kernel's messages."""
    return gpu.pci_bus_id is not None and any(
        event.address == gpu.pci_bus_id and (event.kind == "xid" or is_loss(event))
        for event in host.kernel_events
    )


def _xids(host: Host) -> Iterator[Caution]:
    """Xid history, one caution per code; a loss has a caution of its own."""
    codes: dict[int | None, list[KernelEvent]] = {}
    for event in host.kernel_events:
        if event.kind == "xid" and not is_loss(event):
            codes.setdefault(event.code, []).append(event)
    for code, events in codes.items():
        gpus, on = _on(host, events)
        number = "without a number" if code is None else str(code)
        row = xid(code)
        yield Caution(
            "xid-history",
            f"Xid {number}{on}, {_times(events)}: {row.meaning if row else 'not in the catalogue'}"
            f"{_said(events[-1])}",
            XID_COSTS[row.reach] if row else "what ran on the card may have died or gone wrong",
            _remedy(row.remedy if row else None),
            needed="no Xid since the boot",
            gpus=gpus,
            severity=Severity.NOTE if row and row.reach in HARMLESS else Severity.DANGER,
        )


def _on(host: Host, events: list[KernelEvent]) -> tuple[tuple[int, ...], str]:
    """The cards, and ` on GPU 0 and the card at 0000:81:00.0`."""
    gpus, elsewhere = affected(host, events)
    where = [names(gpus)] if gpus else []
    where += [f"the card at {address}" for address in elsewhere]
    return gpus, f" on {' and '.join(where)}" if where else ""


XID_COSTS = {
    Reach.NOTHING: "nothing by itself",
    Reach.PROCESS: "the process that used the card then; no other work",
    Reach.GPU: "what ran on the card, and the card until it is reset",
    Reach.HOST: "what ran on the card, and the card until the restart",
}
HARMLESS = (Reach.NOTHING, Reach.PROCESS)


def _remedy(remedy: Remedy | None) -> str:
    """The catalogue's word; an Xid alone never asks to stop what makes progress."""
    lines = "look at the lines around it in `journalctl -k`"
    if remedy in (None, Remedy.NONE):
        return lines
    return f"if work on it fails: {remedy}; {lines}"


def _times(events: list[KernelEvent]) -> str:
    last = f", last {when(events[-1])}" if events[-1].time else ""
    return ("once" if len(events) == 1 else f"{len(events)} times") + last


def when(event: KernelEvent) -> str:
    """The time as printed; seconds since 1970 (`journalctl -o short-unix`) as UTC."""
    time = event.time or "?"
    if re.fullmatch(r"[0-9]{10}(\.[0-9]{1,9})?", time):
        return datetime.fromtimestamp(float(time), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return time


def _said(event: KernelEvent) -> str:
    """The driver's own text, of which the beginning says most."""
    text = " ".join((event.text or "").split())
    return f' ("{text[:100]}{"…" if len(text) > 100 else ""}")' if text else ""


def _sxids(host: Host) -> Iterator[Caution]:
    """Errors of NVSwitches."""
    codes: dict[tuple[int | None, bool], list[KernelEvent]] = {}
    for event in host.kernel_events:
        if event.kind == "sxid":
            codes.setdefault((event.code, event.fatal is True), []).append(event)
    for (code, fatal), events in codes.items():
        switches = ", ".join(dict.fromkeys(e.address for e in events if e.address))
        kind = "fatal " if fatal else ""
        at = f" of the NVSwitch {switches}" if switches else ""
        yield Caution(
            "nvswitch-sxid",
            f"{kind}SXid {'?' if code is None else code}{at}, {_times(events)}{_said(events[-1])}",
            "NVLink traffic through it stopped, and jobs that span cards hang or die"
            if fatal
            else "the switch corrected or contained it; a rising count announces worse",
            "stop the jobs, `systemctl restart nvidia-fabricmanager`, else reboot"
            if fatal
            else "watch the count; `nvidia-smi nvlink -e` shows the links' error counters",
            needed="no SXid since the boot",
            severity=Severity.BROKEN if fatal else Severity.NOTE,
        )


def _aer(host: Host) -> Iterator[Caution]:
    """Corrected PCIe errors on the way to a card: a riser, a slot, or a loose card."""
    logged = [event for event in host.kernel_events if event.kind in ("aer", "dpc")]
    for gpu in host.gpus:
        counts = {hop.address: hop.aer_correctable or 0 for hop in gpu.pcie.hops}
        if gpu.pci_bus_id:
            counts[gpu.pci_bus_id] = gpu.pcie.aer_correctable or 0
        many = {address: count for address, count in counts.items() if count >= AER_MANY}
        lines = [event for event in logged if event.address in counts]
        grave = any(event.fatal is not False for event in lines)
        logged_here = sum(event.lines for event in lines)
        if not many and not grave and logged_here < AER_LOGGED:
            continue
        found = [f"{count} at {address}" for address, count in many.items()]
        found += [f"{logged_here} in the kernel log"] if lines else []
        yield Caution(
            "aer-errors",
            f"PCIe errors on the way to GPU {gpu.index}: {', '.join(found)}",
            "packets are sent again: slower and jittery transfers; the link can drop lanes or the "
            "card",
            "reseat card and riser, try without the riser, or set the slot to a lower PCIe "
            "generation in the BIOS",
            needed="hardly any since the boot",
            gpus=(gpu.index,),
            severity=Severity.DANGER if any(e.fatal for e in lines) else Severity.SLOW,
        )


# Kind: what it was, what it costs, what to do.
OTHERS = {
    "init-failed": (
        "the driver could not start",
        "the card stays out until it starts",
        "reboot with the power off for a moment; then power cables, another slot, another driver",
    ),
    "device-handle": (
        "the driver has no handle",
        "tools that ask every card stop at it",
        "look for the Xid before it in `journalctl -k`, and reboot",
    ),
    "api-mismatch": (
        "kernel module and libraries of the driver differ in version",
        "every process with these libraries is refused",
        "reboot after a driver update; a container has to bring no libcuda of its own",
    ),
    "amdgpu-reset": (
        "amdgpu had to reset the card",
        "what ran on the card died",
        "look at the lines before it in `journalctl -k`; power cables and memory clocks first",
    ),
    "amdgpu-timeout": (
        "a job did not end and amdgpu gave up on it",
        "what ran on the card died or hangs",
        "look at the lines around it in `journalctl -k`; a newer kernel or ROCm often helps",
    ),
    "amdgpu-ras": (
        "the card reported memory errors (RAS)",
        "the process that met them was stopped, or its data is wrong",
        "`amd-smi metric --ecc` tells which; when they come back replace the card",
    ),
}


def _others(host: Host) -> Iterator[Caution]:
    """What the drivers report without a number, one caution per kind."""
    for kind, (what, costs, do) in OTHERS.items():
        events = [event for event in host.kernel_events if event.kind == kind]
        if events:
            gpus, on = _on(host, events)
            begun = [e for e in events if "reset begin" in (e.text or "")]  # of each reset, one
            yield Caution(
                "driver-error",
                f"{what}{on}, {_times(begun or events)}{_said(events[-1])}",
                costs,
                do,
                needed="no such message since the boot",
                gpus=gpus,
                severity=Severity.DANGER,
            )


RULES = (_xids, _others, _sxids, _aer)
