"""Look at running services under load, and fail the host when they are not what was planned."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra import host, logger, state
from pyinfra.api import FunctionCommand, operation

from facts.observation import Observation
from multigpu import observation, verdict
from multigpu.generation import Deployment
from multigpu.runtimes import runtime
from operations.common import fail


@operation()
def verify(
    *, program: str, deployments: tuple[Deployment, ...], seconds: int = observation.SECONDS
) -> Generator[FunctionCommand, None, None]:
    """Nothing when all checks pass; a failing command with one line a service otherwise."""
    if not state.is_executing:
        host.noop("checked once the services run")
        return
    specs = [
        observation.spec(d.plan, d.units, runtime(d.plan.chosen.runtime).LOG_PATTERNS, seconds)
        for d in deployments
    ]
    seen = host.get_fact(Observation, program=program, specs=specs, _timeout=300)
    if seen is None:
        yield fail("verify: the observation gave no answer; is the service installed?")
        return
    for deployment, service in zip(deployments, seen, strict=True):
        checks = verdict.judge(deployment.plan, deployment.units, service)
        for line in verdict.screen(deployment.plan, service, checks).splitlines():
            host.log(line, log_func=logger.warning)
        problem = verdict.failure(deployment.plan, checks)
        if problem is not None:
            yield fail(problem)
    host.noop("every planned card is fed")
