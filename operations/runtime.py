"""Install a runtime from its recipe, as a unit of its own that outlives the SSH connection."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from multigpu import generation
from multigpu.hardware import Host
from multigpu.install import Recipe

# Waits for an installation that an earlier run began, as well as for its own: a job that systemd
# has queued shows no state yet. Prints a line now and then, so that neither the operator nor the
# connection falls asleep.
_RUN = """\
set -u
unit=$1 stamp=$2 script=$3
busy() { systemctl show -p ActiveState -p Job "$unit" | grep -Eq '=(.*activating|[1-9])'; }
if [ ! -e "$stamp" ] && ! busy; then
  systemctl reset-failed "$unit" 2>/dev/null
  systemd-run --quiet --unit="$unit" --property=RemainAfterExit=no \\
    --property=TimeoutStartSec=infinity --service-type=oneshot --no-block \\
    /bin/sh -c "$script" || busy || exit 1
fi
waited=0
while busy; do
  sleep 0.5; waited=$((waited + 1))
  [ $((waited % 20)) -eq 0 ] && journalctl -q -u "$unit" -n 1 -o cat --no-pager
done
[ -e "$stamp" ] && exit 0
echo "multigpu: $unit failed, its last words:" >&2
journalctl -q -u "$unit" _TRANSPORT=stdout -n 15 -o cat --no-pager >&2
exit 1
"""


@operation()
def runtimes(*, machine: Host, recipes: tuple[Recipe, ...]) -> Generator[StringCommand, None, None]:
    """Make each recipe's directory; nothing when its stamp is there or nothing is to install."""
    missing = [recipe for recipe in recipes if generation.runtime_missing(machine, recipe)]
    for recipe in missing:
        yield _install(recipe)
    if not missing:
        host.noop(", ".join(recipe.executable for recipe in recipes) + " is installed")


def _install(recipe: Recipe) -> StringCommand:
    directory = recipe.directory or ""
    name = directory.rsplit("/", 1)[-1]
    finish = (
        f"echo {name} > {directory}/installed.new\nmv {directory}/installed.new {recipe.stamp}\n"
    )
    return StringCommand(
        "sh",
        "-c",
        QuoteString(_RUN),
        "multigpu-install",
        QuoteString(f"multigpu-install-{name}.service"),
        QuoteString(recipe.stamp or ""),
        QuoteString((recipe.script or "") + finish),
    )
