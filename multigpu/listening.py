"""Where a service and its engines listen, with and without an endpoint in front of them."""

from __future__ import annotations

from dataclasses import replace

from multigpu.plan import Plan
from multigpu.wish_values import Endpoint

LOOPBACK = "127.0.0.1"
APART = 10000
"""Between a port that serves and the one beside it that tells: verdicts, metrics."""
HIGHEST_PORT = 65535
DRAIN_S = 120
"""How long an engine that is told to stop may go on with the requests it has."""


def wanted(plan: Plan) -> Endpoint | None:
    """The endpoint of a service: the wished one, or one with the defaults before replicas."""
    wished = plan.wish.endpoint
    if wished is None:
        return Endpoint() if plan.chosen.replicas > 1 else None
    return wished if wished.on else None


def behind(plan: Plan) -> Plan:
    """The plan as its engines are rendered: on loopback, from the port after the service's own.

    Nothing of a plan without an endpoint changes.
    """
    if wanted(plan) is None:
        return plan
    return replace(plan, wish=replace(plan.wish, bind=LOOPBACK, port=plan.wish.port + 1))


def address(plan: Plan) -> tuple[str, int]:
    """Where clients reach the service: address and port."""
    endpoint = wanted(plan) or Endpoint()
    return endpoint.bind or plan.wish.bind, endpoint.port or plan.wish.port


def beside(port: int) -> int:
    """The port on loopback that tells of another: an engine's verdict, an endpoint's metrics."""
    return port + APART if port + APART <= HIGHEST_PORT else port - APART


def ports(plan: Plan) -> tuple[int, ...]:
    """Every TCP port that a service takes on its host; one that is there twice is a conflict."""
    first = behind(plan).wish.port
    engines = tuple(range(first, first + plan.chosen.replicas))
    if wanted(plan) is None:
        return engines
    own = address(plan)[1]
    return (own, beside(own), *engines, *(beside(port) for port in engines))
