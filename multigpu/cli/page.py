"""The page of every plan in a plan file: what deploys/plan.py printed the beginning of."""

from __future__ import annotations

import argparse
from pathlib import Path

from multigpu import planfile
from multigpu.errors import PlanFileError
from multigpu.explain import explain
from multigpu.store import texts


def page_options(parser: argparse.ArgumentParser) -> None:
    """`page FILE [SERVICE]`."""
    parser.description = "Print the page of the plans in a plan file, to read or to forward."
    parser.add_argument("file", help="plans/<host>.yaml")
    parser.add_argument("service", nargs="?", help="one service of it")
    parser.set_defaults(run=run_page)


def run_page(options: argparse.Namespace) -> int:
    """One page a service, a blank line and a rule of dashes between them."""
    text = texts.read_if_there(Path(options.file))
    if text is None:
        raise PlanFileError(
            f"{options.file} is not there: deploys/plan.py writes plans/<host>.yaml"
        )
    plans = planfile.read(text, options.file)
    wanted = [options.service] if options.service else list(plans)
    missing = [name for name in wanted if name not in plans]
    if missing or not plans:
        has = ", ".join(plans) or "no plan"
        raise PlanFileError(f"{options.file} has {has}" + "".join(f", not {n}" for n in missing))
    print(f"\n{'-' * 80}\n\n".join(explain(plans[name]) for name in wanted), end="")
    return 0
