"""`deploys/serve.py` up to the moment before it starts anything: a run cut short there."""

from deploys.assembly import decided, deployments
from deploys.common import captured, guarded, privilege
from operations.units import install_text


@guarded
def cut_short():
    machine = captured()[0]
    wanted = deployments(machine, decided(machine).plans)
    units = tuple(unit for deployment in wanted for unit in deployment.units)
    install_text(name="Unit and environment files", machine=machine, units=units, **privilege())


if not __package__:
    cut_short()
