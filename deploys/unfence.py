"""Let a fenced host or service start again, after saying why it was kept down.

    pyinfra inventories/homelab.py deploys/unfence.py
    pyinfra inventories/homelab.py deploys/unfence.py --data fence=chat    that one alone (or host)

Refuses while the reason stands: a card that is lost, or that needs a reset or a reboot. Starts
nothing: deploys/serve.py does. A second run changes nothing.
"""

from pyinfra import host

from deploys.assembly import program
from deploys.common import (
    QUICK_S,
    SLOW_S,
    captured,
    guarded,
    plan_file,
    privilege,
    refuse_unchangeable,
)
from deploys.fences import fence_lines, reactions_seen
from facts.reactions import ReactionsSeen
from multigpu import planfile
from multigpu.hardware import Host
from multigpu.host.unfence import HOST
from multigpu.store import texts
from operations.reactions import unfence
from operations.uploads import uploads


@guarded
def unfence_host() -> None:
    """Say each fence, and remove those whose reason is gone."""
    found = captured()
    if found is None:
        return
    machine = found[0]
    refuse_unchangeable(machine)
    seen = reactions_seen()
    for line in fence_lines(seen):
        host.log(line.partition("; do: ")[0])
    fences = _fences(machine, seen)
    if fences:
        uploads(
            name="Program", machine=machine, wanted=(program(),), _timeout=SLOW_S, **privilege()
        )
    arguments = {"_timeout": QUICK_S, **privilege()}
    unfence(name="Fences", program=program().path, fences=fences, **arguments)


def _fences(machine: Host, seen: ReactionsSeen) -> dict[str, tuple[str, ...]]:
    """Each fence with the cards that must be well: of the plan that will be served, as it is in
    the plan file. A host's are those of all its services."""
    path = plan_file()
    plans = planfile.read(texts.read_if_there(path), str(path))
    cards = {
        name: tuple(uuid for uuid in plan.gpu_uuids if uuid is not None)
        for name, plan in plans.items()
    }
    every = tuple(dict.fromkeys(card for each in cards.values() for card in each))
    there = {name: cards.get(name, ()) for name in seen.services}
    if seen.host is not None:
        there[HOST] = every
    only = host.data.get("fence")
    return {name: each for name, each in there.items() if only in (None, name)}


if not __package__:
    unfence_host()
