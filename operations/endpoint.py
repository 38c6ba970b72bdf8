"""HAProxy in front of the engines: its package. Its units come with the transaction."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from multigpu.endpoint_seen import EndpointsSeen

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
