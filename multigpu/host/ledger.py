"""What root did for services beyond restarting them, and how much of it is left for today.

`/var/lib/multigpu/ledger.json`, root's and readable by everybody, replaced as a whole; the file
before it stays beside it. A ledger that cannot be read counts as spent, never as empty: whoever
tears it must not win a reboot.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Dict, List, Optional, Tuple

SCHEMA = 1
BEGUN, DONE, FAILED, INTERRUPTED, REFUSED = "begun", "done", "failed", "interrupted", "refused"
KILL_ORPHANS, TORN = "kill_orphans", "ledger_torn"
HOUR_S, DAY_S = 3600.0, 86400.0
LARGEST_BYTES = 4_000_000
MOST_OF_A_KIND = 50
"""Far above what any budget counts."""
BOOT_ID = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True)
class Budget:
    """So many within so many seconds, on one host."""

    most: int
    window_s: float


BUDGETS = {
    KILL_ORPHANS: Budget(3, HOUR_S),
    "gpu_reset": Budget(2, DAY_S),
    "reboot": Budget(1, DAY_S),
}


@dataclass(frozen=True)
class Clock:
    """Now: Unix seconds, the boot, and seconds since it, which no change of the date moves."""

    at: float
    boot: str
    uptime_s: float

    @staticmethod
    def now() -> "Clock":
        """This host's."""
        try:
            with open(BOOT_ID, encoding="ascii") as file:
                boot = file.read().strip()
        except OSError:
            boot = ""
        return Clock(time.time(), boot, time.clock_gettime(time.CLOCK_BOOTTIME))


@dataclass(frozen=True)
class Entry:
    """One request and what came of it. `what` was done or refused, `asked` is what was asked for;
    `units` were stopped for it."""

    id: str
    service: str
    what: str
    outcome: str
    at: float
    boot: str
    uptime_s: float
    asked: str = ""
    reason: str = ""
    text: str = ""
    gpus: Tuple[str, ...] = ()
    units: Tuple[str, ...] = ()

    def age_s(self, now: Clock) -> float:
        """Seconds since; a date before the entry's counts as no time at all."""
        if self.boot and self.boot == now.boot:
            return max(0.0, now.uptime_s - self.uptime_s)
        return max(0.0, now.at - self.at)


@dataclass(frozen=True)
class Ledger:
    """Entries, oldest first, and how often each outcome came about in all: action -> outcome."""

    entries: Tuple[Entry, ...] = ()
    totals: Dict[str, Dict[str, int]] = field(default_factory=dict)

    def left(self, what: str, now: Clock) -> int:
        """How many of this kind may still be done now. Raises KeyError for what has no budget."""
        budget = BUDGETS[what]
        recent = [e for e in self.entries if e.age_s(now) < budget.window_s]
        if any(e.what == TORN for e in recent):
            return 0
        done = sum(e.what == what and e.outcome != REFUSED for e in recent)
        return max(0, budget.most - done)

    def failed_lately(self, what: str, gpu: str, now: Clock) -> bool:
        """True when this was tried on the card in the budget's window, and did not help."""
        return any(
            e.what == what
            and gpu in e.gpus
            and e.outcome in (FAILED, INTERRUPTED)
            and e.age_s(now) < BUDGETS[what].window_s
            for e in self.entries
        )

    def seen(self, service: str, id: str) -> bool:
        """True when this request was answered before."""
        return any((e.service, e.id) == (service, id) for e in self.entries)

    def added(self, entry: Entry) -> "Ledger":
        """With one more entry; old ones that no budget needs any more are dropped."""
        return Ledger(_bounded((*self.entries, entry)), _counted(self.totals, entry))

    def ended(self, entry: Entry, outcome: str, text: str = "") -> "Ledger":
        """With the outcome of an entry that was begun."""
        ended = replace(entry, outcome=outcome, text=text or entry.text)
        entries = tuple(ended if e == entry else e for e in self.entries)
        return Ledger(entries, _counted(self.totals, ended))


def _counted(totals: Dict[str, Dict[str, int]], entry: Entry) -> Dict[str, Dict[str, int]]:
    """Counters: what has only begun is counted when it has ended."""
    if entry.outcome == BEGUN:
        return totals
    row = dict(totals.get(entry.what, {}))
    row[entry.outcome] = row.get(entry.outcome, 0) + 1
    return {**totals, entry.what: row}


def _bounded(entries: Tuple[Entry, ...]) -> Tuple[Entry, ...]:
    """The newest of each kind, so that many of one never push out those that a budget counts."""
    kinds: Dict[Tuple[str, bool], List[int]] = {}
    for number, entry in enumerate(entries):
        kinds.setdefault((entry.what, entry.outcome == REFUSED), []).append(number)
    kept = {number for numbers in kinds.values() for number in numbers[-MOST_OF_A_KIND:]}
    return tuple(entry for number, entry in enumerate(entries) if number in kept)


def text(ledger: Ledger) -> str:
    """As JSON."""
    content = {"schema": SCHEMA, "totals": ledger.totals}
    entries = [asdict(entry) for entry in ledger.entries]
    return json.dumps({**content, "entries": entries}, indent=1) + "\n"


def parsed(content: bytes) -> Optional[Ledger]:
    """What `text` wrote; None when it is anything else, also in part."""
    try:
        found = json.loads(content)
        if found["schema"] != SCHEMA:
            return None
        entries = tuple(_entry(row) for row in found["entries"])
        totals = {
            str(what): {str(o): int(n) for o, n in row.items()}
            for what, row in found["totals"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return Ledger(entries, totals)


def _entry(row: Any) -> Entry:
    names = ("id", "service", "what", "outcome", "boot", "asked", "reason", "text")
    values: Dict[str, Any] = {name: str(row[name]) for name in names}
    values.update({name: tuple(str(item) for item in row[name]) for name in ("gpus", "units")})
    return Entry(at=float(row["at"]), uptime_s=float(row["uptime_s"]), **values)


def read(path: str, now: Clock) -> Ledger:
    """The ledger; the one before it where it is torn; a spent one where both are.

    A host without any has done nothing yet.
    """
    torn = False
    for place in (path, before(path)):
        try:
            with open(place, "rb") as file:
                found = parsed(file.read(LARGEST_BYTES))
        except FileNotFoundError:
            continue
        except OSError:
            found = None
        if found is not None:
            # The one before may lack the last entry, so it is no licence either.
            return found.added(_torn(now)) if torn else found
        torn = True
    return Ledger().added(_torn(now)) if torn else Ledger()


def _torn(now: Clock) -> Entry:
    why = "the ledger could not be read: for a day nothing is left of any budget"
    return Entry("", "", TORN, DONE, now.at, now.boot, now.uptime_s, text=why)


def before(path: str) -> str:
    """Where the ledger lies that the last one replaced."""
    return f"{path}.previous"


def write(path: str, ledger: Ledger) -> None:
    """Replace the ledger; the one that is there stays as the one before. Raises OSError."""
    directory, temporary = os.path.dirname(path), f"{path}.new"
    with open(temporary, "w", encoding="ascii") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(text(ledger))
        file.flush()
        os.fsync(file.fileno())
    _keep(path)
    os.replace(temporary, path)
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _keep(path: str) -> None:
    """A second name for what is there, without a moment in which the first one is missing."""
    link = f"{before(path)}.new"
    try:
        if os.path.exists(link):
            os.unlink(link)
        os.link(path, link)
        os.replace(link, before(path))
    except FileNotFoundError:
        pass
