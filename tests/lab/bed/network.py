"""The lab's network: one namespace with a bridge for the controller, one namespace per host.

Nothing is added to this machine's own network and nothing leads out of the lab.
"""

from __future__ import annotations

from pathlib import Path

from .settings import SUBNET, LabError, LabNotPossible, Settings
from .shell import run

BRIDGE = "labbr"
CONTROLLER = f"{SUBNET}.254"


def create(settings: Settings) -> None:
    """The controller's side. Raises LabNotPossible when this machine makes no namespaces."""
    name = settings.prefix
    try:
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", name, "link", "add", BRIDGE, "type", "bridge")
    except LabError as error:
        raise LabNotPossible(f"no network namespaces here: {error}") from None
    run("ip", "-n", name, "addr", "add", f"{CONTROLLER}/24", "dev", BRIDGE)
    run("ip", "-n", name, "link", "set", BRIDGE, "up")


def add_host(settings: Settings, host: str, ip: str) -> None:
    """A namespace for one host, wired to the bridge; the interface is called host0."""
    lab, own = settings.prefix, namespace(settings, host)
    port = f"v{ip.rsplit('.', 1)[1]}"
    run("ip", "netns", "add", own)
    run("ip", "-n", own, "link", "set", "lo", "up")
    run("ip", "-n", lab, "link", "add", port, "type", "veth",
        "peer", "name", "host0", "netns", own)  # fmt: skip
    run("ip", "-n", lab, "link", "set", port, "master", BRIDGE, "up")
    run("ip", "-n", own, "addr", "add", f"{ip}/24", "dev", "host0")
    run("ip", "-n", own, "link", "set", "host0", "up")


def namespace(settings: Settings, host: str) -> str:
    return f"{settings.prefix}-{host}"


def path(settings: Settings, host: str | None = None) -> Path:
    """File of a namespace: the controller's, or a host's."""
    return Path("/run/netns") / (namespace(settings, host) if host else settings.prefix)


def inside(settings: Settings) -> tuple[str, ...]:
    """Words to put before a command that is to run on the controller's side."""
    return ("nsenter", f"--net={path(settings)}", "--")


def remaining(settings: Settings) -> list[str]:
    """Names of this lab's namespaces."""
    names = (entry.name for entry in Path("/run/netns").glob(f"{settings.prefix}*"))
    return sorted(names)


def delete(settings: Settings) -> None:
    for name in remaining(settings):
        run("ip", "netns", "delete", name)
