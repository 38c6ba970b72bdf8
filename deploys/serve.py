"""From a bare host to a verified service; a second run changes nothing.

    pyinfra inventories/homelab.py deploys/serve.py

Applies plans/<host>.yaml, planning first where there is none or where the wish changed. Where the
inventory sets `rehearsal_directory`, files are written there and no host is touched.

    --data switch_runtime=chat    lets chat go over to another runtime in its first week of use
"""

from time import time

from pyinfra import host

from deploys import secrets_of
from deploys.assembly import decided, deployments, generation, packages, program
from deploys.common import (
    QUICK_S,
    SLOW_S,
    captured,
    endpoints_seen,
    generations_seen,
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
from multigpu import generation as generations
from multigpu import switching, transaction
from multigpu.credentials import unwanted
from multigpu.endpoint_seen import NONE_SEEN
from multigpu.explain import headline, short
from multigpu.generation import Deployment, runtime_missing
from multigpu.hardware import Host
from multigpu.install import Upload
from multigpu.monitoring import plan_facts
from multigpu.plan import Plan
from multigpu.store import rehearsal
from multigpu.transaction import Seen, Wanted
from operations.credentials import credentials, forget
from operations.endpoint import package
from operations.in_use import runtimes_in_use
from operations.layout import layout
from operations.lock import hold
from operations.models import models
from operations.monitoring import plans_told
from operations.prune import prune
from operations.reactions import reactions
from operations.runtime import Installer, build_wheels, fetch_wheels, runtimes
from operations.transaction import commit, transact
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
    holds = generation(machine, plans, wanted)
    if directory is not None:
        rehearsal.write(directory, holds.all)
        return
    refuse_unchangeable(machine)
    refuse_switch(machine, plans)
    refuse_uninstallable(machine, wanted)
    kept, waited = generations_seen()
    machine = recaptured(machine) if waited else machine
    hold(name="One deploy at a time", mark=kept.lock, **privilege())
    secrets = bring(machine, plans, wanted)
    into_service(generations.renewed(machine, secrets), plans, holds, kept)
    react = reactions_wanted(machine, plans, holds.units)
    reactions(name="Reactions", seen=fences, wanted=react, _timeout=QUICK_S, **privilege())
    facts = tuple(plan_facts(machine, each.plan, each.units) for each in wanted)
    plans_told(
        name="Plans for the exporter", machine=machine, facts=facts, _timeout=QUICK_S, **privilege()
    )
    host.log(reactions_line())


def bring(machine: Host, plans: tuple[Plan, ...], wanted: tuple[Deployment, ...]) -> list[str]:
    """All that services need before anything of what serves is touched. Returns the paths of
    secrets that are new."""
    root = privilege()
    quick, slow = {**root, "_timeout": QUICK_S}, {**root, "_timeout": SLOW_S}
    renewed = secrets_of.missing(secrets_of.services(plans))
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
    return [secret.path for secret in renewed]


def into_service(machine: Host, plans: tuple[Plan, ...], holds: Wanted, kept: Seen) -> None:
    """One transaction, which the host ends by itself; then verification, on which it depends
    whether the new generation stays."""
    root = privilege()
    quick, slow = {**root, "_timeout": QUICK_S}, {**root, "_timeout": SLOW_S}
    seen = endpoints_seen() if holds.endpoints else NONE_SEEN
    if holds.endpoints:
        package(name="HAProxy", seen=seen, proxy=packages().https_proxy, **slow)
    changed = transaction.change(machine, seen, kept, holds)
    trial = changed is not None or kept.on_trial
    transact(name="Services", machine=machine, wanted=holds, changed=changed, **quick)
    names = tuple(plan.wish.name for plan in plans)
    in_use, gone = switching.records(machine, plans, time()), switching.unwanted(machine, names)
    runtimes_in_use(name="Runtimes in use", records=in_use, unwanted=gone, **quick)
    verify(
        name="Verification",
        program=program().path,
        deployments=holds.deployments,
        seconds=verify_s(),
        trial=trial,
        **root,
    )
    commit(name="Generation verified", program=program().path, trial=trial, **quick)
    left = unwanted(machine, secrets_of.services(plans))
    forget(name="Credentials no longer wanted", paths=left, **quick)
    serving = {deployment.plan.wish.name: deployment.recipe for deployment in holds.deployments}
    stay = transaction.kept_runtimes(kept, holds, changed)
    prune(name="Older runtimes", machine=machine, wanted=serving, stay=stay, **quick)


def recaptured(machine: Host) -> Host:
    """The host after a transaction that was waited for."""
    found = captured()
    return machine if found is None else found[0]


def files(machine: Host, wanted: tuple[Deployment, ...]) -> tuple[Upload, ...]:
    """Every file the host needs, each once; those of a runtime until it is installed."""
    missing = [d.recipe for d in wanted if runtime_missing(machine, d.recipe)]
    each = [*(recipe.uploads for recipe in missing), *(d.models for d in wanted)]
    each += [(d.fetch.spec,) for d in wanted if d.fetch is not None]
    return tuple(dict.fromkeys((program(), *(upload for group in each for upload in group))))


if not __package__:
    serve()
