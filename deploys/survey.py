"""What is really there: a screen a host, one for the fleet, and each captured machine as a file.

    pyinfra inventories/homelab.py deploys/survey.py
    pyinfra inventories/homelab.py deploys/survey.py --data survey_json=fleet.json

Changes nothing on any host. The file under captures/ is what a bug report needs: serial numbers,
UUIDs, names and addresses in it are pseudonyms.
"""

import json
from pathlib import Path

from pyinfra import host

from deploys.common import captured, directory, guarded, machine_name, say
from deploys.fences import fence_lines, reactions_if_said, reactions_line
from deploys.roundup import RUN, Roundup
from multigpu.errors import MultigpuError
from multigpu.fleet import fleet
from multigpu.parse import capture
from multigpu.pseudonyms import pseudonymised
from multigpu.store import texts
from multigpu.survey import survey
from multigpu.survey_json import fleet_json


@guarded
def survey_host() -> None:
    """Print this host's screen and keep its capture."""
    try:
        found = captured()
    except MultigpuError as error:
        RUN.unreadable[machine_name()] = str(error)
        raise
    if found is None:
        return
    machine, text = found
    RUN.machines[machine_name()] = machine
    say(survey(machine))
    fenced = reactions_if_said()
    if fenced is not None:
        say("\n".join(f"  {line}" for line in (*fence_lines(fenced), reactions_line())))
    path = directory("captures_directory", "captures") / f"{machine_name()}.json"
    document = pseudonymised(capture.document(text, machine_name()), machine_name())
    if texts.write(path, json.dumps(document, indent=1) + "\n"):
        host.log(f"wrote {path}")


@guarded
def show_fleet() -> None:
    """The fleet's screen after the last host; one host needs none."""
    RUN.report(_show)


def _show(run: Roundup) -> None:
    machines = [run.machines[name] for name in sorted(run.machines)]
    if len(machines) + len(run.unreadable) > 1:
        say(fleet(machines, run.unreadable))
    if target := host.data.get("survey_json"):
        path = Path(target)
        if texts.write(path, json.dumps(fleet_json(machines, run.unreadable), indent=1) + "\n"):
            host.log(f"wrote {path}")


if not __package__:
    try:
        survey_host()
    finally:
        show_fleet()
