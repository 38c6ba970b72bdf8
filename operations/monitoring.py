"""What watches a host: its units run, and a Prometheus and a Grafana beside it have our files."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Generator, Mapping
from pathlib import PurePosixPath

from pyinfra import host
from pyinfra.api import FileUploadCommand, QuoteString, StringCommand, operation
from pyinfra.facts.files import Sha256File

from multigpu import generation, monitoring
from multigpu.hardware import Host
from multigpu.monitoring import MonitorUnit, PlanFacts
from operations.common import Staging, install, script
from operations.in_use import WRITE

# An exporter that listens answers; one that cannot says so in its journal.
_START = """\
unit=$1 url=$2
systemctl reset-failed "$unit" 2>/dev/null
systemctl restart "$unit" || exit 1
ask='import sys, urllib.request as r
r.build_opener(r.ProxyHandler({})).open(sys.argv[1], timeout=10).read()'
for _ in $(seq 20); do
  sleep 0.5
  if [ -z "$url" ]; then
    systemctl is-active --quiet "$unit" && exit 0
  else
    python3 -c "$ask" "$url" 2>/dev/null && systemctl is-active --quiet "$unit" && exit 0
  fi
done
echo "multigpu: $unit does not answer; its last words:" >&2
journalctl -q -u "$unit" -n 5 -o cat --no-pager >&2
exit 1
"""


@operation()
def watchers(*, machine: Host, units: tuple[MonitorUnit, ...]) -> Generator[StringCommand]:
    """The units are loaded as on disk, enabled, and run the rendered revision."""
    changed = False
    if generation.needs_reload(machine, units):
        changed = True
        yield StringCommand("systemctl", "daemon-reload")
    for unit in units:
        if generation.needs_enable(machine, unit):
            changed = True
            yield StringCommand("systemctl", "enable", "--quiet", QuoteString(unit.name))
        reason = monitoring.restart_reason(machine, unit)
        if reason is not None:
            changed = True
            host.log(f"{unit.name}: {reason}")
            words = (QuoteString(unit.name), QuoteString(unit.url or ""))
            yield StringCommand("sh", "-c", QuoteString(_START), "multigpu-start", *words)
    if not changed:
        host.noop("exporter and kernel log run as rendered")


@operation()
def given_files(
    *, files: Mapping[str, str], reload: tuple[str, ...] = ()
) -> Generator[StringCommand | FileUploadCommand]:
    """Files for programs that are not ours, by path; `reload` are units told of a change."""
    missing = {
        path: content
        for path, content in files.items()
        if host.get_fact(Sha256File, path=path) != hashlib.sha256(content.encode()).hexdigest()
    }
    if not missing:
        host.noop(f"{', '.join(PurePosixPath(path).name for path in files)}: as given")
        return
    staging = Staging()
    yield staging.create()
    for number, (path, content) in enumerate(missing.items()):
        yield staging.put(io.BytesIO(content.encode()), str(number))
        placed = script(*install(f"{staging.path}/{number}", path, "0644"))
        yield staging.or_remove(placed)
    yield staging.remove()
    for unit in reload:
        yield StringCommand("systemctl", "try-reload-or-restart", QuoteString(unit))


@operation()
def plans_told(*, machine: Host, facts: tuple[PlanFacts, ...]) -> Generator[StringCommand]:
    """What is planned, for the exporter: `/etc/multigpu/<service>.plan.json`. Restarts nothing."""
    files = generation.files_to_install(machine, facts)
    if not files:
        host.noop("the exporter knows the plans")
        return
    for file in files:
        words = (QuoteString(word) for word in (file.path, file.content, file.mode))
        yield StringCommand("sh", "-c", QuoteString(WRITE), "multigpu-record", *words)
