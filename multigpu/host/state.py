"""What a supervisor knows of its service, one JSON file for each process, for whoever reads it.

`/var/lib/multigpu/<wish>/state/<service>.json`, written as a whole or not at all. It holds no
secret and may be read by everybody; a file that is missing, torn or of another release is a value:
`EMPTY`, or the fields that could be read. Times are Unix seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Dict, List, Optional

SCHEMA = 1
LOADING, SERVING, STALLED, DRAINING = "loading", "serving", "stalled", "draining"
STOPPED, BACKING_OFF, GAVE_UP, FENCED = "stopped", "backing_off", "gave_up", "fenced"
STATES = (LOADING, SERVING, STALLED, DRAINING, STOPPED, BACKING_OFF, GAVE_UP, FENCED)
HISTORY = 20
MODE, DIRECTORY_MODE = 0o644, 0o755
LONGEST_BYTES = 1_000_000


@dataclass(frozen=True)
class LastVerdict:
    """Why the process ended the last time. `evidence` is the path of a file, None without one."""

    reason: str = ""
    text: str = ""
    at: float = 0.0
    exit_status: Optional[int] = None
    evidence: Optional[str] = None
    invocation: Optional[str] = None


@dataclass(frozen=True)
class Backoff:
    """`n` failures since it last worked for a while; `until` when the next start is due."""

    n: int = 0
    until: Optional[float] = None


@dataclass(frozen=True)
class State:
    """One process of a service. None: not known, 0 is a number.

    `progress_at` is when a counter of the engine last moved, `busy_since` since when requests run
    or wait without a pause. `restarts` counts by reason (`multigpu.host.verdicts`) and never goes
    down. `history` are the last verdicts: `{"reason", "at", "kind"}`. `message` is the last line of
    an engine that ended while it loaded.
    """

    service: str = ""
    wish: str = ""
    revision: Optional[str] = None
    runtime: Optional[str] = None
    state: Optional[str] = None
    since: Optional[float] = None
    pid: Optional[int] = None
    invocation: Optional[str] = None
    ready_at: Optional[float] = None
    load_s: Optional[float] = None
    progress_at: Optional[float] = None
    busy_since: Optional[float] = None
    running: Optional[float] = None
    waiting: Optional[float] = None
    tokens_total: Optional[float] = None
    kv_usage: Optional[float] = None
    restarts: Dict[str, int] = field(default_factory=dict)
    last_verdict: Optional[LastVerdict] = None
    backoff: Backoff = field(default_factory=Backoff)
    history: List[Dict[str, Any]] = field(default_factory=list)
    message: Optional[str] = None
    schema: int = SCHEMA


EMPTY = State()
TYPES: Dict[str, Any] = {
    **dict.fromkeys(("service", "wish", "revision", "runtime", "state", "invocation"), str),
    **dict.fromkeys(("since", "ready_at", "load_s", "progress_at", "busy_since"), (int, float)),
    **dict.fromkeys(("running", "waiting", "tokens_total", "kv_usage"), (int, float)),
    **dict.fromkeys(("pid", "schema"), int),
    "message": str,
}


def path_of(state_directory: str, service: str) -> str:
    """`state_directory` is the wish's own, `/var/lib/multigpu/<wish>`."""
    return os.path.join(state_directory, "state", f"{service}.json")


def read(path: str) -> State:
    """The file's content; EMPTY where there is none or where it is no such file."""
    try:
        with open(path, "rb") as file:
            return parsed(file.read(LONGEST_BYTES))
    except OSError:
        return EMPTY


def parsed(content: bytes) -> State:
    """As much of it as is as it should be; never raises."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return EMPTY
    if not isinstance(found, dict):
        return EMPTY
    plain = {name: found[name] for name, kind in TYPES.items() if _is(found.get(name), kind)}
    return replace(
        State(**plain),
        restarts=_counts(found.get("restarts")),
        last_verdict=_verdict(found.get("last_verdict")),
        backoff=_backoff(found.get("backoff")),
        history=_history(found.get("history")),
    )


def _is(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _counts(value: Any) -> Dict[str, int]:
    if not isinstance(value, dict):
        return {}
    return {str(name): count for name, count in value.items() if _is(count, int) and count >= 0}


def _verdict(value: Any) -> Optional[LastVerdict]:
    if not isinstance(value, dict) or not _is(value.get("reason"), str):
        return None
    kinds = {"reason": str, "text": str, "evidence": str, "invocation": str, "exit_status": int}
    kept = {name: value[name] for name, kind in kinds.items() if _is(value.get(name), kind)}
    at = value.get("at", 0.0)
    return LastVerdict(at=at if _is(at, (int, float)) else 0.0, **kept)


def _backoff(value: Any) -> Backoff:
    if not isinstance(value, dict):
        return Backoff()
    n: Any = value.get("n")
    until: Any = value.get("until")
    return Backoff(max(0, n) if _is(n, int) else 0, until if _is(until, (int, float)) else None)


def _history(value: Any) -> List[Dict[str, Any]]:
    if not isinstance(value, list):
        return []
    return [
        item
        for item in value
        if isinstance(item, dict)
        and _is(item.get("reason"), str)
        and _is(item.get("at"), (int, float))
    ][-HISTORY:]


def write(path: str, state: State) -> bool:
    """Replace the file. False when that failed: a full disk takes no engine down."""
    content = json.dumps(asdict(state), indent=1).encode()
    return write_bytes(path, content)


def write_bytes(
    path: str, content: bytes, mode: int = MODE, directory_mode: int = DIRECTORY_MODE
) -> bool:
    """Content under its final name as a whole, or not there; False when it could not be kept."""
    directory, temporary = os.path.dirname(path), ""
    try:
        if not os.path.isdir(directory):
            os.makedirs(directory, exist_ok=True)
            os.chmod(directory, directory_mode)
        number, temporary = tempfile.mkstemp(dir=directory, prefix=".new-")
        with os.fdopen(number, "wb") as file:
            os.fchmod(number, mode)
            file.write(content)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            if temporary:
                os.unlink(temporary)
        return False
    return True


def names() -> List[str]:
    """The fields, for those who check the schema."""
    return [item.name for item in fields(State)]
