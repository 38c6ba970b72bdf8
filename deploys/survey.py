"""What is really there: one screen a host, and the captured machine as a file.

    pyinfra inventories/homelab.py deploys/survey.py

Changes nothing on any host. The file under captures/ is what a bug report needs.
"""

from pyinfra import host

from deploys.common import captured, directory, guarded, machine_name, say
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
    path = directory("captures_directory", "captures") / f"{machine_name()}.json"
    if texts.write(path, text + "\n"):
        host.log(f"wrote {path}")


if not __package__:
    survey_host()
