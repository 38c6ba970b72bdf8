"""HAProxy in front of the engines: its package, and units that run it."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from multigpu import generation
from multigpu.endpoint import RenderedEndpoint
from multigpu.endpoint_seen import EndpointsSeen, reload_reason, restart_reason
from multigpu.hardware import Host

# The distribution's own service would listen with its own example: Debian starts and enables it
# while it installs. It is masked meanwhile, then disabled; one that was there before is never
# touched, for then nothing is installed. systemd-run, so that a lost connection leaves no half.
_INSTALL = """\
set -u
say() { echo "multigpu: $*" >&2; }
[ -x /usr/sbin/haproxy ] && exit 0
systemctl mask --runtime --quiet haproxy.service
trap 'systemctl unmask --runtime --quiet haproxy.service; \
systemctl disable --quiet haproxy.service 2>/dev/null' EXIT
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
apt() { apt-get -q -y -o DPkg::Lock::Timeout=120 "$@"; }
if command -v apt-get >/dev/null; then
  apt install --no-install-recommends haproxy || { apt update; \
apt install --no-install-recommends haproxy; }
elif command -v dnf >/dev/null; then dnf -y install haproxy
elif command -v zypper >/dev/null; then zypper --non-interactive install haproxy
else say "neither apt-get, dnf nor zypper is here"
fi
[ -x /usr/sbin/haproxy ]
"""
_UNIT = "multigpu-install-haproxy.service"
_RUN = """\
script=$1 unit=$2 proxy=$3
systemctl reset-failed "$unit" 2>/dev/null
systemd-run --quiet --wait --collect --unit="$unit" --service-type=oneshot \\
  ${proxy:+--setenv=http_proxy="$proxy" --setenv=https_proxy="$proxy"} \\
  /bin/sh -c "$script" && exit 0
echo "multigpu: haproxy cannot be installed; the last words:" >&2
journalctl -q -u "$unit" _TRANSPORT=stdout -n 12 -o cat --no-pager >&2
echo "multigpu: install the package haproxy by hand, or set endpoint = False" >&2
exit 1
"""


@operation()
def package(*, seen: EndpointsSeen, proxy: str | None) -> Generator[StringCommand, None, None]:
    """The distribution's HAProxy, without its own service running; nothing when it is there."""
    if seen.installed:
        host.noop("haproxy is installed")
        return
    script = ("sh", "-c", QuoteString(_RUN), "multigpu-haproxy")
    yield StringCommand(*script, QuoteString(_INSTALL), _UNIT, QuoteString(proxy or ""))


# Another worker with the planned text, or it was in vain.
_WAIT = """\
import socket, subprocess, sys, time
unit, verb, path, description = sys.argv[1:5]
def info():
    try:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(2)
            channel.connect(path)
            channel.sendall(b"show info\\n")
            lines = channel.makefile(errors="replace").read().splitlines()
        pairs = [line.split(": ", 1) for line in lines if ": " in line]
        return {name.lower(): value for name, value in pairs}
    except OSError:
        return {}
before = info().get("pid")
subprocess.call(["systemctl", "reset-failed", unit], stderr=subprocess.DEVNULL)
done = subprocess.call(["systemctl", verb, unit])
deadline = time.monotonic() + 20
while not done and time.monotonic() < deadline:
    now = info()
    if now.get("pid", before) != before and now.get("description") == description:
        sys.exit(0)
    time.sleep(0.1)
sys.stderr.write("multigpu: %s: %s did not bring the planned configuration:\\n" % (unit, verb))
journal = ["journalctl", "-q", "-u", unit, "-n", "12", "-o", "cat", "--no-pager"]
subprocess.call(journal, stdout=sys.stderr)
sys.exit(1)
"""


@operation()
def endpoints(
    *, machine: Host, seen: EndpointsSeen, wanted: tuple[RenderedEndpoint, ...]
) -> Generator[StringCommand, None, None]:
    """Enabled, and the worker that serves has read the planned files; reloaded where that does."""
    changed = False
    for endpoint in wanted:
        for command in _commands(machine, seen, endpoint):
            changed = True
            yield command
    if not changed:
        host.noop("endpoints serve what is planned" if wanted else "no endpoint is planned")


def _commands(
    machine: Host, seen: EndpointsSeen, endpoint: RenderedEndpoint
) -> Iterator[StringCommand]:
    if generation.needs_enable(machine, endpoint):
        yield StringCommand("systemctl", "enable", "--quiet", QuoteString(endpoint.name))
    reason, verb = restart_reason(machine, endpoint), "restart"
    if reason is None:
        reason, verb = reload_reason(machine, seen, endpoint), "reload"
    if reason is not None:
        host.log(f"{endpoint.name}: {reason}")
        description = f"multigpu-revision-{endpoint.config_revision}"
        program = ("python3", "-c", QuoteString(_WAIT), QuoteString(endpoint.name), verb)
        yield StringCommand(*program, QuoteString(endpoint.socket), description)


# A server that came back is used again once HAProxy has asked: before that, the next one must not
# go. Where no endpoint runs, there is nothing to wait for.
_BACK = """\
import socket, sys, time
path, backend, server = sys.argv[1:4]
deadline = time.monotonic() + 30
while time.monotonic() < deadline:
    try:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(path)
            channel.sendall(b"show stat\\n")
            text = channel.makefile(errors="replace").read()
    except OSError:
        sys.exit(0)
    rows = [line.split(",") for line in text.splitlines()]
    states = [row[17] for row in rows if row[:2] == [backend, server]]
    if not states or states[0] == "UP":
        sys.exit(0)
    time.sleep(0.2)
sys.exit("multigpu: HAProxy holds %s for %s" % (server, states[0]))
"""


def wait_until_back(endpoint: RenderedEndpoint, server: str) -> StringCommand:
    """Return when the endpoint sends requests to this engine again."""
    program = ("python3", "-c", QuoteString(_BACK), QuoteString(endpoint.socket))
    return StringCommand(*program, QuoteString(endpoint.wish), QuoteString(server))
