"""From a bare host to a verified service; a second run changes nothing.

    pyinfra inventories/homelab.py deploys/serve.py

Applies plans/<host>.yaml, planning first where there is none or where the wish changed. Where the
inventory sets `rehearsal_directory`, files are written there and no host is touched.
"""

from pyinfra import host

from deploys.assembly import decided, deployments, program
from deploys.common import (
    QUICK_S,
    SLOW_S,
    captured,
    guarded,
    plan_file,
    privilege,
    refuse_unchangeable,
    rehearsal_directory,
    say,
    verify_s,
)
from multigpu.explain import headline, short
from multigpu.generation import Deployment
from multigpu.install import Upload
from multigpu.store import rehearsal
from operations.layout import layout
from operations.runtime import runtimes
from operations.units import converge, install_text
from operations.uploads import uploads
from operations.verify import verify


@guarded
def serve() -> None:
    """Order: account, files, runtime, text, processes, verification."""
    found = captured()
    if found is None:
        return
    machine = found[0]
    plans, changed = decided(machine)
    directory = rehearsal_directory()
    for plan in plans:
        if changed or directory is not None:
            say(short(plan, str(plan_file())))
        else:
            host.log(f"{headline(plan)}, as in {plan_file()}")
    wanted = deployments(machine, plans)
    units = tuple(unit for deployment in wanted for unit in deployment.units)
    if directory is not None:
        rehearsal.write(directory, units)
        return
    refuse_unchangeable(machine)
    root = privilege()
    quick, slow = {**root, "_timeout": QUICK_S}, {**root, "_timeout": SLOW_S}
    layout(name="Account and directories", machine=machine, **quick)
    uploads(name="Programs, wheels and models", machine=machine, wanted=files(wanted), **slow)
    recipes = tuple(dict.fromkeys(deployment.recipe for deployment in wanted))
    runtimes(name="Runtime", machine=machine, recipes=recipes, **slow)
    install_text(name="Unit and environment files", machine=machine, units=units, **quick)
    patience = QUICK_S + max((plan.wish.start_s for plan in plans), default=0)
    converge(name="Processes", machine=machine, units=units, _timeout=patience, **root)
    verify(
        name="Verification", program=program().path, deployments=wanted, seconds=verify_s(), **root
    )


def files(wanted: tuple[Deployment, ...]) -> tuple[Upload, ...]:
    """Every file the host needs, each once."""
    each = [*(d.recipe.uploads for d in wanted), *(d.models for d in wanted)]
    return tuple(dict.fromkeys((program(), *(upload for group in each for upload in group))))


if not __package__:
    serve()
