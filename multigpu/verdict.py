"""Is the service what was planned? Pure judgement of an observation, one `Check` a question."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from multigpu.fed import REDEPLOY, check_cards, differences
from multigpu.listening import address
from multigpu.observation import ServiceSeen, UnitSeen
from multigpu.plan import Check, Plan
from multigpu.runtimes import runtime
from multigpu.units import RenderedUnit

WIDTH = 80


def judge(plan: Plan, units: tuple[RenderedUnit, ...], seen: ServiceSeen) -> tuple[Check, ...]:
    """All checks of one service, in the order an operator would ask."""
    return (
        *(check for unit in units for check in check_unit(plan, unit, find_unit(seen, unit.name))),
        check_answers(seen),
        *check_endpoint(plan, seen),
        *check_cards(plan, units, seen),
    )


def find_unit(seen: ServiceSeen, name: str) -> UnitSeen | None:
    """What was seen of one unit."""
    return next((unit for unit in seen.units if unit.unit == name), None)


def check_unit(plan: Plan, unit: RenderedUnit, seen: UnitSeen | None) -> Iterator[Check]:
    """One process: it runs, it is the planned one, and what it says of itself."""
    running = check_running(unit, seen)
    yield running
    if running.ok and seen is not None:
        yield check_command_line(unit, seen)
        if seen.says_its_start:
            yield from runtime(plan.chosen.runtime).signs(plan, seen.log)
        else:
            found = "the journal does not hold the start of this process any more"
            yield Check("log", True, found, "what the engine said while it loaded", "")


def check_running(unit: RenderedUnit, seen: UnitSeen | None) -> Check:
    """The unit is active."""
    state = f"is {seen.active_state or 'unknown'} ({seen.sub_state or '?'})" if seen else "unseen"
    restarts = f", restarted {seen.n_restarts} times" if seen and seen.n_restarts else ""
    return Check(
        "running",
        seen is not None and seen.active_state == "active",
        f"{unit.name} {state}{restarts}",
        "active (running)",
        f"read its last words, journalctl -u {unit.name} -n 50, then deploys/serve.py",
    )


def check_command_line(unit: RenderedUnit, seen: UnitSeen) -> Check:
    """The running process carries the planned revision and the planned flags."""
    revision = seen.environment.get("MULTIGPU_REVISION")
    carried = [*differences(unit, seen)]
    if revision != unit.revision:
        carried.insert(0, f"revision {revision or 'none'}")
    found = f"the running process carries {'; '.join(carried)}"
    good = f"{unit.name} runs as planned, revision {unit.revision}"
    expected = f"revision {unit.revision} with the planned flags"
    return Check("as planned", not carried, found if carried else good, expected, REDEPLOY)


def check_answers(seen: ServiceSeen) -> Check:
    """Requests are answered, none fails."""
    load = seen.load
    found = f"{load.completed} completions, {load.failed} failed in {load.seconds:.0f} s"
    names = " ".join(f"-u {unit.unit}" for unit in seen.units)
    return Check(
        "answers",
        load.completed > 0 and load.failed == 0,
        found + (f": {load.error}" if load.error else ""),
        "completions and no failure",
        f"read the engine's log: journalctl {names} -n 100",
    )


def check_endpoint(plan: Plan, seen: ServiceSeen) -> Iterator[Check]:
    """A request to the one address of the service is answered."""
    if seen.endpoint is not None:
        bind, port = address(plan)
        found = f"the endpoint at {bind} port {port} answers"
        yield Check(
            "endpoint",
            not seen.endpoint,
            f"the endpoint at {bind} port {port}: {seen.endpoint}" if seen.endpoint else found,
            "a completion through it",
            f"read journalctl -u multigpu-endpoint-{plan.wish.name} -n 50, then deploys/serve.py",
        )


def screen(plan: Plan, seen: ServiceSeen, checks: tuple[Check, ...]) -> str:
    """The verification as an operator reads it: good news in one line each, bad news in three."""
    failed = [check for check in checks if not check.ok]
    simulated = "  (simulated GPUs)" if plan.simulated else ""
    outcome = f"{len(failed)} of {len(checks)} checks failed" if failed else "all checks passed"
    lines = [f"verify {plan.wish.name} on {plan.host}: {outcome}{simulated}"]
    for check in (check for check in checks if check.ok):
        lines += _part("  ok    ", check.found)
    for check in failed:
        lines += _part("  FAIL  ", check.found)
        lines += _part("        expected ", check.expected)
        lines += _part("        do       ", check.hint or "")
    if seen.load.sample_text:
        lines.append(f"  says  {seen.load.sample_text[:60]!r}")
    return "\n".join(lines)


def _part(label: str, text: str) -> list[str]:
    indent = " " * len(label)
    return wrap(
        text,
        WIDTH,
        initial_indent=label,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def failure(plan: Plan, checks: tuple[Check, ...]) -> str | None:
    """One line for the run's summary, None when all checks passed; an idle card comes first."""
    failed = [check for check in checks if not check.ok]
    if not failed:
        return None
    first = next((check for check in failed if " idle: " in check.found), failed[0])
    return (
        f"{plan.wish.name}: {len(failed)} of {len(checks)} checks failed: {first.found}; "
        f"expected {first.expected}; do: {first.hint}"
    )
