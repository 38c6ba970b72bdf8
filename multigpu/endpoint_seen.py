"""What a host's endpoints are, compared with what they should be: values only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from multigpu.endpoint import RenderedEndpoint
from multigpu.hardware import Host

REVISION = "multigpu-revision-"
"""How `description` of a configuration begins."""


@dataclass(frozen=True)
class Worker:
    """The process that serves just now: the text it read, and the Unix time of its start."""

    config_revision: str | None
    started_at: float


@dataclass(frozen=True)
class EndpointsSeen:
    """Is HAProxy installed, and the workers by unit without `.service`."""

    installed: bool
    workers: Mapping[str, Worker]


NONE_SEEN = EndpointsSeen(False, {})


def read(text: str) -> EndpointsSeen | None:
    """The fact's JSON as a value, None when it is none."""
    try:
        found = json.loads(text)
        workers = {name: _worker(each) for name, each in found["workers"].items()}
        return EndpointsSeen(bool(found["installed"]), workers)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _worker(said: Mapping[str, object]) -> Worker:
    description = str(said["description"] or "")
    revision = description.removeprefix(REVISION) if description.startswith(REVISION) else None
    return Worker(revision, float(str(said["started_at"])))


def restart_reason(machine: Host, endpoint: RenderedEndpoint) -> str | None:
    """Why the unit must be started anew, which cuts its streams; None when it need not."""
    state = machine.unit(endpoint.name)
    if state is None or state.main_pid is None or state.active_state not in ("active", "reloading"):
        return "not running"
    if state.revision != endpoint.revision:
        return f"runs revision {state.revision or 'unknown'}, planned is {endpoint.revision}"
    return None


def reload_reason(machine: Host, seen: EndpointsSeen, endpoint: RenderedEndpoint) -> str | None:
    """Why a running one must read its files again; None when it has read what is planned.

    A configuration is told by the revision in it, a secret by its age alone: nothing of it is known
    here.
    """
    worker = seen.workers.get(endpoint.name.removesuffix(".service"))
    if worker is None:
        return "does not answer"
    if worker.config_revision != endpoint.config_revision:
        return f"serves configuration {worker.config_revision}, not {endpoint.config_revision}"
    newer = [path for path in endpoint.secrets if _modified(machine, path) > worker.started_at]
    return f"has not read {newer[0]}" if newer else None


def _modified(machine: Host, path: str) -> float:
    found = machine.file(path)
    return 0.0 if found is None or found.modified_at is None else found.modified_at


def is_new(machine: Host, endpoints: Iterable[RenderedEndpoint], wish: str) -> bool:
    """True when the engines of this service give their ports up to an endpoint for the first time.

    They move up by one then, so the last one goes first.
    """
    return any(e.wish == wish and machine.unit(e.name) is None for e in endpoints)
