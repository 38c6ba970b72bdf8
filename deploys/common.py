"""What every deploy begins with: the host's facts, its plans, and failing one host alone."""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from socket import IPPROTO_TCP, TCP_NODELAY
from time import time
from typing import Any

import gevent
from gevent import GreenletExit
from pyinfra import host, inventory, logger, state
from pyinfra.api.exceptions import PyinfraError

from facts.endpoint import Endpoints
from facts.generations import Generations
from facts.machine import TIMEOUT_S, Machine, Unreadable
from facts.model import ModelFiles
from multigpu import credentials, switching
from multigpu.endpoint_seen import EndpointsSeen
from multigpu.errors import MultigpuError, NoPlan
from multigpu.explain import explain_refusal
from multigpu.generation import DIRECTORIES, Deployment, cannot_change, homes, runtime_missing
from multigpu.hardware import Host
from multigpu.install.preflight import preflight, refusal
from multigpu.observation import SECONDS
from multigpu.plan import ModelSpec, Plan, Source, Wish
from multigpu.store import models, secret_files
from multigpu.transaction import Seen
from multigpu.wish import SERVICE_NAME

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = ROOT / "templates"
QUICK_S, SLOW_S = 120, 7200
"""For each command of an operation: a host that hangs must not hold up the others for ever. Slow
ones copy or hash models, install and build; what they began on the host goes on."""
DEAD_S = 60
"""A host that acknowledges nothing for so long is gone."""
LOOK_EVERY_S = 2
TCP_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux only


def machine_name(of: Any = host) -> str:
    """The host's name in files and on screens; of this host unless told."""
    return str(of.name).removeprefix("@fake/")


def privilege() -> dict[str, Any]:
    """Global arguments that make an operation root: sudo, unless the inventory says otherwise."""
    if host.data.get("_sudo") is not None or host.data.get("ssh_user") == "root":
        return {}
    return {"_sudo": True}


def plan_file() -> Path:
    """`plans/<host>.yaml` where pyinfra runs, unless `plans_directory` is set."""
    return directory("plans_directory", "plans") / f"{machine_name()}.yaml"


def directory(key: str, default: str) -> Path:
    """A directory that the inventory names. Raises MultigpuError when it is not a path."""
    found = host.data.get(key, default)
    if not isinstance(found, str | Path) or not str(found):
        raise MultigpuError(f"{key} is {found!r}: give the path of a directory")
    return Path(found)


def services() -> Mapping[str, Any]:
    """What the inventory asks of this host. Raises MultigpuError when that is nothing."""
    found = host.data.get("services")
    if not isinstance(found, Mapping) or not found:
        what = "no services are asked for" if not found else f"services is {found!r}"
        raise MultigpuError(
            f"{what}: give the host services = {{'chat': {{'model': ...}}}} in the inventory or in "
            "its group data"
        )
    return found


def wished_names() -> tuple[str, ...]:
    """Names of the services asked for that can be names; whether all of them can is said later."""
    found = host.data.get("services")
    names = found if isinstance(found, Mapping) else ()
    return tuple(name for name in names if isinstance(name, str) and SERVICE_NAME.fullmatch(name))


def rehearsal_directory() -> Path | None:
    """Set in the inventory where there is no host: files are written here, nothing is applied."""
    if host.data.get("rehearsal_directory") is None:
        return None
    return directory("rehearsal_directory", "") / machine_name()


def verify_s() -> int:
    """Seconds of load of one verification."""
    found = host.data.get("verify_s", SECONDS)  # a text when it comes from --data
    if not str(found).isdecimal() or int(found) < 1:
        raise MultigpuError(f"verify_s is {found!r}: give whole seconds, at least 1")
    return int(found)


def say(screen: str) -> None:
    """Print one host's screen in one piece; nothing when it is empty."""
    if screen:
        logger.info("\n%s\n", screen.rstrip("\n"))


def refuse(reason: str) -> None:
    """Fail this host alone, with one line; pyinfra writes the host's name in front of it."""
    line = reason.removeprefix(f"{machine_name()}: ")
    host.log_styled(line, fg="red", log_func=logger.error)
    state.fail_hosts({inventory.get_host(host.name)})  # type: ignore[no-untyped-call]


def guarded(order: Callable[[], None]) -> Callable[[], None]:
    """One host's refusal or bug must not take the fleet along; a bug keeps its traceback."""

    @wraps(order)
    def run() -> None:
        try:
            tune_connection()
            order()
        except PyinfraError:
            raise
        except NoPlan as error:
            say(explain_refusal(error, machine_name()))
            refuse(str(error))
        except MultigpuError as error:
            refuse(str(error))
        except EOFError:  # pyinfra asks for the password, and there is nobody to answer
            refuse("sudo wants a password here: allow it without, or set _use_sudo_password")
        except Exception as error:
            logger.error(traceback.format_exc())
            refuse(f"a bug in multigpu, {type(error).__name__}: {error} (please report)")
        if failed():
            raise GreenletExit  # ends this host's greenlet before pyinfra calls it ready

    return run


def tune_connection() -> None:
    """pyinfra leaves Nagle's algorithm on, which costs about 45 ms a command.

    It also waits for ever for a host that lost power or network; keep-alives and a limit on what
    stays unacknowledged end that.
    """
    client = getattr(host.connector, "client", None)
    transport = client.get_transport() if client is not None else None
    setsockopt = getattr(getattr(transport, "sock", None), "setsockopt", None)
    if transport is None or setsockopt is None:  # the channel of a jump host has none
        return
    setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
    if TCP_USER_TIMEOUT is not None:
        setsockopt(IPPROTO_TCP, TCP_USER_TIMEOUT, DEAD_S * 1000)
    transport.set_keepalive(DEAD_S // 4)


def captured() -> tuple[Host, str] | None:
    """This host's facts and their text in one round trip; None when pyinfra failed the host.

    Raises MultigpuError when the answer is no machine, or nothing at all.
    """
    found = host.get_fact(
        Machine,
        machine=machine_name(),
        paths=(*DIRECTORIES, *homes(wished_names())),
        _timeout=TIMEOUT_S,
        **privilege(),
    )
    if isinstance(found, Unreadable):
        raise MultigpuError(found.reason)
    if found is None and not failed():
        raise MultigpuError(
            "the probe printed nothing, needed is its JSON: see what `python3 -V` prints there"
        )
    return found


def endpoints_seen() -> EndpointsSeen:
    """What runs of endpoints on this host. Raises MultigpuError when it does not say."""
    found = host.get_fact(Endpoints, _timeout=TIMEOUT_S, **privilege())
    if found is None:
        raise MultigpuError("the host did not say what endpoints it has: see that python3 runs")
    return found


def generations_seen() -> tuple[Seen, bool]:
    """What this host keeps of its generations, and whether a transaction was waited for.

    One that an earlier run began and did not see to its end works on: it ends by itself, within the
    limits of its unit. Raises MultigpuError when the host does not say.
    """
    waited = False
    while True:
        found = host.get_fact(Generations, _timeout=TIMEOUT_S, **privilege())
        if found is None:
            raise MultigpuError("the host did not say what generations it keeps: see python3 there")
        if not found.busy:
            return found, waited
        host.log(f"waits for the transaction that works on this host: {found.line or 'begun'}")
        waited = True
        gevent.sleep(LOOK_EVERY_S)


def failed() -> bool:
    """True when pyinfra or we gave this host up."""
    return inventory.get_host(host.name) in state.failed_hosts


def refuse_unchangeable(machine: Host) -> None:
    """Raises MultigpuError when nothing can be installed or removed on this host."""
    reason = cannot_change(machine)
    if reason is not None:
        raise MultigpuError(reason)


def refuse_switch(machine: Host, plans: Iterable[Plan]) -> None:
    """Raises MultigpuError when a service would change its runtime in its first week of use.

    `--data switch_runtime=chat` (or chat,rag) allows it for this run.
    """
    allowed = str(host.data.get("switch_runtime", "")).split(",")
    reason = switching.refusal(machine, plans, time(), allowed)
    if reason is not None:
        raise MultigpuError(reason)


def refuse_uninstallable(machine: Host, wanted: Iterable[Deployment]) -> None:
    """Raises MultigpuError when a runtime that is not there cannot be installed on this host."""
    for recipe in dict.fromkeys(deployment.recipe for deployment in wanted):
        reasons = preflight(machine, recipe) if runtime_missing(machine, recipe) else ()
        if reasons:
            raise MultigpuError(refusal(recipe, reasons))


def load_model(wish: Wish) -> ModelSpec:
    """Facts of a model, wherever it lies; asks the host only for a path of the host."""
    reference = wish.model
    if models.source(reference, base=Path()) is not Source.HOST:
        return models.load(reference, base=Path(), terms=models.Terms.of(wish, hub_token(wish)))
    files = host.get_fact(ModelFiles, path=reference, _timeout=TIMEOUT_S, **privilege())
    if files is None:
        raise MultigpuError(
            f"{reference}: the host gave no answer about it; see whether it is there and readable"
        )
    return models.load_host_model(reference, files, models.Terms.of(wish))


def hub_token(wish: Wish) -> str | None:
    """The hub's token of this service, for reading what planning needs. Raises MultigpuError."""
    found = [each for each in credentials.wanted(wish) if each.source_path == wish.hf_token_file]
    return secret_files.load(found[0]).content.decode().strip() if found else None
