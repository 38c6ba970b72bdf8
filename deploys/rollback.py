"""Return to the generation that served before the one in place; a second time changes nothing.

    pyinfra inventories/homelab.py deploys/rollback.py

The host keeps it and does it as one transaction: where it does not come up, the one in place
returns. The plan file stays as it is, so the next deploys/serve.py goes forward again; the last
line says how to stay.
"""

from pyinfra import host

from deploys.assembly import deployments, program
from deploys.common import (
    QUICK_S,
    captured,
    generations_seen,
    guarded,
    machine_name,
    plan_file,
    privilege,
    refuse_unchangeable,
    verify_s,
)
from multigpu import planfile
from multigpu.errors import MultigpuError
from multigpu.generation import Deployment
from multigpu.hardware import Host
from multigpu.transaction import DIRECTORY, Seen, patience_s
from operations.lock import hold
from operations.transaction import PATIENCE_S, roll_back
from operations.uploads import uploads
from operations.verify import verify


@guarded
def rollback() -> None:
    """Order: one deploy at a time, the way back, verification by the plan of that generation."""
    found = captured()
    if found is None:
        return
    machine = found[0]
    refuse_unchangeable(machine)
    kept, _ = generations_seen()
    done = kept.rolled_back_from is not None
    if kept.current is None or (kept.previous is None and not done):
        raise MultigpuError(
            "no generation before the one in place is kept here: there is nothing to return to"
        )
    root = privilege()
    hold(name="One deploy at a time", mark=kept.lock, **root)
    uploads(name="Programs", machine=machine, wanted=(program(),), _timeout=QUICK_S, **root)
    wanted = of_plan(machine, kept.plan_of_current if done else kept.plan)
    limit_s = patience_s([unit for d in wanted for unit in d.units], PATIENCE_S)
    roll_back(name="Return", seen=kept, program=program().path, limit_s=limit_s, **root)
    if wanted:
        verify(
            name="Verification",
            program=program().path,
            deployments=wanted,
            seconds=verify_s(),
            **root,
        )
    host.log(last_line(kept))


def of_plan(machine: Host, text: str | None) -> tuple[Deployment, ...]:
    """What that generation's plan file asks for; nothing where none is kept with it."""
    if not text:
        return ()
    plans = planfile.read(text, f"{machine.name}:{DIRECTORY}")
    return deployments(machine, tuple(plans.values()))


def last_line(kept: Seen) -> str:
    """Where this leads, and how to stay there."""
    number = kept.current if kept.rolled_back_from is not None else kept.previous
    return (
        f"generation {number} is to serve; {plan_file()} is as it was, so the next "
        "deploys/serve.py goes forward again. To stay: take the change out of the inventory, and "
        f"put {machine_name()}:{DIRECTORY}/{number}/plan.yaml in the place of {plan_file()}"
    )


if not __package__:
    rollback()
