"""HAProxy in a transaction: which configuration its worker has read, which engines it uses.

Commands are those of HAProxy's management guide, "Unix Socket commands".
"""

from __future__ import annotations

import socket
import time
from typing import Any, Dict, List, Optional

from multigpu.host import transaction_units as units
from multigpu.host.transaction_store import Failed

Endpoint = Dict[str, Any]
REVISION = "multigpu-revision-"
WORKER_S, BACK_S = 20.0, 30.0


def ask(path: str, command: str) -> List[str]:
    """Lines of an answer; none where no endpoint listens."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(2)
            channel.connect(path)
            channel.sendall(command.encode() + b"\n")
            return channel.makefile(errors="replace").read().splitlines()
    except OSError:
        return []


def info(endpoint: Endpoint) -> Dict[str, str]:
    """What the worker that serves says of itself."""
    pairs = [line.split(": ", 1) for line in ask(endpoint["socket"], "show info") if ": " in line]
    return {name.lower(): value for name, value in pairs}


def server_states(endpoint: Endpoint) -> Dict[str, str]:
    """Engines behind an endpoint, and what it holds of them: UP, DOWN, DRAIN."""
    rows = [line.split(",") for line in ask(endpoint["socket"], "show stat")]
    servers = endpoint["servers"]
    return {row[1]: row[17] for row in rows if len(row) > 17 and row[1] in servers}


def wait_until_back(endpoint: Endpoint, server: str) -> None:
    """Return when requests reach this engine again: before that, the next one must not go.

    Where no endpoint runs, or does not know it yet, there is nothing to wait for.
    """
    deadline = time.monotonic() + BACK_S
    while True:
        state = server_states(endpoint).get(server)
        if state is None or state == "UP":
            return
        if time.monotonic() > deadline:
            raise Failed(f"HAProxy holds {server} for {state}: see {endpoint['name']}")
        time.sleep(0.2)


def needed(endpoint: Endpoint) -> Optional[str]:
    """`restart` or `reload` where the planned text is not what serves; None where it is."""
    if not units.carries(endpoint):
        return "restart"
    description = info(endpoint).get("description")
    return None if description == REVISION + endpoint["config_revision"] else "reload"


def renew(endpoint: Endpoint, verb: str) -> None:
    """Another worker with the planned text, or Failed."""
    name, before = endpoint["name"], info(endpoint).get("pid")
    units.systemctl("reset-failed", name)
    refused = units.systemctl(verb, name)
    deadline = time.monotonic() + WORKER_S
    while not refused and time.monotonic() < deadline:
        now = info(endpoint)
        wanted = REVISION + endpoint["config_revision"]
        if now.get("pid", before) != before and now.get("description") == wanted:
            return
        time.sleep(0.1)
    words = " | ".join(units.journal(name, 12)) or "it said nothing"
    raise Failed(f"{name}: {verb} did not bring the planned configuration: {words}")


def check(endpoint: Endpoint) -> None:
    """The worker serves the planned text, and sends requests to every engine. Raises Failed."""
    if needed(endpoint) is not None:
        raise Failed(f"{endpoint['name']} does not serve the planned configuration")
    for server in endpoint["servers"]:
        wait_until_back(endpoint, server)
