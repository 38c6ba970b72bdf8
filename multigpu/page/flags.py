"""The command line and the environment of the service, each word with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from multigpu.fetching import local_path
from multigpu.listening import behind
from multigpu.page.flag_reasons import explained
from multigpu.page.text import WIDTH, hanging, heading
from multigpu.plan import Plan, Setting
from multigpu.runtimes import runtime
from multigpu.screen.text import printable

REASON_AT = 36


def section(plan: Plan) -> Iterator[str]:
    """Flags of the first process, then what differs in the others, then variables."""
    name = plan.chosen.runtime
    services = runtime(name).render(behind(plan), name, local_path(plan.model))
    first = services[0]
    yield from heading("Flags, each with its reason")
    yield from _settings(explained(plan, first.argv), " ")
    if len(services) > 1:
        others = (
            f"{services[1].name} .. {services[-1].name}"
            if len(services) > 2
            else (services[1].name)
        )
        text = f"this is {first.name}; {others}: the same on the next ports and cards"
        yield from hanging("  ", text)
    if first.environment:
        yield from heading("Environment")
        yield from _settings(first.environment, "=")


def _settings(settings: Iterable[Setting], between: str) -> Iterator[str]:
    """`  --flag value        its reason`; the reason below where the value is long."""
    for setting in settings:
        text = "  " + printable(f"{setting.name}{between if setting.value else ''}{setting.value}")
        if len(text) + 2 <= REASON_AT:
            yield from hanging(text.ljust(REASON_AT), setting.why)
        else:
            yield from hanging("  ", text.strip(), WIDTH)
            yield from hanging(" " * REASON_AT, setting.why)
