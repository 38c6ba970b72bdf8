"""What systemd says of a service's end, into its state file.

`ended` runs as ExecStopPost= of the service, as its user: what the supervisor could not say itself
(it was frozen, killed, out of memory) stands in $SERVICE_RESULT (systemd.exec(5)). `gave-up` runs
once, as OnFailure=, when no start follows any more: as root, which becomes the owner of the state
directory before it opens anything in there.
"""

from __future__ import annotations

import argparse
import glob
import os
import time
from dataclasses import replace
from typing import List, Optional

from multigpu.host import records, state, supervise_options, verdicts
from multigpu.host.keeper import CRITICAL, ERROR
from multigpu.host.notify import say

HOME = "/var/lib/multigpu"
WORDS = {
    verdicts.WATCHDOG: "the supervisor was frozen and ended by systemd's watchdog",
    verdicts.OOM_KILL: "the kernel ended a process, since the unit's memory was used up",
    verdicts.SIGNAL: "the supervisor was killed",
    verdicts.CORE_DUMP: "the supervisor crashed",
    verdicts.TIMEOUT: "it did not start or stop in time, by systemd's clock",
}


def ended(arguments: List[str]) -> int:
    """`ended --service NAME`: 0, whatever was there to be written."""
    parser = argparse.ArgumentParser(prog="multigpu ended", description=__doc__)
    parser.add_argument("--service", required=True)
    options = parser.parse_args(arguments)
    result, directory = os.environ.get("SERVICE_RESULT"), supervise_options.state_directory()
    if result not in WORDS or directory is None:
        return 0
    path = state.path_of(directory, options.service)
    before = state.read(path)
    invocation = os.environ.get("INVOCATION_ID", "")
    after = records.corrected(before, result, WORDS[result], time.time(), invocation)
    if after != before:
        state.write(path, after)
        say(WORDS[result], ERROR)
    return 0


def gave_up(arguments: List[str]) -> int:
    """`gave-up multigpu-NAME.service`: once, loudly; 0 also where no state file is."""
    parser = argparse.ArgumentParser(prog="multigpu gave-up", description=__doc__)
    parser.add_argument("--home", default=HOME)
    parser.add_argument("unit")
    options = parser.parse_args(arguments)
    service = options.unit.removeprefix("multigpu-").removesuffix(".service")
    path = _become_owner(options.home, service)
    before = state.read(path) if path else state.EMPTY
    if path is not None and before.state != state.FENCED:
        state.write(path, _final(before, time.time()))
    why = before.last_verdict.text if before.last_verdict else "its supervisor left no word"
    text = f"{options.unit} is down and is not started again: {why}; do: journalctl -u "
    say(f"{text}{options.unit}, mend it, then systemctl reset-failed and start", CRITICAL)
    return 0


def _final(before: state.State, now: float) -> state.State:
    last = before.last_verdict
    after = replace(before, state=state.GAVE_UP, since=now)
    if last is not None and last.reason in verdicts.NOT_RETRIED:
        return after
    hit = {**before.restarts, verdicts.START_LIMIT_HIT: _hits(before) + 1}
    return replace(after, restarts=hit)


def _hits(before: state.State) -> int:
    return before.restarts.get(verdicts.START_LIMIT_HIT, 0)


def _become_owner(home: str, service: str) -> Optional[str]:
    """The state file's path, as the user whose it is; None where there is none.

    The directory of a wish belongs to the wish's user, who may put links there: root opens nothing
    below it. `home` itself is root's.
    """
    wishes = sorted(glob.glob(os.path.join(glob.escape(home), "*", "")), key=len, reverse=True)
    for wish in (path.rstrip("/") for path in wishes):
        name = os.path.basename(wish)
        if os.path.islink(wish) or not (service == name or service.startswith(f"{name}-")):
            continue
        owner = os.stat(wish)
        if os.getuid() == 0 and owner.st_uid != 0:
            os.setgroups([])
            os.setgid(owner.st_gid)
            os.setuid(owner.st_uid)
        return state.path_of(wish, service)
    return None
