"""From a bare host to a verified service; a second run changes nothing.

    pyinfra inventories/homelab.py deploys/serve.py

Applies plans/<host>.yaml, planning first where there is none or where the wish changed. Where the
inventory sets `rehearsal_directory`, files are written there and no host is touched.

    --data switch_runtime=chat    lets chat go over to another runtime in its first week of use
"""

from time import time

from pyinfra import host

from deploys import secrets_of
from deploys.assembly import decided, deployments, devices, packages, program
from deploys.common import (
    QUICK_S,
    SLOW_S,
    captured,
    endpoints_seen,
    guarded,
    plan_file,
    privilege,
    refuse_switch,
    refuse_unchangeable,
    refuse_uninstallable,
    rehearsal_directory,
    say,
    verify_s,
    wished_names,
)
from deploys.fences import reactions_line, reactions_seen, reactions_wanted, refuse_fenced
from facts.reactions import ReactionsSeen
from multigpu import generation, switching
from multigpu.credentials import unwanted
from multigpu.endpoint_seen import NONE_SEEN
from multigpu.explain import headline, short
from multigpu.generation import Deployment, Unit, runtime_missing
from multigpu.hardware import Host
from multigpu.install import Upload
from multigpu.listening import DRAIN_S
from multigpu.store import rehearsal
from operations.credentials import credentials, forget
from operations.endpoint import endpoints, package
from operations.in_use import runtimes_in_use
from operations.layout import layout
from operations.models import models
from operations.prune import prune
from operations.reactions import reactions
from operations.runtime import Installer, build_wheels, fetch_wheels, runtimes
from operations.units import converge, install_text
from operations.uploads import uploads
from operations.verify import verify


@guarded
def serve() -> None:
    """Order: accounts, files, secrets, models, runtime, text, processes, verification."""
    found = captured()
    if found is None:
        return
    machine = found[0]
    fences = reactions_seen() if rehearsal_directory() is None else ReactionsSeen()
    refuse_fenced(fences, wished_names())
    plans, changed = decided(machine)
    directory = rehearsal_directory()
    for plan in plans:
        if changed or directory is not None:
            say(short(plan, str(plan_file())))
        else:
            host.log(f"{headline(plan)}, as in {plan_file()}")
    wanted = deployments(machine, plans)
    units = tuple(unit for deployment in wanted for unit in deployment.units)
    before = tuple(d.endpoint for d in wanted if d.endpoint is not None)
    others: tuple[Unit, ...] = (devices(machine, plans), *before)
    if directory is not None:
        rehearsal.write(directory, (*others, *units))
        return
    refuse_unchangeable(machine)
    refuse_switch(machine, plans)
    refuse_uninstallable(machine, wanted)
    root = privilege()
    quick, slow = {**root, "_timeout": QUICK_S}, {**root, "_timeout": SLOW_S}
    kept = secrets_of.services(plans)
    renewed = secrets_of.missing(kept)
    names = tuple(plan.wish.name for plan in plans)
    layout(name="Account and directories", machine=machine, services=names, **quick)
    uploads(
        name="Programs, wheels and models", machine=machine, wanted=files(machine, wanted), **slow
    )
    credentials(name="Credentials", missing=renewed, **quick)
    fetches = tuple(deployment.fetch for deployment in wanted if deployment.fetch is not None)
    models(name="Models", machine=machine, fetches=fetches, program=program().path, **root)
    recipes = tuple(dict.fromkeys(deployment.recipe for deployment in wanted))
    by = Installer(program().path, packages())
    build_wheels(name="Wheels to build", machine=machine, recipes=recipes, by=by, **slow)
    fetch_wheels(name="Built wheels", machine=machine, recipes=recipes, **slow)
    runtimes(name="Runtime", machine=machine, recipes=recipes, by=by, **slow)
    seen = endpoints_seen() if before else NONE_SEEN
    if before:
        package(name="HAProxy", seen=seen, proxy=packages().https_proxy, **slow)
    install_text(
        name="Unit and environment files", machine=machine, units=(*others, *units), **quick
    )
    patience = QUICK_S + DRAIN_S + max((plan.wish.start_s for plan in plans), default=0)
    after = generation.renewed(machine, (secret.path for secret in renewed))
    converge(name="Processes", machine=after, units=units, others=others, _timeout=patience, **root)
    in_use, gone = switching.records(machine, plans, time()), switching.unwanted(machine, names)
    runtimes_in_use(name="Runtimes in use", records=in_use, unwanted=gone, **quick)
    if before:
        endpoints(name="Endpoints", machine=after, seen=seen, wanted=before, **quick)
    react = reactions_wanted(machine, plans, units)
    reactions(name="Reactions", seen=fences, wanted=react, **quick)
    host.log(reactions_line())
    left = unwanted(machine, kept)
    forget(name="Credentials no longer wanted", paths=left, **quick)
    verify(
        name="Verification", program=program().path, deployments=wanted, seconds=verify_s(), **root
    )
    serving = {deployment.plan.wish.name: deployment.recipe for deployment in wanted}
    prune(name="Older runtimes", machine=machine, wanted=serving, **quick)


def files(machine: Host, wanted: tuple[Deployment, ...]) -> tuple[Upload, ...]:
    """Every file the host needs, each once; those of a runtime until it is installed."""
    missing = [d.recipe for d in wanted if runtime_missing(machine, d.recipe)]
    each = [*(recipe.uploads for recipe in missing), *(d.models for d in wanted)]
    each += [(d.fetch.spec,) for d in wanted if d.fetch is not None]
    return tuple(dict.fromkeys((program(), *(upload for group in each for upload in group))))


if not __package__:
    serve()
