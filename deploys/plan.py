"""How each service should use the cards, why, and why not otherwise.

    pyinfra inventories/homelab.py deploys/plan.py

Plans anew and writes plans/<host>.yaml; pins and comments in it are kept. Changes nothing on hosts.
"""

from deploys.asking import memory_asked
from deploys.assembly import decided
from deploys.common import captured, guarded, plan_file, say
from multigpu.explain import short


@guarded
def plan_host() -> None:
    """Print and write this host's plans."""
    found = captured()
    if found is None:
        return
    for plan in decided(found[0], anew=True).plans:
        say(short(plan, str(plan_file())))
        for line in memory_asked(found[0], plan):
            say(line)


if not __package__:
    plan_host()
