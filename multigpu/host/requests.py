"""How a service asks for more than a restart: a file in its own directory that root may read.

`/var/lib/multigpu/<wish>/requests/<id>.json`, written by the service's supervisor, which has no
rights at all; `multigpu.host.react` decides. Nothing that stands in it is believed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
import time
from dataclasses import asdict, dataclass
from typing import Any, Iterable, Optional, Tuple

FLAG = "/run/multigpu/reactions"
"""There while reactions are on."""
DIRECTORY = "requests"
SCHEMA = 1
GPU_RESET, REBOOT, FENCE = "gpu_reset", "reboot", "fence"
WHAT = (GPU_RESET, REBOOT, FENCE)
LARGEST_BYTES = 4096
MOST_GPUS, LONGEST_TEXT = 16, 300
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.json")
GPU = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._-]{0,63}")
WORD = re.compile(r"[a-z][a-z0-9_-]{0,31}")
EVIDENCE = re.compile(r"/var/lib/multigpu/([a-z0-9-]{1,64})/evidence/[A-Za-z0-9:._-]{1,128}\.json")


class Refused(Exception):
    """A request that is none, in one line."""


@dataclass(frozen=True)
class Request:
    """What a service asks for; `gpus` are UUIDs (AMD: PCI addresses), `at` Unix seconds.

    `why` is a verdict (multigpu.host.verdicts), `text` a line for people, `evidence` the path of
    a file of the service.
    """

    id: str
    what: str
    gpus: Tuple[str, ...]
    why: str
    at: float
    text: str = ""
    evidence: Optional[str] = None


def is_on(flag: str = FLAG) -> bool:
    """True while somebody reads requests."""
    return os.path.exists(flag)


def ask(
    state_directory: str,
    what: str,
    gpus: Iterable[str],
    why: str,
    *,
    text: str = "",
    evidence: Optional[str] = None,
) -> Optional[str]:
    """Leave a request in `/var/lib/multigpu/<wish>`; returns why it could not be written.

    Whole or not there: a hidden file is renamed, and root's path unit does not see hidden ones.
    """
    name = f"{int(time.time())}-{secrets.token_hex(4)}"
    directory = os.path.join(state_directory, DIRECTORY)
    asked = Request(name, what, tuple(gpus), why, time.time(), line(text), evidence)
    temporary = os.path.join(directory, f".{name}")
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        with open(temporary, "w", encoding="ascii") as file:
            json.dump({"schema": SCHEMA, **asdict(asked)}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, os.path.join(directory, f"{name}.json"))
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        return f"the request for {what} could not be written: {error}"
    return None


def parsed(name: str, content: bytes, service: str) -> Request:
    """The request in a file of that name, by its schema. Raises Refused; nothing else."""
    if not NAME.fullmatch(name):
        raise Refused("the name of the file is no name of a request")
    if len(content) > LARGEST_BYTES:
        raise Refused(f"more than {LARGEST_BYTES} bytes")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise Refused("no JSON") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise Refused(f"not of schema {SCHEMA}")
    return Request(
        id=_id(found, name),
        what=_one_of(found, "what", WHAT),
        gpus=_gpus(found),
        why=_matching(found, "why", WORD),
        at=_time(found),
        text=line(found["text"]) if isinstance(found.get("text"), str) else "",
        evidence=_evidence(found, service),
    )


def line(text: str) -> str:
    """One printable line: it goes into the journal of root."""
    return "".join(c if c.isprintable() else " " for c in text)[:LONGEST_TEXT]


def _id(found: Any, name: str) -> str:
    if found.get("id") != name[: -len(".json")]:
        raise Refused("id is not the name of the file")
    return name[: -len(".json")]


def _one_of(found: Any, key: str, words: Tuple[str, ...]) -> str:
    value = found.get(key)
    if not isinstance(value, str) or value not in words:
        raise Refused(f"{key} is none of {', '.join(words)}")
    return value


def _matching(found: Any, key: str, pattern: "re.Pattern[str]") -> str:
    value = found.get(key)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise Refused(f"{key} is not as it should be")
    return value


def _gpus(found: Any) -> Tuple[str, ...]:
    gpus = found.get("gpus")
    if not isinstance(gpus, list) or len(gpus) > MOST_GPUS:
        raise Refused(f"gpus is no list of {MOST_GPUS} at most")
    if not all(isinstance(gpu, str) and GPU.fullmatch(gpu) for gpu in gpus):
        raise Refused("gpus holds something that is no card")
    return tuple(dict.fromkeys(gpus))


def _time(found: Any) -> float:
    at = found.get("at")
    if isinstance(at, bool) or not isinstance(at, (int, float)) or not math.isfinite(at):
        raise Refused("at is no time")
    return float(at)


def _evidence(found: Any, service: str) -> Optional[str]:
    """Never opened, only named: but of another service's files not even that."""
    value = found.get("evidence")
    if value is None:
        return None
    match = EVIDENCE.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[1] != service or ".." in value:
        raise Refused("evidence is no file of this service's evidence directory")
    return str(value)
