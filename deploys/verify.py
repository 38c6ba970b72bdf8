"""Is every planned card fed, is memory as predicted, does the running process carry the plan?

    pyinfra inventories/homelab.py deploys/verify.py

Drives a short load against the running services. Changes nothing; fails the hosts that fail.
"""

from deploys.assembly import decided, deployments, program
from deploys.common import captured, guarded, privilege, verify_s
from operations.verify import verify


@guarded
def verify_host() -> None:
    """Verify this host's services as they are planned."""
    found = captured()
    if found is None:
        return
    machine = found[0]
    wanted = deployments(machine, decided(machine).plans)
    verify(
        name="Verification",
        program=program().path,
        deployments=wanted,
        seconds=verify_s(),
        **privilege(),
    )


if not __package__:
    verify_host()
