"""Counts what the kernel says of GPUs, for services that may not read its log.

    multigpu-host.pyz kernel-log

Follows /dev/kmsg (Linux, Documentation/ABI/testing/dev-kmsg: one record a read, `level,sequence,
microseconds,flags;text`) and writes OUTPUT, whole or not at all, when something was counted and
every BEAT_S. Counts are those since the boot: after a restart of this program they go on where the
file ends, since /run outlives it and not the boot.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import re
import select
import stat
import sys
import tempfile
import time
from typing import Any, Dict, List, NamedTuple, Optional

from multigpu.host.kernel_words import Event, event

SCHEMA = 1
SOURCE, OUTPUT = "/dev/kmsg", "/run/multigpu/xid.json"
SOURCE_VARIABLE = "MULTIGPU_KERNEL_LOG"
"""Another source than the kernel, for hosts whose cards are simulated."""
BEAT_S = 30.0
PAUSE_S = 0.5
TOGETHER_S = 0.2
"""Lines of one moment are written once: at a start the whole log is read again."""
OLD_S = 120.0
"""A file that was not renewed for so long: nobody counts any more."""
RECORD_BYTES = 8192
"""A shorter buffer than a record is refused with EINVAL."""
PREFIX = re.compile(r"(\d+),(\d+),(\d+),[^;]*;")
MOST_CARDS, MOST_KINDS, MOST_EVENTS, LONGEST_TEXT = 64, 256, 200, 300


class Record(NamedTuple):
    """A line of the log; `uptime_s` is what CLOCK_MONOTONIC said then, None where not told."""

    sequence: Optional[int]
    uptime_s: Optional[float]
    text: str


def records(raw: bytes) -> List[Record]:
    """What one read of the source gave: a record with its continuation lines, or plain lines."""
    lines = raw.decode("utf-8", "replace").split("\n")
    found = []
    for line in lines:
        match = PREFIX.match(line)
        if match:
            rest = line[match.end() :]
            found.append(Record(int(match[2]), int(match[3]) / 1e6, rest))
        elif line and not line.startswith(" "):  # " KEY=value" belongs to the record before
            found.append(Record(None, None, line))
    return found


class Counts:
    """The document that is written, and where the log was read to."""

    def __init__(self, before: Optional[Dict[str, Any]] = None) -> None:
        before = before or {}
        self.gpus: Dict[str, Dict[str, Dict[str, Any]]] = before.get("gpus", {})
        self.lost_records: int = before.get("lost_records", 0)
        self.sequence: int = before.get("sequence", -1)
        self.events: List[Dict[str, Any]] = before.get("events", [])
        self.error: Optional[str] = None

    def take(self, record: Record) -> Optional[Event]:
        """Count one record; those up to `sequence` were counted before."""
        if record.sequence is not None:
            if record.sequence <= self.sequence:
                return None
            self.sequence = record.sequence
        found = event(record.text)
        if found is not None:
            self._add(found, record.uptime_s)
        return found

    def _add(self, found: Event, uptime_s: Optional[float]) -> None:
        up_s = time.monotonic() if uptime_s is None else uptime_s
        at = round(time.time() - time.monotonic() + up_s, 3)
        who = {"at": at, "uptime_s": round(up_s, 3), "pci": found.pci_address, "uuid": None}
        said = {"xid": found.xid, "event": found.event, "text": found.text[:LONGEST_TEXT]}
        self.events = [*self.events, {**who, **said}][-MOST_EVENTS:]
        self._count(found, at, up_s)

    def _count(self, found: Event, at: float, up_s: float) -> None:
        if found.pci_address not in self.gpus and len(self.gpus) >= MOST_CARDS:
            return
        card = self.gpus.setdefault(found.pci_address, {"xid": {}, "events": {}})
        kinds = card["events"] if found.xid is None else card["xid"]
        kind = str(found.event if found.xid is None else found.xid)
        if kind not in kinds and len(kinds) >= MOST_KINDS:
            return
        kinds[kind] = {
            "count": kinds.get(kind, {"count": 0})["count"] + 1,
            "last_at": at,
            "last_uptime_s": round(up_s, 3),
            "text": found.text[:LONGEST_TEXT],
        }

    def document(self) -> Dict[str, Any]:
        """As JSON; times are Unix seconds and seconds since the boot. `events` are the newest."""
        return {
            "schema": SCHEMA,
            "written_at": round(time.time(), 3),
            "written_uptime_s": round(time.monotonic(), 3),
            "sequence": self.sequence,
            "lost_records": self.lost_records,
            "error": self.error,
            "gpus": self.gpus,
            "events": self.events,
        }


def read_counts(path: str = OUTPUT) -> Dict[str, Any]:
    """The document. Raises OSError, or ValueError when it is old, torn or says an error."""
    with open(path, "rb") as file:
        found = json.loads(file.read())
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ValueError(f"{path} has another shape")
    if found["error"] is not None:
        raise ValueError(found["error"])
    age_s = time.monotonic() - found["written_uptime_s"]
    if age_s > OLD_S:
        raise ValueError(f"{path} is {age_s:.0f} s old: see multigpu-kernel-log.service")
    return found


def write(path: str, document: Dict[str, Any]) -> None:
    """Complete under its final name, readable by all. Raises OSError."""
    directory = os.path.dirname(path)
    descriptor, temporary = tempfile.mkstemp(prefix=".xid-", dir=directory)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            json.dump(document, file)
            os.fchmod(file.fileno(), 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


class Log:
    """The kernel's log, or what stands for it: a FIFO or a file."""

    def __init__(self, path: str) -> None:
        # A FIFO is opened for writing too: with no writer a read would say "end" all the time.
        fifo = stat.S_ISFIFO(os.stat(path).st_mode)
        self.descriptor = os.open(path, (os.O_RDWR if fifo else os.O_RDONLY) | os.O_NONBLOCK)
        self.is_polled = not stat.S_ISREG(os.fstat(self.descriptor).st_mode)
        self._rest = b""

    def read(self, wait_s: float) -> Optional[List[Record]]:
        """What came within `wait_s`; None when records were overwritten before they were read."""
        if self.is_polled:
            select.select([self.descriptor], [], [], wait_s)
        try:
            raw = os.read(self.descriptor, RECORD_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            if error.errno == errno.EPIPE:
                return None
            raise
        if not raw:
            time.sleep(min(PAUSE_S, wait_s))
        whole, newline, self._rest = (self._rest + raw).rpartition(b"\n")
        return records(whole) if newline else []


def follow(log: Log, counts: Counts, output: str, beat_s: float) -> None:
    """Count and write for ever."""
    written_at, changed = -beat_s, False
    while True:
        age_s = time.monotonic() - written_at
        if age_s >= (TOGETHER_S if changed else beat_s):
            _try_to_write(output, counts)
            written_at, changed, age_s = time.monotonic(), False, 0.0
        found = log.read(TOGETHER_S if changed else beat_s - age_s)
        if found is None:
            counts.lost_records += 1
            continue
        for record in found:
            seen = counts.take(record)
            if seen is not None:
                changed = True
                print(f"multigpu: {seen.pci_address} {seen.xid or seen.event}: {seen.text}")


def _try_to_write(output: str, counts: Counts) -> None:
    """A full /run is told and tried again; counting goes on."""
    try:
        write(output, counts.document())
    except OSError as error:
        print(f"multigpu: {output}: {error.strerror}", file=sys.stderr, flush=True)


def _before(path: str) -> Optional[Dict[str, Any]]:
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("schema") == SCHEMA else None


def main(arguments: Optional[List[str]] = None) -> int:
    """Follow until killed; a log that cannot be read is tried again, and the file says so."""
    parser = argparse.ArgumentParser(prog="multigpu kernel-log", description=__doc__)
    parser.add_argument("--source", default=os.environ.get(SOURCE_VARIABLE, SOURCE))
    parser.add_argument("--output", default=OUTPUT)
    parser.add_argument("--beat-s", type=float, default=BEAT_S)
    options = parser.parse_args(arguments)
    counts = Counts(_before(options.output))
    while True:
        try:
            log = Log(options.source)
            counts.error = None
            follow(log, counts, options.output, options.beat_s)
        except OSError as error:
            said = f"{options.source}: {error.strerror}"
            if counts.error is None:
                print(f"multigpu: {said}", file=sys.stderr, flush=True)
            counts.error = said
            _try_to_write(options.output, counts)
        time.sleep(options.beat_s)
