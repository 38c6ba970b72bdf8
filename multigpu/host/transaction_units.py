"""Units of a generation: what their processes carry, starting them, waiting for READY=1."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from typing import Any, Callable, Dict, List, Optional

from multigpu.host.transaction_store import Failed, read

Unit = Dict[str, Any]
PATIENCE_S = 10.0
"""How much longer than the supervisor we wait, so that its verdict can be read."""
DRAIN_S = 120
"""How long a process that is told to stop may go on with the requests it has."""
LOOK_S = 0.5
LINE_EVERY_S = 20.0
SYSTEMCTL_S = 300
LAST_LINES = 8
RESTARTS = 2
"""So often a new process may end before it is given up."""
WAIT_PROPERTIES = (
    "ActiveState",
    "InvocationID",
    "NRestarts",
    "StatusText",
    "AssertResult",
    "ConditionResult",
    "Job",
)


def systemctl(*words: str) -> int:
    """Run systemctl; its words go to the journal. Returns its exit status."""
    try:
        return subprocess.run(["systemctl", *words], timeout=SYSTEMCTL_S).returncode
    except subprocess.TimeoutExpired:
        print(f"multigpu: systemctl {' '.join(words)} did not end", file=sys.stderr, flush=True)
        return 124


def show(name: str, *properties: str) -> Dict[str, str]:
    """Properties of a unit (`systemctl show`); empty where systemd does not answer."""
    argv = ["systemctl", "show", f"--property={','.join(properties)}", name]
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, timeout=SYSTEMCTL_S)
    except subprocess.TimeoutExpired:
        return {}
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def revision(pid: str) -> Optional[str]:
    """MULTIGPU_REVISION as a running process carries it (proc(5), environ)."""
    words = (read(f"/proc/{pid}/environ") or b"").split(b"\0")
    found = [word for word in words if word.startswith(b"MULTIGPU_REVISION=")]
    return found[0].split(b"=", 1)[1].decode() if found else None


def carries(unit: Unit) -> bool:
    """True when the unit's process is the planned one, whether ready or loading."""
    seen = show(unit["name"], "ActiveState", "MainPID")
    pid = seen.get("MainPID", "0")
    if seen.get("ActiveState") not in ("active", "activating", "reloading") or pid == "0":
        return False
    if revision(pid) != unit["revision"]:
        return False
    wanted = unit.get("command_sha256")
    return not wanted or hashlib.sha256(read(f"/proc/{pid}/cmdline") or b"").hexdigest() == wanted


def active(name: str) -> bool:
    """True when systemd calls the unit active: a service of ours is ready then."""
    return show(name, "ActiveState").get("ActiveState") == "active"


def serves(unit: Unit) -> bool:
    """True when the planned process is ready."""
    return carries(unit) and active(unit["name"])


def enable(names: List[str]) -> None:
    """Units come back after a reboot."""
    missing = [name for name in names if not enabled(name)]
    if missing and systemctl("enable", "--quiet", *missing):
        raise Failed(f"systemctl enable {' '.join(missing)} failed: see its journal")


def enabled(name: str) -> bool:
    """True when the unit is started at boot."""
    return show(name, "UnitFileState").get("UnitFileState") == "enabled"


def stop(names: List[str]) -> None:
    """Stop units, and return when their processes are gone."""
    if names:
        systemctl("stop", *names)


def restart(unit: Unit, say: Callable[[str], None]) -> None:
    """Start it anew and wait. Raises Failed when it does not become ready."""
    name = unit["name"]
    before = show(name, "InvocationID").get("InvocationID", "")
    systemctl("reset-failed", name)
    if systemctl("--no-block", "restart", name):
        raise Failed(f"{name}: systemctl restart refuses: see its journal")
    wait(unit, say, before)


def start_all(units: List[Unit]) -> None:
    """Start units without waiting for any, after a stop of all."""
    names = [unit["name"] for unit in units]
    systemctl("reset-failed", *names)
    systemctl("--no-block", "start", *names)


def wait(unit: Unit, say: Callable[[str], None], before: Optional[str] = None) -> None:
    """Return when the unit is ready. Raises Failed with its last words.

    A job that systemd has queued leaves the old process active for a moment: only another
    invocation than `before` counts.
    """
    name, began = unit["name"], time.monotonic()
    limit, said = unit["start_s"] + PATIENCE_S + DRAIN_S, 0.0
    while True:
        seen, waited = show(name, *WAIT_PROPERTIES), time.monotonic() - began
        if before is None or seen.get("InvocationID", "") != before:
            if seen.get("ActiveState") == "active":
                return
            if ended(seen):
                break
        if withheld(seen) or waited > limit:
            break
        if waited - said >= LINE_EVERY_S:
            said = waited
            say(f"{name}: {seen.get('StatusText') or 'starting'} ({waited:.0f} s)")
        time.sleep(LOOK_S)
    state = f"{seen.get('ActiveState', 'unknown')}, {seen.get('StatusText', '')}".rstrip(", ")
    raise Failed(f"{name} did not become ready: {state}; its last words: {last_words(name, seen)}")


def ended(seen: Dict[str, str]) -> bool:
    """True when the new process failed for good, or again and again."""
    restarts = seen.get("NRestarts", "0")
    many = restarts.isdecimal() and int(restarts) >= RESTARTS
    return seen.get("ActiveState") == "failed" or many


def withheld(seen: Dict[str, str]) -> bool:
    """True when systemd starts nothing: its cards are not there, or a fence stands."""
    kept = "no" in (seen.get("AssertResult"), seen.get("ConditionResult"))
    return kept and seen.get("Job", "0") in ("", "0") and seen.get("ActiveState") != "active"


def last_words(name: str, seen: Dict[str, str]) -> str:
    """The end of the journal of a unit, and of the devices unit where that kept it from
    starting."""
    said: List[str] = []
    if seen.get("AssertResult") == "no":
        said += journal("multigpu-devices", 5)
    said += journal(name, LAST_LINES)
    if seen.get("ConditionResult") == "no":
        said.append("a condition of its unit does not hold (a fence?): see systemctl status")
    return " | ".join(said) or "it said nothing"


def journal(name: str, lines: int) -> List[str]:
    """The last lines that processes of a unit wrote."""
    argv = ["journalctl", "-q", "-u", name, "_TRANSPORT=stdout", "-n", str(lines)]
    argv += ["-o", "cat", "--no-pager"]
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    text = done.stdout.decode("utf-8", "replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def remove_all(names: List[str]) -> None:
    """Stop and disable units whose files go; their names are forgotten at the next reload."""
    for name in names:
        systemctl("disable", "--now", "--quiet", name)


def leftover(root: str, name: str) -> bool:
    """True when a unit's file is still there."""
    return os.path.lexists(f"{root}/etc/systemd/system/{name}")


def together(starting: List[Unit], running: List[Unit], ports: bool = False) -> bool:
    """True when all must stop before any starts: several services, or one takes another's card.

    Otherwise replicas restart one after the other, and the others answer meanwhile. `running` is
    what the same units were started as; with `ports` one that takes another's port counts too.
    """
    if len({unit["wish"] for unit in starting}) > 1:
        return True
    names = {unit["name"] for unit in starting}
    old = [unit for unit in running if unit["name"] in names]
    return any(
        a["name"] != b["name"]
        and (set(a["gpus"]) & set(b["gpus"]) or (ports and a["port"] == b["port"]))
        for a in starting
        for b in old
    )
