"""Plans, recipes and rendered units of one host, put together from the controller's files."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pyinfra import host

from deploys.common import TEMPLATES, directory, load_model, machine_name, plan_file, services
from multigpu import (
    credentials,
    devices_unit,
    endpoint,
    fetching,
    gave_up_unit,
    listening,
    recover_unit,
)
from multigpu.decide import decide
from multigpu.devices_unit import DevicesUnit
from multigpu.fetching import Fetch
from multigpu.gave_up_unit import GaveUpUnit
from multigpu.generation import Deployment, Unit
from multigpu.hardware import Host
from multigpu.install import Source, Upload, read_source
from multigpu.plan import Plan
from multigpu.runtimes import runtime
from multigpu.speed import measured_file
from multigpu.speed.measured import Measurement
from multigpu.store import archive, hub, texts, uploads
from multigpu.store.recipes import recipe
from multigpu.transaction import Wanted
from multigpu.units import render


class Decided(NamedTuple):
    """The plans that hold, and whether they are other than those the plan file had."""

    plans: tuple[Plan, ...]
    changed: bool


def decided(machine: Host, *, anew: bool = False) -> Decided:
    """The plans that hold for this host; the plan file is written when they changed."""
    path = plan_file()
    decision = decide(
        machine,
        services(),
        existing=texts.read_if_there(path),
        path=str(path),
        load_model=load_model,
        anew=anew,
        measured=measured(),
    )
    changed = texts.write(path, decision.text)
    if changed:
        host.log(f"wrote {path}")
    return Decided(decision.plans, changed)


def measured() -> tuple[Measurement, ...]:
    """What `measurements/<host>.yaml` holds, unless `measurements_directory` is set; may be none.

    Raises MultigpuError when the file holds something else.
    """
    path = directory("measurements_directory", "measurements") / f"{machine_name()}.yaml"
    text = texts.read_if_there(path)
    return () if text is None else measured_file.read(text, str(path))


def packages() -> Source:
    """Where runtimes' packages come from. Raises MultigpuError when the inventory's words do not
    hold."""
    keys = ("package_index", "wheel_directory", "https_proxy")
    return read_source({key: host.data.get(key) for key in keys})


def own_locks() -> Path | None:
    """`requirements_directory`: locks of the operator's own. Raises MultigpuError."""
    named = host.data.get("requirements_directory") is not None
    return directory("requirements_directory", "") if named else None


def program() -> Upload:
    """The archive of host programs."""
    return archive.host_program()


def deployments(machine: Host, plans: tuple[Plan, ...]) -> tuple[Deployment, ...]:
    """Everything that serving these plans needs on the host."""
    return tuple(_deployment(machine, plan) for plan in plans)


def devices(machine: Host, plans: tuple[Plan, ...]) -> DevicesUnit:
    """The unit that looks for the cards of all services."""
    return devices_unit.render(
        machine, plans, host_program=program().path, templates=texts.templates(TEMPLATES)
    )


def gave_up(machine: Host) -> GaveUpUnit:
    """The unit that says aloud that a service stays down."""
    return gave_up_unit.render(
        machine.name, host_program=program().path, templates=texts.templates(TEMPLATES)
    )


def generation(machine: Host, plans: tuple[Plan, ...], each: tuple[Deployment, ...]) -> Wanted:
    """All that the host is to hold, with the plan file that it was made from."""
    first: tuple[Unit, ...] = (devices(machine, plans), gave_up(machine))
    wanted = Wanted(each, first, (recover_unit.NAME,), program().path, plan_text())
    recover = recover_unit.render(
        machine.name,
        wanted.all,
        host_program=program().path,
        templates=texts.templates(TEMPLATES),
    )
    return replace(wanted, others=(*first, recover))


def plan_text() -> str:
    """The plan file as it is now; empty where there is none."""
    return texts.read_if_there(plan_file()) or ""


def _deployment(machine: Host, plan: Plan) -> Deployment:
    installed = recipe(machine, plan, TEMPLATES, packages(), own_locks())
    model_path, files = uploads.model(plan.model, base=Path())
    brought = fetch(plan)
    engines = listening.behind(plan)
    services = runtime(plan.chosen.runtime).render(engines, installed.executable, model_path)
    rendered = tuple(
        render(
            engines,
            service,
            host_program=program().path,
            extra=(*installed.environment, *fetching.offline(plan.model)),
            templates=texts.templates(TEMPLATES),
        )
        for service in services
    )
    before = endpoint.render(plan, services, templates=texts.templates(TEMPLATES))
    return Deployment(plan, installed, files, rendered, brought, before)


def fetch(plan: Plan) -> Fetch | None:
    """The model as the host fetches it; None where it is there or comes from here."""
    token = credentials.path(plan.wish.name, fetching.CREDENTIAL)
    return fetching.fetch(
        plan.model,
        endpoint=hub.endpoint(),
        credential=token if plan.wish.hf_token_file else None,
        proxy=packages().https_proxy,
    )
