"""Reader of kernel logs: Xid and SXid, PCIe errors, lost cards, memory exhaustion, crashes.

The text may come from dmesg (any --time-format), journalctl (any short form), /dev/kmsg, a syslog
file, or out of a bug report where lines are quoted.
"""

from __future__ import annotations

from dataclasses import replace

from multigpu.hardware import KernelEvent
from multigpu.parse.kernel import kernel_events
from multigpu.parse.kernel.kernel_events import (
    AER_DETAIL,
    GPU_AT,
    OFF_THE_BUS_1,
    OFF_THE_BUS_2,
    OFF_THE_BUS_3,
    SXID,
    XID,
)
from multigpu.parse.kernel.kernel_lines import INTERESTING, KMSG, STAMPED, Line, split
from multigpu.parse.pci import address
from multigpu.parse.reading import Kind, Lines, Reading


def read_kernel(text: str) -> Reading[tuple[KernelEvent, ...]]:
    """Events in the order of their first line.

    Lines of one event are those of the same kind, address, code and second; where lines have no
    time, only lines that follow each other.
    """
    lines = Lines(text)
    log = _Log()
    for index, line in lines:
        if INTERESTING.search(line) and log.add(split(line)):
            lines.mark(index)
    return lines.reading(log.finished())


class _Log:
    """Events found so far, by what makes lines one event."""

    def __init__(self) -> None:
        self.events: dict[object, KernelEvent] = {}
        self.uuids: dict[str, str] = {}
        # Card and first line of a message that runs over three; the other two may lack a prefix.
        self.pending: tuple[str | None, Line | None] = (None, None)
        self.last: object = None
        self.serial = 0

    def add(self, line: Line) -> bool:
        """Take one line in; False when it says nothing of interest."""
        if (match := GPU_AT.search(line.text)) and (where := address(match[1])):
            self.uuids[where] = match[2]
            return True
        if (event := kernel_events.event(line)) is not None:
            self._put(line, replace(event, time=line.time))
            return True
        return self._continues(line)

    def _continues(self, line: Line) -> bool:
        """Lines that mean something only after another one."""
        if match := OFF_THE_BUS_1.search(line.text):
            self.pending = (address(match[1]), line)
        if match := OFF_THE_BUS_3.search(line.text):
            card, first = self.pending
            stamped = line if line.time or first is None else first
            self._put(stamped, KernelEvent("off-the-bus", card, text=match[1], time=stamped.time))
            self.pending = (None, None)
            return True
        if match := AER_DETAIL.search(line.text):
            said = match[2].strip()
            self._put(line, KernelEvent("aer", address(match[1]), text=said, time=line.time))
            return True
        return bool(OFF_THE_BUS_1.search(line.text) or OFF_THE_BUS_2.search(line.text))

    def _put(self, line: Line, event: KernelEvent) -> None:
        key = self._key(line, event)
        known = self.events.get(key)
        self.events[key] = event if known is None else _merged(known, event)
        self.last = key

    def _key(self, line: Line, event: KernelEvent) -> object:
        same: tuple[object, ...] = (event.kind, event.address, event.code)
        if event.kind in ("oom", "segfault"):
            same = (event.kind, event.pid)
        if event.kind == "off-the-bus":
            xid = (("xid", event.address, 79), line.second)
            if line.second is not None and xid in self.events:
                return xid
        if line.second is not None:
            return same, line.second
        if isinstance(self.last, tuple) and self.last[0] == same and len(self.last) == 3:
            return self.last
        self.serial += 1
        return same, None, self.serial

    def finished(self) -> tuple[KernelEvent, ...]:
        """The events, each with the uuid that the log gives to its card."""
        return tuple(
            replace(event, uuid=self.uuids.get(event.address or ""))
            for event in self.events.values()
        )


def _merged(known: KernelEvent, more: KernelEvent) -> KernelEvent:
    """Two lines of one event; the line that says whether it is fatal gives the text."""
    better = known.fatal is None and more.fatal is not None
    return replace(
        known,
        text=more.text if better else known.text or more.text,
        pid=known.pid if known.pid is not None else more.pid,
        process=known.process or more.process,
        fatal=known.fatal if more.fatal is None else bool(known.fatal or more.fatal),
        lines=known.lines + 1,
    )


# Sentences that nvidia-smi prints in place of its output; they make no kernel log.
OF_NVIDIA_SMI = frozenset({"device-handle", "no-answer", "api-mismatch"})


def _recognise(text: str) -> float:
    """Sure with an Xid; less with nothing but the stamps of a kernel log."""
    head = text[:200_000]
    if "Xid (" in head and (XID.search(head) or SXID.search(head)):
        return 0.97
    head = head[:60_000]
    log = _Log()
    found = {log.add(split(line)) for line in head.split("\n") if INTERESTING.search(line)}
    if True in found and any(event.kind not in OF_NVIDIA_SMI for event in log.finished()):
        return 0.92
    stamped = len(STAMPED.findall(head))
    if KMSG.search(head) or stamped > 2:
        return 0.85
    return 0.5 if stamped else 0.3 if log.events else 0.0


KINDS = (Kind("kernel-log", "kernel log", _recognise, read_kernel, "journalctl -k"),)
