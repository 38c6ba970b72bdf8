"""The supervisor's command line: `supervise --health URL --start-s N [...] -- ENGINE ARGV...`."""

from __future__ import annotations

import argparse
import os
import urllib.parse
from typing import Dict, List, Optional, Tuple

from multigpu.host import secret
from multigpu.host.judging import Times
from multigpu.host.watching import Names

CLOCKS = {
    "tick_s": "seconds between looks",
    "stall_s": "requests run or wait and no counter moves",
    "corroborated_s": "the same, where NVML, the kernel or the engine's own words agree",
    "frozen_s": "nobody answers, and the processes that listen do nothing",
    "dead_s": "nobody answers, whatever they do",
    "canary_s": "idle time before a request of one token, 0 for none",
    "early_s": "so long after the start a stall takes early-factor times as long",
    "early_factor": "see early-s",
    "alive_factor": "a stall takes so many times as long while the cards really work",
}


def parser() -> argparse.ArgumentParser:
    """All options; docs/reliability.md says what each is for."""
    made = argparse.ArgumentParser(prog="multigpu supervise", description=__doc__)
    made.add_argument("--health", required=True, help="URL that answers 200 when ready")
    made.add_argument("--start-s", type=float, default=600, help="seconds until not ready fails")
    made.add_argument("--drain-s", type=float, default=0, help="time of requests at a stop")
    made.add_argument("--kill-s", type=float, default=15, help="from SIGTERM to SIGKILL")
    made.add_argument("--backoff-s", type=float, default=5, help="RestartSec= of the unit")
    made.add_argument(
        "--exclusive", action="store_true", help="the socket that listens must be the engine's"
    )
    made.add_argument("--verdict-port", type=int, help="on loopback, for HAProxy's agent checks")
    made.add_argument("--service", default="engine", help="name of this process")
    made.add_argument("--wish", help="name of the service it belongs to")
    made.add_argument("--runtime", help="name and release, for the state file")
    made.add_argument("--metrics-path", help="of the engine's Prometheus page")
    made.add_argument("--busy", action="append", default=[], help="gauge above 0 while it works")
    made.add_argument("--moving", action="append", default=[], help="counter that moves then")
    made.add_argument(
        "--gpus", default="", metavar="UUID[=MIB],...", help="cards, memory to be had"
    )
    for name, text in CLOCKS.items():
        default = getattr(Times(), name)
        made.add_argument(f"--{name.replace('_', '-')}", type=float, default=default, help=text)
    secret.options(made)
    made.add_argument("argv", nargs="+", help="the engine's command line, after --")
    return made


def times(options: argparse.Namespace) -> Times:
    """The clocks."""
    return Times(**{name: getattr(options, name) for name in CLOCKS})


def names(options: argparse.Namespace) -> Names:
    """The metrics."""
    return Names(options.metrics_path, tuple(options.busy), tuple(options.moving))


def base(options: argparse.Namespace) -> str:
    """The engine's address without a path."""
    parts = urllib.parse.urlsplit(options.health)
    return f"{parts.scheme}://{parts.netloc}"


def cards(options: argparse.Namespace) -> Dict[str, Optional[int]]:
    """Cards by UUID, and the MiB that the engine will need of each, None where not told."""
    words: List[Tuple[str, str, str]] = [w.partition("=") for w in options.gpus.split(",") if w]
    return {uuid: int(mib) if mib.isdigit() else None for uuid, _, mib in words}


def state_directory() -> Optional[str]:
    """Where files are kept: systemd names it (StateDirectory=); None outside of a unit."""
    return os.environ.get("STATE_DIRECTORY", "").split(":")[0] or None
