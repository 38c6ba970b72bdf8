"""Captured machines: their survey, a plan for one, and a copy that can be shared."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from multigpu.errors import CaptureError, MultigpuError
from multigpu.explain import explain
from multigpu.fleet import fleet
from multigpu.hardware import Host
from multigpu.parse import capture, kinds
from multigpu.parse.folder import read_folder
from multigpu.planner import plan
from multigpu.pseudonyms import pseudonymised
from multigpu.store import models
from multigpu.store.inputs import Input, Model, Tree, inputs
from multigpu.store.probe_program import program
from multigpu.survey import survey
from multigpu.survey_json import fleet_json
from multigpu.wish import wishes


def columns() -> int:
    """Width of the terminal, as far as screens follow it."""
    return min(max(shutil.get_terminal_size().columns, 80), 120)


def _machine(path: str) -> Host:
    (found,) = inputs([path])
    if isinstance(found, Tree):
        return read_folder(found.texts, found.path.resolve().name, found.parts).machine
    if isinstance(found, Model):
        raise CaptureError(f"{path} is a model, no captured machine")
    return capture.read(_captured(found), Path(found.name).stem)


def _captured(given: Input) -> str:
    """The text of a captured machine; the output of a tool is for `read`."""
    kind = kinds.guess(given.text)
    if kind is not None and kind is not kinds.CAPTURED:
        raise CaptureError(
            f"{given.name} is no captured machine but {kind.title}: "
            f"`python -m multigpu read {given.name}` shows it"
        )
    return given.text


def run_probe(options: argparse.Namespace) -> int:
    """The probe as one text: Python 3.9+ on the machine, nothing to install."""
    print(program(), end="")
    return 0


def run_share(options: argparse.Namespace) -> int:
    """The capture with pseudonyms, as deploys/survey.py keeps it."""
    (given,) = inputs([options.capture])
    if not isinstance(given, Input):
        raise CaptureError(f"{options.capture} is no captured machine")
    name = Path(given.name).stem
    print(json.dumps(pseudonymised(capture.document(_captured(given), name), name), indent=1))
    return 0


def run_survey(options: argparse.Namespace) -> int:
    """Every machine, then the fleet; one that cannot be read is named there and on stderr."""
    machines: list[Host] = []
    unreadable: dict[str, str] = {}
    for path in _files(options.capture):
        try:
            machines.append(_machine(path))
        except MultigpuError as error:
            unreadable[Path(path).stem] = str(error)
            print(error, file=sys.stderr)
    if options.json:
        print(json.dumps(fleet_json(machines, unreadable), indent=1))
    else:
        screens = [survey(machine, columns()) for machine in machines]
        several = len(machines) + len(unreadable) > 1
        print("\n".join([*screens, *([fleet(machines, unreadable, columns())] * several)]), end="")
    return int(bool(unreadable))


def _files(paths: list[str]) -> Iterator[str]:
    """A folder of captured machines stands for each of them."""
    for path in paths:
        captures = sorted(Path(path).glob("*.json")) if Path(path).is_dir() else []
        yield from map(str, captures) if captures else [path]


def run_plan(options: argparse.Namespace) -> int:
    """How a model should use the cards of one machine."""
    keys = ("model", "objective", "context", "concurrency")
    (wish,) = wishes({"service": {key: getattr(options, key) for key in keys}})
    machine = _machine(options.capture)
    print(explain(plan(machine, models.load(options.model, base=Path()), wish)))
    return 0
