"""Captured machines: their survey, and a copy that can be shared."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from multigpu.errors import CaptureError, MultigpuError
from multigpu.fleet import fleet
from multigpu.hardware import Host
from multigpu.parse import capture, kinds
from multigpu.parse.folder import read_folder
from multigpu.pseudonyms import pseudonymised
from multigpu.store.inputs import Input, Model, Tree, file_text, inputs
from multigpu.store.probe_program import program
from multigpu.survey import survey
from multigpu.survey_json import fleet_json

WANTED = (
    "give what deploys/survey.py or multigpu/host/probe.py wrote, or a folder of saved outputs of "
    "one host"
)


def columns() -> int:
    """Width of the terminal, as far as screens follow it."""
    return min(max(shutil.get_terminal_size().columns, 80), 120)


def machine(path: str) -> Host:
    """The captured machine at a path, a file or a folder of outputs. Raises CaptureError."""
    (found,) = inputs([path])
    if isinstance(found, Tree):
        for reason in found.left_out:
            print(reason, file=sys.stderr)
        folder = read_folder(found.texts, found.path.resolve().name, found.parts)
        if not folder.tells:
            raise CaptureError(f"{path} holds no output that tells of a machine; {WANTED}")
        return folder.machine
    if isinstance(found, Model):
        raise CaptureError(f"{path} is a model, no captured machine; {WANTED}")
    return capture.host(_captured(found), Path(found.name).stem)


def _captured(given: Input) -> dict[str, object]:
    """The document of a captured machine; the output of a tool is for `read`."""
    if not given.text.strip():
        raise CaptureError(f"{given.name} is empty")
    kind = kinds.guess(given.text)
    if kind is not None and kind is not kinds.CAPTURED:
        raise CaptureError(
            f"{given.name} is no captured machine but {kind.title}: "
            f"`python -m multigpu read {given.name}` shows it"
        )
    if capture.BEGIN.search(given.text) is None:
        raise CaptureError(f"{given.name} is no captured machine; {WANTED}")
    return capture.document(given.text, given.name)


def run_probe(options: argparse.Namespace) -> int:
    """The probe as one text: Python 3.9+ on the machine, nothing to install."""
    print(program(), end="")
    return 0


def run_share(options: argparse.Namespace) -> int:
    """The capture with pseudonyms, as deploys/survey.py keeps it."""
    (given,) = inputs([options.capture])
    if not isinstance(given, Input):
        what = "a folder" if isinstance(given, Tree) else "a model"
        raise CaptureError(f"{options.capture} is {what}; share takes one captured machine")
    print(json.dumps(pseudonymised(_captured(given), Path(given.name).stem), indent=1))
    return 0


def run_survey(options: argparse.Namespace) -> int:
    """Every machine, then the fleet; one that cannot be read is named there and on stderr."""
    machines: list[Host] = []
    unreadable: dict[str, str] = {}
    for path in _files(options.capture):
        try:
            machines.append(machine(path))
        except MultigpuError as error:
            stem = Path(path).stem
            unreadable[stem if stem not in unreadable else path] = str(error)
            print(error, file=sys.stderr)
    if options.json:
        print(json.dumps(fleet_json(machines, unreadable), indent=1))
    else:
        screens = [survey(machine, columns()) for machine in machines]
        several = len(machines) + len(unreadable) > 1
        print("\n".join([*screens, *([fleet(machines, unreadable, columns())] * several)]), end="")
    return int(bool(unreadable))


def _files(paths: list[str]) -> Iterator[str]:
    """A folder of captured machines stands for each of them.

    JSON of tools (rocm-smi --json) does not make a folder one; beside captures it is named.
    """
    for path in paths:
        files = sorted(Path(path).glob("*.json")) if Path(path).is_dir() else []
        yield from map(str, files) if any(map(_is_captured, files)) else [path]


def _is_captured(file: Path) -> bool:
    try:
        return kinds.guess(file_text(file)) is kinds.CAPTURED
    except CaptureError:
        return False
