"""Root's answer to requests of services: validate, look, spend, act, write down.

    multigpu-host.pyz react

Runs as multigpu-react.service at boot and whenever a request lies in a service's directory. What is
about to be done is in the ledger before it is done, so that a reboot in between costs a budget and
never gives one. Each answer is one line in the journal.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pwd
import sys
import time
from dataclasses import dataclass, replace
from typing import Callable, Dict, List, Optional, Tuple

from multigpu.host import ledger as ledgers
from multigpu.host import reactions, reactions_files, reactions_need, reactions_shell
from multigpu.host.gpu_facts import XID_FILE
from multigpu.host.ledger import (
    BEGUN,
    DONE,
    FAILED,
    INTERRUPTED,
    KILL_ORPHANS,
    REFUSED,
    Clock,
    Entry,
    Ledger,
)
from multigpu.host.reactions import Decision, Truth
from multigpu.host.reactions_files import Letter
from multigpu.host.reactions_need import Seen
from multigpu.host.requests import FENCE, FLAG, GPU_RESET, REBOOT, Refused, Request, parsed

HOME, TRUTH = "/var/lib/multigpu", "/etc/multigpu/reactions.json"
LOCK = ".react.lock"
REBOOT_S = 900.0
"""Services that drain hold a reboot up for minutes."""
Look = Callable[[Dict[str, Optional[str]], Ledger, Clock], Seen]


@dataclass
class React:
    """One run over all services. `look` asks the cards, `clock` says when it is."""

    home: str
    truth: Truth
    look: Look
    clock: Callable[[], Clock] = Clock.now

    def __post_init__(self) -> None:
        self.path = os.path.join(self.home, "ledger.json")
        self.ledger = ledgers.read(self.path, self.clock())

    # --- what was begun and not ended --------------------------------------------------------

    def resume(self) -> None:
        """A reboot has happened when this is another boot; a reset that was cut short starts what
        it had stopped."""
        boot = self.clock().boot
        for entry in [e for e in self.ledger.entries if e.outcome == BEGUN]:
            if entry.what == REBOOT:
                self._resume_reboot(entry)
                continue
            self._end(entry, INTERRUPTED, "")
            if entry.boot == boot:
                reactions_shell.start(entry.units)

    def _resume_reboot(self, entry: Entry) -> None:
        now = self.clock()
        if entry.boot != now.boot:
            self._end(entry, DONE, "")
        elif entry.age_s(now) > REBOOT_S:
            self._end(entry, FAILED, f"the host still runs after {entry.age_s(now):.0f} s")

    # --- requests ----------------------------------------------------------------------------

    def answer_all(self) -> None:
        """Every request of every service that root knows."""
        for service, known in self.truth.services.items():
            try:
                uid = pwd.getpwnam(known.user).pw_uid
            except KeyError:
                continue
            for letter in reactions_files.take(self.home, service, uid):
                self.answer(service, letter)

    def answer(self, service: str, letter: Letter) -> None:
        """One file: a decision, or a refusal on record."""
        now = self.clock()
        request = Request(letter.name[:70], "", (), "", now.at)
        try:
            if letter.refused is not None:
                raise Refused(letter.refused)
            request = parsed(letter.name, letter.content, service)
            reactions.admit(request, service, self.truth, self.ledger, now)
            self._not_fenced(service)
            decision = self._decided(request, service, now)
        except Refused as error:
            self._refuse(request, service, str(error))
            return
        self.act(request, service, decision)

    def _not_fenced(self, service: str) -> None:
        for name, whose in ((None, "the host"), (service, service)):
            if reactions_files.read_fence(self.home, name) is not None:
                raise Refused(f"{whose} is fenced: a person is to look (deploys/unfence.py)")
        if any(e.what == REBOOT and e.outcome == BEGUN for e in self.ledger.entries):
            raise Refused("the host is about to reboot")

    def _decided(self, request: Request, service: str, now: Clock) -> Decision:
        seen = self.look(self.truth.services[service].gpus, self.ledger, now)
        try:
            return reactions.decide(request, service, self.truth, seen.needs, self.ledger, now)
        except Refused as error:
            raise Refused(f"{error}; {seen.silent}" if seen.silent else str(error)) from None

    # --- acting ------------------------------------------------------------------------------

    def act(self, request: Request, service: str, decision: Decision) -> None:
        """Do what was decided; a reset that does not help leads to the next step."""
        if decision.what == GPU_RESET:
            self._reset(request, service, decision)
        elif decision.what == REBOOT:
            entry = self._begin(request, service, decision)
            failed = reactions_shell.reboot()
            if failed is not None:
                self._end(entry, FAILED, failed)
                self._fence(request, service, replace(decision, text=failed))
        else:
            self._fence(request, service, decision)

    def _fence(self, request: Request, service: str, decision: Decision) -> None:
        """Nothing is stopped: what still works goes on, and what ends does not start again."""
        entry = self._begin(request, service, replace(decision, what=FENCE))
        try:
            whose = None if decision.host else service
            reactions_files.write_fence(self.home, whose, request.why, decision.text, self.clock())
        except OSError as error:
            self._end(entry, FAILED, f"the fence could not be written: {error}")
            return
        self._end(entry, DONE, "")

    def _reset(self, request: Request, service: str, decision: Decision) -> None:
        own = self.truth.services[service].units
        using = self.truth.units_of(decision.gpus)
        units = (
            *reactions_shell.running(using),
            # The asker may have used up its starts; what a person stopped stays stopped.
            *reactions_shell.running((u for u in using if u in own), (reactions_shell.FAILED,)),
            *reactions_shell.running(reactions_shell.HOLDERS),
        )
        entry = self._begin(request, service, decision, units)
        try:
            failed = self._do_reset(request, service, decision, units)
            self._end(entry, DONE if failed is None else FAILED, failed or "")
            if failed is not None:
                self._next_step(request, service)
        finally:  # also where the disk is full
            reactions_shell.start(units)

    def _do_reset(
        self, request: Request, service: str, decision: Decision, units: Tuple[str, ...]
    ) -> Optional[str]:
        """Stop, empty, reset, look again; returns what went wrong."""
        failed = reactions_shell.stop(units) or self._empty(request, service, decision)
        for gpu in decision.gpus:
            failed = failed or reactions_shell.reset(gpu)
        if failed is not None:
            return failed
        cards = {gpu: None for gpu in decision.gpus}  # the kernel log tells what was before
        left = self.look(dict(cards), self.ledger, self.clock()).needs
        return None if not left else "; ".join(need.text for need in left.values())

    def _empty(self, request: Request, service: str, decision: Decision) -> Optional[str]:
        """Kill what services of ours left on the cards; somebody else's process is never killed."""
        cards = self.truth.services[service].gpus
        pids = self.look(cards, self.ledger, self.clock()).pids
        there = reactions_shell.owners(p for gpu in decision.gpus for p in pids.get(gpu, ()))
        ours = self._uids()
        foreign = [pid for pid, uid in there.items() if uid not in ours]
        if foreign:
            return f"process {foreign[0]} of uid {there[foreign[0]]} holds a card: stop it"
        if not there:
            return None
        if not self.ledger.left(KILL_ORPHANS, self.clock()):
            return f"orphans {sorted(there)} hold a card, and no {KILL_ORPHANS} is left"
        why = Decision(KILL_ORPHANS, f"processes {sorted(there)} were left", decision.gpus)
        entry = self._begin(request, service, why)
        left = reactions_shell.kill(there)
        self._end(entry, FAILED if left else DONE, f"{left} cannot be killed" if left else "")
        return f"processes {left} cannot be killed" if left else None

    def _uids(self) -> Dict[int, str]:
        found = {}
        for name, each in self.truth.services.items():
            try:
                found[pwd.getpwnam(each.user).pw_uid] = name
            except KeyError:
                continue
        return found

    def _next_step(self, request: Request, service: str) -> None:
        try:
            decision = self._decided(request, service, self.clock())
        except Refused as error:  # the card is well again, whatever the command said
            say(f"{service}: nothing more is done: {error}")
            return
        if decision.what != GPU_RESET:
            self.act(request, service, decision)

    # --- what is written down ----------------------------------------------------------------

    def _refuse(self, request: Request, service: str, why: str) -> None:
        say(f"refused {request.what or 'a request'} of {service} ({request.id}): {why}")
        what = request.what or "unknown"
        refused = reactions.entry(request, service, what, REFUSED, self.clock(), why)
        self._write(self.ledger.added(refused))

    def _begin(
        self, request: Request, service: str, decision: Decision, units: Tuple[str, ...] = ()
    ) -> Entry:
        """On disk before it is done. Raises OSError: without a record nothing is done."""
        what = decision.what or ""
        made = reactions.entry(request, service, what, BEGUN, self.clock(), decision.text)
        entry = replace(made, gpus=decision.gpus, units=units)
        self._write(self.ledger.added(entry))
        say(f"{what} for {service} ({request.why}, {request.id}): {decision.text}")
        return entry

    def _end(self, entry: Entry, outcome: str, text: str) -> None:
        self._write(self.ledger.ended(entry, outcome, text))
        say(f"{entry.what} for {entry.service}: {outcome}{f', {text}' if text else ''}")

    def _write(self, ledger: Ledger) -> None:
        ledgers.write(self.path, ledger)
        self.ledger = ledger


def say(line: str) -> None:
    """One line of the journal."""
    print(f"multigpu: react: {line}", flush=True)


def read_truth(path: str) -> Truth:
    """Root's file. Raises OSError without one, ValueError where others could have written it."""
    with open(path, "rb") as file:
        found = os.fstat(file.fileno())
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise ValueError("it is not root's alone to write")
        return reactions.read_truth(file.read(1_000_000))


def main(arguments: List[str]) -> int:
    """`react`: 0 when every request was answered, 1 when root's own files do not allow it."""
    parser = argparse.ArgumentParser(prog="multigpu react", description=__doc__)
    parser.add_argument("--home", default=HOME)
    parser.add_argument("--truth", default=TRUTH)
    parser.add_argument("--flag", default=FLAG)
    parser.add_argument("--xid", default=XID_FILE)
    parser.add_argument("--pause-s", type=float, default=10, help="after nothing could be done")
    options = parser.parse_args(arguments)
    try:
        truth = read_truth(options.truth)
        # In a directory that only root writes: who may open a lock may hold it.
        lock = os.open(
            os.path.join(options.home, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        fcntl.flock(lock, fcntl.LOCK_EX)
        open(options.flag, "w").close()
        react = React(options.home, truth, looks(options.xid))
        react.resume()
        react.answer_all()
    except (OSError, ValueError) as error:
        print(f"multigpu: react: nothing is done: {error}", file=sys.stderr, flush=True)
        # What lies there calls us again at once; a journal full of one line helps nobody.
        time.sleep(options.pause_s)
        return 1
    return 0


def looks(xid_file: str) -> Look:
    """The real cards."""
    return lambda cards, ledger, now: reactions_need.look(cards, ledger, now, xid_file)
