"""Take the services away again.

pyinfra inventories/homelab.py deploys/remove.py
pyinfra inventories/homelab.py deploys/remove.py --data purge=yes   also runtimes, models, account
"""

from pyinfra import host

from deploys.common import QUICK_S, captured, guarded, privilege, refuse_unchangeable
from operations.remove import remove


@guarded
def remove_services() -> None:
    """Stop and delete every unit of ours; nothing when there is none."""
    found = captured()
    if found is None:
        return
    refuse_unchangeable(found[0])
    purge = str(host.data.get("purge", "no")) == "yes"
    remove(name="Remove services", machine=found[0], purge=purge, _timeout=QUICK_S, **privilege())


if not __package__:
    remove_services()
