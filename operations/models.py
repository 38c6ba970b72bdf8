"""Models that the host fetches itself, each by a unit of its own that outlives its connection."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from pyinfra import host, state
from pyinfra.api import FunctionCommand, QuoteString, StringCommand, operation

from multigpu import generation
from multigpu.fetching import CREDENTIAL, Fetch, size, watched
from multigpu.hardware import Host
from multigpu.install import MODELS
from multigpu.units import USER
from operations.common import fail
from operations.waiting import connector_arguments, watch

# What runs already, begun by an earlier run, is joined and not begun again. The status of an
# earlier attempt goes first, so that its reason is not taken for that of this one.
_START = """\
set -u
unit=$1 models=$2 directory=$3 user=$4 status=$5 credential=$6
shift 6
busy() { systemctl show -p ActiveState -p Job "$unit" | grep -Eq '=(.*activating|[1-9])'; }
busy && exit 0
if [ -n "$credential" ] && [ ! -e "$credential" ]; then
  echo "multigpu: $credential is not there: run deploys/serve.py with hf_token_file" >&2
  exit 1
fi
install -d -m 0755 "$models" && install -d -m 0755 -o "$user" -g "$user" "$directory" || exit 1
rm -f "$status"
systemctl reset-failed "$unit" 2>/dev/null
systemd-run --quiet --unit="$unit" --service-type=oneshot --no-block "$@" || busy
"""

# Only the model's directory can be written, and nothing else of the host can be seen or reached
# but the network. Properties by the systemd that knows them first.
_PROPERTIES = {
    239: (
        "RemainAfterExit=no",
        "TimeoutStartSec=infinity",
        f"User={USER}",
        f"Group={USER}",
        "UMask=0022",
        "Nice=10",
        "IOSchedulingClass=best-effort",
        "IOSchedulingPriority=7",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "PrivateMounts=yes",
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectControlGroups=yes",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "LockPersonality=yes",
        "MemoryDenyWriteExecute=yes",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "SystemCallFilter=~@privileged @resources",
        "SystemCallErrorNumber=EPERM",
        "LimitCORE=0",
    ),
    242: ("ProtectHostname=yes", "RestrictSUIDSGID=yes"),
    244: ("ProtectKernelLogs=yes",),
    245: ("ProtectClock=yes",),
    247: ("ProtectProc=invisible",),
}
CREDENTIALS_SINCE = 247
"""systemd's LoadCredential=, man systemd.exec."""


@operation()
def models(
    *, machine: Host, fetches: tuple[Fetch, ...], program: str
) -> Generator[StringCommand | FunctionCommand, None, None]:
    """Bring what has no stamp; nothing when all models are there. `program`: the archive's path."""
    missing = generation.fetches_missing(machine, fetches)
    if not missing:
        host.noop(f"{len(fetches)} fetched models are there")
        return
    for fetch in missing:
        if fetch.credential and (machine.systemd or 0) < CREDENTIALS_SINCE:
            yield fail(
                f"{fetch.name} needs a token, and systemd {machine.systemd} of this host has no "
                f"LoadCredential=, needed is {CREDENTIALS_SINCE}: bring the model there yourself "
                "and give its path"
            )
            return
    yield from _bring(machine, missing, program)


def _bring(
    machine: Host, missing: tuple[Fetch, ...], program: str
) -> Iterator[StringCommand | FunctionCommand]:
    arguments = connector_arguments(host.current_op_global_arguments)
    for fetch in missing:
        if state.is_executing:
            host.log(f"{fetch.name}: {size(fetch.size_bytes)} by {fetch.unit}")
        yield _start(machine, fetch, program)
        yield watch(
            fetch.unit,
            stamp=fetch.stamp,
            status=fetch.status,
            title=fetch.name,
            reader=watched,
            arguments=arguments,
        )


def _start(machine: Host, fetch: Fetch, program: str) -> StringCommand:
    words = (fetch.unit, MODELS, fetch.directory, USER, fetch.status, fetch.credential or "")
    return StringCommand(
        "sh",
        "-c",
        QuoteString(_START),
        "multigpu-fetch",
        *(QuoteString(word) for word in (*words, *unit_words(machine.systemd, fetch, program))),
    )


def unit_words(systemd: int | None, fetch: Fetch, program: str) -> Iterator[str]:
    """Arguments of systemd-run: properties of the unit, then the program. No secret is in them."""
    for since, properties in _PROPERTIES.items():
        if since <= (systemd or 0):
            yield from (f"--property={each}" for each in properties)
    yield f"--property=Description=multigpu fetches {fetch.name}"
    yield f"--property=ReadWritePaths={fetch.directory}"
    if fetch.credential:
        yield f"--property=LoadCredential={CREDENTIAL}:{fetch.credential}"
    if fetch.proxy:
        yield from (f"--setenv={name}={fetch.proxy}" for name in ("https_proxy", "http_proxy"))
    yield from ("/usr/bin/python3", program, "fetch", "--spec", fetch.spec.path)
