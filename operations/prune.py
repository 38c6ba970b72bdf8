"""Older runtimes go once the new one serves; what served before stays, to go back to."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from multigpu import install
from multigpu.hardware import Host
from multigpu.install.generations import Wanted

# The record first: a run cut short here prunes less than it might, never more. Only what is
# complete loses its locks and wheels.
_PRUNE = """\
set -eu
cd "$1"
keep=" $2 "
shift 2
rm -rf services.new
mkdir services.new
while [ "$#" -gt 0 ]; do
  service=$1 current=$2 previous=$3
  shift 3
  mkdir "services.new/$service"
  ln -s "../../runtimes/$current" "services.new/$service/current"
  keep="$keep$current "
  if [ -n "$previous" ]; then
    ln -s "../../runtimes/$previous" "services.new/$service/previous"
    keep="$keep$previous "
  fi
done
rm -rf services
mv services.new services
for path in runtimes/* wheels/*; do
  name=${path##*/}
  [ -e "$path" ] || continue
  if systemctl is-active --quiet "multigpu-install-$name.service"; then continue; fi
  case "$keep" in
  *" $name "*)
    case $path in
    runtimes/*) continue ;;
    *) [ -e "runtimes/$name/installed" ] || continue ;;
    esac
    ;;
  esac
  rm -rf "$path"
done
"""


@operation()
def prune(
    *, machine: Host, wanted: Wanted, stay: tuple[str, ...] = ()
) -> Generator[StringCommand, None, None]:
    """Record what serves now and what served before; every other runtime goes.

    But not those that a generation kept on the host runs from: `stay`, names of directories.
    """
    if not install.prune_needed(machine, wanted, stay):
        host.noop("nothing is left over")
        return
    words: list[str] = []
    for record in install.record_of(machine, wanted):
        words += [record.service, record.current or "", record.previous or ""]
    quoted = (QuoteString(word) for word in (install.PREFIX, " ".join(stay), *words))
    yield StringCommand("sh", "-c", QuoteString(_PRUNE), "multigpu-prune", *quoted)
