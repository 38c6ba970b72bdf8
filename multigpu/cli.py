"""`python -m multigpu`: the readers and the planner for a person, without touching a host.

    python -m multigpu survey captures/tower.json
    python -m multigpu plan captures/tower.json Qwen/Qwen3-32B-AWQ --context 32768 --concurrency 4

A captured machine comes from deploys/survey.py, or on the machine itself from
`python3 multigpu/host/probe.py > tower.json`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from multigpu.errors import MultigpuError, NoPlan
from multigpu.explain import explain, explain_refusal
from multigpu.hardware import Host
from multigpu.parse import capture
from multigpu.plan import Objective
from multigpu.planner import plan
from multigpu.store import models, texts
from multigpu.survey import survey
from multigpu.wish import wishes


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0: done; 1: refused, with the reason on stderr; 2: wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        print(options.run(options))
    except NoPlan as error:
        print(explain_refusal(error, Path(options.capture).stem), end="", flush=True)
        print(error, file=sys.stderr)
        return 1
    except MultigpuError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="multigpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("survey", help="what the captured machine is")
    one.add_argument("capture")
    one.set_defaults(run=_survey)
    two = commands.add_parser("plan", help="how a model should use its cards")
    two.add_argument("capture")
    two.add_argument("model", help="hub id, folder or .gguf of this machine")
    two.add_argument("--objective", choices=[str(o) for o in Objective], default="latency")
    two.add_argument("--context", type=int, default=8192)
    two.add_argument("--concurrency", type=int, default=4)
    two.set_defaults(run=_plan)
    return parser


def _machine(path: str) -> Host:
    return capture.read(texts.read(Path(path)), Path(path).stem)


def _survey(options: argparse.Namespace) -> str:
    return survey(_machine(options.capture))


def _plan(options: argparse.Namespace) -> str:
    keys = ("model", "objective", "context", "concurrency")
    (wish,) = wishes({"service": {key: getattr(options, key) for key in keys}})
    machine = _machine(options.capture)
    return explain(plan(machine, models.load(options.model, base=Path()), wish))
