"""`python -m multigpu`: the readers and the planner for a person, without touching a host.

    python -m multigpu survey captures/*.json
    python -m multigpu plan --host captures/tower.json --model Qwen/Qwen3-32B-AWQ
    python -m multigpu plan --gpus "2x RTX 3090" --pcie x8,x4 --model Qwen/Qwen3-32B-AWQ
    nvidia-smi topo -m | python -m multigpu read

A captured machine comes from deploys/survey.py, or without pyinfra from
`python -m multigpu probe | ssh tower sudo python3 - > tower.json`, which holds names and serial
numbers of the machine until `python -m multigpu share tower.json` replaces them. A folder of saved
outputs (nvidia-smi -q -x, nvidia-smi topo -m, lspci -vvv, journalctl -k ...) is read as one
captured machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from multigpu.cli.machines import run_probe, run_share, run_survey
from multigpu.cli.page import page_options
from multigpu.cli.plan import plan_options
from multigpu.cli.read import run_read
from multigpu.errors import MultigpuError
from multigpu.parse import kinds
from multigpu.screen.text import wrapped


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0: done; 1: refused or not understood, the reason on stderr; 2: wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except MultigpuError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
        return 1
    except OSError as error:  # a full disk behind `>`
        print(f"the answer cannot be written: {error.strerror or error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m multigpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True)
    _survey_options(commands.add_parser("survey", help="what captured machines are"))
    plan_options(commands.add_parser("plan", help="how a model should use a machine's cards"))
    page_options(commands.add_parser("page", help="the page of the plans in a plan file"))
    probe = commands.add_parser(
        "probe", help="the program that captures a machine, for its python3"
    )
    probe.set_defaults(run=run_probe)
    _share_options(commands.add_parser("share", help="a captured machine for a bug report"))
    _read_options(commands.add_parser("read", help="what is understood of a tool's output"))
    return parser


def _survey_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "capture", nargs="+", help="captured machine, folder of outputs, or - for standard input"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run_survey)


def _share_options(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print a captured machine with serial numbers, names and addresses hidden."
    parser.add_argument("capture", help="captured machine, or - for standard input")
    parser.set_defaults(run=run_share)


def _read_options(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(kind.name for kind in kinds.KINDS)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(["kinds:", *wrapped("  ", names, 80)])
    parser.add_argument("file", nargs="*", help="file, folder, or - for standard input")
    parser.add_argument(
        "--as", dest="kind", metavar="KIND", help="format of the input; guessed when absent"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--all-lines", action="store_true", help="every line not understood")
    parser.set_defaults(run=run_read)
