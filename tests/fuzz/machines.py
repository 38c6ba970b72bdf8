"""Whole machines of which parts are broken: captures, and folders of saved outputs."""

from __future__ import annotations

import json
from functools import cache
from random import Random
from typing import Any

from multigpu.fleet import fleet
from multigpu.hardware import Host
from multigpu.parse import capture
from multigpu.parse.folder import read_folder
from multigpu.pseudonyms import pseudonymised
from multigpu.survey import survey
from multigpu.survey_json import survey_json
from tests.fuzz.corpus import corpus
from tests.fuzz.mutations import mutated
from tests.hosts.machines import MACHINES
from tests.rigs.capture import text_of

PARTS = ("tools", "tools", "tools", "files", "kfd", "amdgpu", "kfd_processes", "pci", "system")
STRANGE: tuple[Any, ...] = (None, -1, 10**30, 1e300, True, "", "x", "9" * 5000, [], {}, [None])


@cache
def documents() -> tuple[str, ...]:
    """Captures of every generated machine."""
    return tuple(map(text_of, MACHINES))


def check_machine(random: Random) -> None:
    """One broken machine is a value, and every screen and file of it can be written."""
    host = broken_capture(random) if random.random() < 0.6 else broken_folder(random)
    survey(host)
    fleet([host])
    json.dumps(survey_json(host), allow_nan=False)


def broken_capture(random: Random) -> Host:
    """A capture in which some texts, entries or whole parts are not what they should be."""
    document: dict[str, Any] = json.loads(random.choice(documents()))
    for _ in range(random.choice((1, 2, 4, 8))):
        part = random.choice(PARTS)
        document[part] = broken(document.get(part), random)
    pseudonymised(document, "rig")
    return capture.host(document, "rig")


def broken(value: Any, random: Random) -> Any:
    """The value with one thing somewhere in it broken."""
    if random.random() < 0.05:
        return random.choice(STRANGE)
    if isinstance(value, dict) and value:
        key = random.choice(list(value))
        return {**value, key: broken(value[key], random)}
    if isinstance(value, list) and value and all(isinstance(line, str) for line in value):
        return mutated("\n".join(value), random.choice(corpus())[1], random).split("\n")
    if isinstance(value, list) and value:
        place = random.randrange(len(value))
        return [*value[:place], broken(value[place], random), *value[place + 1 :]]
    return mutated(value, "1 2\n", random) if isinstance(value, str) else random.choice(STRANGE)


def broken_folder(random: Random) -> Host:
    """Some broken outputs, of one host or of several."""
    count = random.choice((1, 2, 4, 7))
    pick = (random.choice(corpus())[1] for _ in range(2 * count))
    texts = {f"{i}.txt": mutated(next(pick), next(pick), random) for i in range(count)}
    return read_folder(texts, "saved").machine
