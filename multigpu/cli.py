"""`python -m multigpu`: the readers and the planner for a person, without touching a host.

    python -m multigpu survey captures/*.json
    python -m multigpu plan captures/tower.json Qwen/Qwen3-32B-AWQ --context 32768 --concurrency 4
    nvidia-smi topo -m | python -m multigpu read

A captured machine comes from deploys/survey.py, or on the machine itself from
`python3 multigpu/host/probe.py > tower.json`, which holds names and serial numbers of the machine
until `python -m multigpu share tower.json` replaces them. A folder of saved outputs (nvidia-smi
-q -x, nvidia-smi topo -m, lspci -vvv, journalctl -k ...) is read as one captured machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from multigpu.errors import CaptureError, MultigpuError, NoPlan
from multigpu.explain import explain, explain_refusal
from multigpu.fleet import fleet
from multigpu.hardware import Host
from multigpu.parse import capture, kinds
from multigpu.parse.amd.kfd import read_kfd
from multigpu.parse.folder import read_folder
from multigpu.parse.reading import Kind, Reading
from multigpu.plan import Objective
from multigpu.planner import plan
from multigpu.pseudonyms import pseudonymised
from multigpu.reading_screen import folder_json, folder_screen, screen, to_json
from multigpu.store import gguf_files, models
from multigpu.store.inputs import Input, Model, Tree, inputs
from multigpu.survey import survey
from multigpu.survey_json import fleet_json
from multigpu.wish import wishes

GGUF = Kind("gguf", "GGUF file", lambda text: 0.0, lambda text: Reading(None))
KFD = Kind("kfd-topology", "KFD's topology (sysfs)", lambda text: 0.0, lambda text: Reading(None))
"""Formats that are no single text, so none is guessed to be one."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0: done; 1: refused or not understood, the reason on stderr; 2: wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except NoPlan as error:
        print(explain_refusal(error, Path(options.capture).stem), end="", flush=True)
        print(error, file=sys.stderr)
        return 1
    except MultigpuError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="multigpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    _survey_options(commands.add_parser("survey", help="what captured machines are"))
    _plan_options(commands.add_parser("plan", help="how a model should use a machine's cards"))
    _share_options(commands.add_parser("share", help="a captured machine for a bug report"))
    _read_options(commands.add_parser("read", help="what is understood of a tool's output"))
    return parser


def _survey_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "capture", nargs="+", help="captured machine, folder of outputs, or - for standard input"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=_survey)


def _plan_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("capture")
    parser.add_argument("model", help="hub id, folder or .gguf of this machine")
    parser.add_argument("--objective", choices=[str(o) for o in Objective], default="latency")
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.set_defaults(run=_plan)


def _share_options(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print a captured machine with serial numbers, names and addresses hidden."
    parser.add_argument("capture", help="captured machine, or - for standard input")
    parser.set_defaults(run=_share)


def _read_options(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(kind.name for kind in kinds.KINDS)
    parser.add_argument("file", nargs="*", help="file, folder, or - for standard input")
    parser.add_argument("--as", dest="kind", metavar="KIND", help=f"guessed when absent: {names}")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--all-lines", action="store_true", help="every line not understood")
    parser.set_defaults(run=_read)


def _columns() -> int:
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


def _share(options: argparse.Namespace) -> int:
    """The capture with pseudonyms, as deploys/survey.py keeps it."""
    (given,) = inputs([options.capture])
    if not isinstance(given, Input):
        raise CaptureError(f"{options.capture} is no captured machine")
    name = Path(given.name).stem
    print(json.dumps(pseudonymised(capture.document(_captured(given), name), name), indent=1))
    return 0


def _survey(options: argparse.Namespace) -> int:
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
        screens = [survey(machine, _columns()) for machine in machines]
        several = len(machines) + len(unreadable) > 1
        print("\n".join([*screens, *([fleet(machines, unreadable, _columns())] * several)]), end="")
    return int(bool(unreadable))


def _files(paths: list[str]) -> Iterator[str]:
    """A folder of captured machines stands for each of them."""
    for path in paths:
        captures = sorted(Path(path).glob("*.json")) if Path(path).is_dir() else []
        yield from map(str, captures) if captures else [path]


def _plan(options: argparse.Namespace) -> int:
    keys = ("model", "objective", "context", "concurrency")
    (wish,) = wishes({"service": {key: getattr(options, key) for key in keys}})
    machine = _machine(options.capture)
    print(explain(plan(machine, models.load(options.model, base=Path()), wish)))
    return 0


def _read(options: argparse.Namespace) -> int:
    """Every input; one that cannot be read or is of no known format never hides the others."""
    forced = kinds.kind(options.kind) if options.kind else None
    if not options.file and sys.stdin.isatty():
        print("paste the output of a tool, then Ctrl-D", file=sys.stderr)
    failed = False
    records = []
    for name in options.file or ["-"]:
        try:
            for text, record in _readings(name, forced, options):
                records.append(record)
                if not options.json:
                    print(text + "\n")
        except MultigpuError as error:
            print(error, file=sys.stderr)
            failed = True
    if options.json:
        print(json.dumps(records, indent=1))
    return int(failed)


def _readings(
    name: str, forced: Kind | None, options: argparse.Namespace
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Screen and record of one name; a folder of captured machines gives one for each."""
    for found in inputs([name]):
        if isinstance(found, Model):
            spec: Reading[Any] = Reading(gguf_files.from_file(found.name, found.path))
            yield screen(found.name, GGUF, spec, _columns()), to_json(found.name, GGUF, spec)
            continue
        if isinstance(found, Tree) and set(found.parts) == {"kfd"} and not found.texts:
            kfd = read_kfd(cast(dict[str, str], found.parts["kfd"]))
            yield screen(found.name, KFD, kfd, _columns()), to_json(found.name, KFD, kfd)
            continue
        if isinstance(found, Tree) and not _captures(found):
            folder = read_folder(found.texts, found.path.resolve().name, found.parts)
            yield folder_screen(name, folder, _columns()), folder_json(name, folder)
            continue
        for given in [found] if isinstance(found, Input) else _captures(found):
            kind = forced or _guessed(given)
            reading = _called(kind.read(given.text), Path(given.name).stem)
            text = screen(given.name, kind, reading, _columns(), every=options.all_lines)
            yield text, to_json(given.name, kind, reading)


def _called(reading: Reading[Any], name: str) -> Reading[Any]:
    """A captured machine goes by the name of its file."""
    if not isinstance(reading.value, Host):
        return reading
    return replace(reading, value=replace(reading.value, name=name))


def _captures(tree: Tree) -> list[Input]:
    """The captured machines of a folder."""
    return [
        Input(f"{tree.name}/{name}", text)
        for name, text in tree.texts.items()
        if kinds.guess(text) is kinds.CAPTURED
    ]


def _guessed(given: Input) -> Kind:
    kind = kinds.guess(given.text)
    if kind is None:
        if not given.text.strip():
            raise CaptureError(f"{given.name} is empty")
        if "\0" in given.text:
            raise CaptureError(f"{given.name} is no text")
        raise CaptureError(
            f"{given.name} is in no format that is known; name one with --as ({_names()})"
        )
    return kind


def _names() -> str:
    return ", ".join(kind.name for kind in kinds.KINDS)
