"""Look at running services under load, and fail the host when they are not what was planned."""

from __future__ import annotations

import traceback
from collections.abc import Generator

from pyinfra import host, logger, state
from pyinfra.api import FileUploadCommand, FunctionCommand, StringCommand, operation

from facts.observation import Observation
from multigpu import observation, verdict
from multigpu.generation import Deployment
from multigpu.observation import ServiceSeen
from multigpu.runtimes import runtime
from multigpu.transaction import patience_s
from operations.common import fail
from operations.transaction import PATIENCE_S, run

SILENT = "verify: the observation gave no answer: see above, then run deploys/verify.py again"


@operation()
def verify(
    *,
    program: str,
    deployments: tuple[Deployment, ...],
    seconds: int = observation.SECONDS,
    trial: bool = False,
) -> Generator[FunctionCommand | StringCommand | FileUploadCommand, None, None]:
    """Nothing when all checks pass; a failing command with one line a service otherwise.

    With `trial` the host goes back to the generation before, where it keeps one. An observation
    that gives no answer says nothing against a generation.
    """
    if not state.is_executing:
        host.noop("checked once the services run")
        return
    specs = [
        observation.spec(
            d.plan,
            d.units,
            runtime(d.plan.chosen.runtime).LOG_PATTERNS,
            seconds,
            None if d.endpoint is None else d.endpoint.url,
        )
        for d in deployments
    ]
    seen = host.get_fact(
        Observation,
        program=program,
        specs=specs,
        _timeout=observation.limit_s(specs),
        _ignore_errors=True,  # else pyinfra fails the host here, in the middle of an operation
    )
    if not seen:
        yield fail("verify: nothing is installed: run deploys/serve.py" if seen == () else SILENT)
        return
    problems = []
    for screen, problem in _judged(deployments, seen):
        for line in screen.splitlines():
            host.log(line, log_func=logger.warning)
        problems += [] if problem is None else [problem]
    if problems and trial:
        limit_s = patience_s([unit for d in deployments for unit in d.units], PATIENCE_S)
        yield from run(program, ("return", "; ".join(problems)), "verification", limit_s)
    for problem in problems:
        yield fail(problem)
    host.noop("every planned card is fed")


def _judged(
    deployments: tuple[Deployment, ...], seen: tuple[ServiceSeen, ...]
) -> list[tuple[str, str | None]]:
    """Screen and problem of each service. An exception here would end the run of all hosts."""
    try:
        return [_judge(d, service) for d, service in zip(deployments, seen, strict=True)]
    except Exception as error:
        logger.error(traceback.format_exc())
        return [("", f"a bug in multigpu, {type(error).__name__}: {error} (please report)")]


def _judge(deployment: Deployment, seen: ServiceSeen) -> tuple[str, str | None]:
    checks = verdict.judge(deployment.plan, deployment.units, seen)
    return verdict.screen(deployment.plan, seen, checks), verdict.failure(deployment.plan, checks)
