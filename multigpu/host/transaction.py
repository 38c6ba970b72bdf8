"""From one generation of a host's services to another as one transaction, or back.

    transact stage FILE        keep the generation in FILE, after systemd-analyze and haproxy -c
    transact apply             swap, start, wait for ready, check the newest; on failure go back
    transact commit            the generation in place was verified: it is what is returned to
    transact return REASON     verification failed: go back to the one before
    transact rollback          a person wants the one before
    transact recover [--boot]  complete the return of a transaction that was cut short

Root's, as the transient unit multigpu-transaction.service, which outlives the SSH connection. The
journal (transaction_store) is written before anything is touched, so that the next start of this
program knows what was cut. Python 3.9+, stdlib only.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import sys
import time
from typing import Any, Dict, Iterator, List, Optional, Sequence

from multigpu.host import transaction_generation as generation
from multigpu.host import transaction_snapshot as snapshot
from multigpu.host.transaction_stage import check_text
from multigpu.host.transaction_store import (
    FAILED,
    GOOD,
    READY,
    STAGED,
    Failed,
    Manifest,
    Store,
    write,
)

STATUS = "/run/multigpu-transaction.json"
DONE = "/run/multigpu-transaction.done"
STAYS = "there is no other generation to return to: what is there stays as it is"


class Transaction:
    """One change of generation on one host."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def say(self, line: str) -> None:
        """One line of progress, in the journal and where the deploy looks."""
        print(f"multigpu: {line}", flush=True)
        self.status({"line": line})

    def status(self, words: Dict[str, str]) -> None:
        """Whole or not at all; a status that cannot be written stops nothing."""
        with contextlib.suppress(OSError):
            write(self.store.at(STATUS), json.dumps(words).encode(), 0o644)

    def stage(self, path: str) -> None:
        """Keep a generation, and what is in place where nothing was kept before."""
        with open(path, encoding="utf-8") as stream:
            document: Manifest = json.load(stream)
        check_text(self.store, document)
        state = self.store.state()
        if state["current"] is None and not state["unfinished"]:
            found = snapshot.of_host(self.store, document)
            if found is not None:
                first = self.store.keep(found)
                state["current"] = first
                state["generations"][str(first)] = {"status": READY, "previous": None}
        number = self.store.keep(document)
        state["generations"][str(number)] = {"status": STAGED, "previous": None}
        self.store.save(state)

    def apply(self) -> None:
        """Bring the newest staged generation into service. Raises Failed, with what was done."""
        state = self.store.state()
        number = max(self.store.numbers(), default=None)
        wanted = self.store.manifest(number)
        status = state["generations"].get(str(number), {}).get("status")
        if number is None or wanted is None or status != STAGED:
            raise Failed("no generation is staged; do: run deploys/serve.py again")
        unfinished = state["unfinished"] or {}
        # What was cut short is not gone back to: its files are old or new ones, and all become
        # those of this generation; what served before it stays what is returned to.
        others = [*unfinished.get("others", ()), unfinished.get("target"), state["current"]]
        back = unfinished.get("return_to") if unfinished else self.base(state, wanted)
        before = self.before(state, wanted)
        state["generations"][str(number)]["previous"] = before
        self.begin(state, number, back, "swap and start", others)
        try:
            generation.bring(
                self.store, number, wanted, self.manifests(others), self.say, bool(unfinished)
            )
        except (Failed, OSError) as error:
            self.go_back(str(error))
        state = self.store.state()
        state["generations"][str(number)]["status"] = self.standing(state, wanted)
        state.update(current=number, unfinished=None, failed=None, rolled_back_from=None)
        self.store.save(state)
        self.store.discard_but([number, before, back])

    def manifests(self, numbers: Sequence[Optional[int]]) -> List[Manifest]:
        """Those that are whole."""
        found = (self.store.manifest(number) for number in dict.fromkeys(numbers))
        return [each for each in found if each is not None]

    def base(self, state: Dict[str, Any], wanted: Manifest) -> Optional[int]:
        """What is returned to when `wanted` fails: the last that came up, unless it is the same."""
        number = came_up(state, state["current"])
        found = self.store.manifest(number)
        return None if found is None or found["digest"] == wanted["digest"] else number

    def before(self, state: Dict[str, Any], wanted: Manifest) -> Optional[int]:
        """The last that came up and is another than `wanted`: what rollback returns to."""
        number = came_up(state, state["current"])
        found = self.store.manifest(number)
        if found is not None and found["digest"] == wanted["digest"]:
            number = state["generations"].get(str(number), {}).get("previous")
        return number if self.store.manifest(number) is not None else None

    def standing(self, state: Dict[str, Any], wanted: Manifest) -> str:
        """Of a generation that came up: on trial, unless the same was verified before."""
        number = state["current"]
        found = self.store.manifest(number)
        same = found is not None and found["digest"] == wanted["digest"]
        good = state["generations"].get(str(number), {}).get("status") == GOOD
        return GOOD if same and good else READY

    def begin(
        self,
        state: Dict[str, Any],
        target: int,
        back: Optional[int],
        phase: str,
        others: Sequence[Optional[int]] = (),
    ) -> None:
        """The journal, before anything is touched. Files of `others` may be in place, too."""
        state["unfinished"] = {
            "target": target,
            "return_to": back,
            "others": [number for number in dict.fromkeys(others) if number is not None],
            "phase": phase,
            "began": int(time.time()),
        }
        self.store.save(state)

    def go_back(self, reason: str, boot: bool = False) -> None:
        """Put the generation before in its place. Raises Failed with the reason and what was done.

        May be cut short and done again any number of times.
        """
        state = self.store.state()
        unfinished = state["unfinished"]
        target, back = unfinished["target"], unfinished["return_to"]
        old, others = self.store.manifest(back), [target, *unfinished.get("others", ())]
        row = state["generations"].setdefault(str(target), {"previous": None})
        row["status"] = FAILED
        done = STAYS
        if old is None:
            state["current"] = target
        else:
            unfinished.update(phase="return", reason=unfinished.get("reason") or reason)
            self.store.save(state)
            self.say(f"{reason}; the generation before returns")
            new = self.manifests([number for number in others if number != back])
            done = generation.put_back(self.store, back, old, new, self.say, boot=boot)
            state["current"] = back
        state["failed"] = {"generation": target, "reason": reason, "done": done}
        state["failed"]["at"] = int(time.time())
        state["unfinished"] = None
        self.store.save(state)
        raise Failed(f"{reason}; {done}")

    def commit(self) -> None:
        """What is in place was verified."""
        state = self.store.state()
        row = state["generations"].get(str(state["current"]))
        if state["unfinished"] or row is None or row["status"] not in (READY, GOOD):
            raise Failed("no generation is on trial here; do: run deploys/serve.py")
        row["status"] = GOOD
        self.store.save(state)
        self.store.discard_but([state["current"], row["previous"], state.get("rolled_back_from")])

    def verification_failed(self, reason: str) -> None:
        """Go back from a generation on trial. Raises Failed with what was done."""
        state = self.store.state()
        number = state["current"]
        row = state["generations"].get(str(number), {})
        if row.get("status") != READY:
            raise Failed(f"{reason}; this generation was good before: it stays")
        back = row.get("previous") if self.store.manifest(row.get("previous")) else None
        if back is None:
            raise Failed(f"{reason}; {STAYS}")
        self.begin(state, number, back, "verification")
        self.go_back(reason)

    def rollback(self) -> None:
        """Return to the generation before the one in place; nothing when that was done."""
        state = self.store.state()
        number = state["current"]
        if state.get("rolled_back_from") is not None:
            return
        back = state["generations"].get(str(number), {}).get("previous")
        old, new = self.store.manifest(back), self.store.manifest(number)
        if back is None or old is None or new is None:
            raise Failed("no generation before this one is kept: there is nothing to return to")
        missing = [path for path in old["requires"] if not os.path.exists(self.store.at(path))]
        if missing:
            raise Failed(
                f"generation {back} needs {missing[0]}, which is gone; do: take the change back in "
                "the inventory and run deploys/serve.py"
            )
        # Where the old one does not come up, the one in place returns.
        self.begin(state, back, number, "rollback")
        try:
            generation.bring(self.store, back, {**old, "told": None}, [new], self.say)
        except (Failed, OSError) as error:
            self.go_back(str(error))
        state = self.store.state()
        state.update(current=back, unfinished=None, rolled_back_from=number)
        self.store.save(state)

    def recover(self, boot: bool) -> None:
        """Complete what was cut short; nothing to do otherwise."""
        unfinished = self.store.state()["unfinished"]
        if unfinished:
            what = unfinished.get("reason") or f"cut short during {unfinished['phase']}"
            self.go_back(what, boot=boot)


def came_up(state: Dict[str, Any], number: Optional[int]) -> Optional[int]:
    """This generation where its processes answered once, otherwise the one before it."""
    row = state["generations"].get(str(number))
    if row is None:
        return None
    return number if row["status"] in (READY, GOOD) else row["previous"]


@contextlib.contextmanager
def alone(store: Store) -> Iterator[None]:
    """One transaction at a time on a host; another one waits."""
    os.makedirs(store.directory, mode=0o700, exist_ok=True)
    handle = os.open(store.directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def main(arguments: List[str]) -> int:
    """Do one of them. Returns the exit status; why it failed is the last line, and in STATUS."""
    os.umask(0o022)
    parser = argparse.ArgumentParser(prog="multigpu transact", description=__doc__)
    names = ("stage", "apply", "commit", "return", "rollback", "recover")
    parser.add_argument("what", choices=names)
    parser.add_argument("word", nargs="?", default="")
    parser.add_argument("--boot", action="store_true", help="systemd starts the services")
    parser.add_argument("--root", default="", help="a directory instead of /")
    options = parser.parse_args(arguments)
    transaction = Transaction(Store(options.root))
    try:
        with alone(transaction.store):
            run(transaction, options)
    except Failed as error:
        return failed(transaction, str(error), options.what)
    except OSError as error:
        text = f"{error.strerror or error}: {error.filename or ''}"
        return failed(transaction, text, options.what)
    if options.what != "stage":
        write(transaction.store.at(DONE), b"", 0o644)
    return 0


def run(transaction: Transaction, options: argparse.Namespace) -> None:
    """Hand on to the method; a word of its own is of no use to the others."""
    if options.what == "stage":
        transaction.stage(options.word)
    elif options.what == "return":
        transaction.verification_failed(options.word)
    elif options.what == "recover":
        transaction.recover(options.boot)
    else:
        {
            "apply": transaction.apply,
            "commit": transaction.commit,
            "rollback": transaction.rollback,
        }[options.what]()


def failed(transaction: Transaction, reason: str, what: str) -> int:
    """Say it once, where the deploy and where a person looks. A completed return is no failure."""
    if what != "stage":
        transaction.status({"reason": reason})
    print(f"multigpu: {reason}", file=sys.stderr, flush=True)
    return 0 if what == "recover" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
