"""What is really there: one screen a host, and the captured machine as a file.

    pyinfra inventories/homelab.py deploys/survey.py

Changes nothing on any host. The file under captures/ is what a bug report needs.
"""

from pathlib import Path

from pyinfra import host

from deploys.common import captured, guarded, machine_name, say
from multigpu.store import texts
from multigpu.survey import survey


@guarded
def survey_host() -> None:
    """Print this host's screen and keep its capture."""
    found = captured()
    if found is None:
        return
    machine, text = found
    say(survey(machine))
    directory = Path(host.data.get("captures_directory", "captures"))
    texts.write(directory / f"{machine_name()}.json", text + "\n")


if not __package__:
    survey_host()
