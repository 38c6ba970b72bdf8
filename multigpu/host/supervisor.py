"""Runs one inference engine as a child, tells systemd the truth about it, and ends when it is dead.

The main process of a unit with `Type=notify` and `WatchdogSec=`: READY=1 when the engine answers at
a socket of its own, WATCHDOG=1 from a loop in which nothing can block (HTTP and NVML have threads
of their own). Whatever ends the engine ends this program, with the verdict as exit status
(`multigpu.host.verdicts`), after evidence is kept and all that the engine started is gone; systemd
starts both again. vLLM exits 0 when its engine dies (vllm issue 48966).

docs/reliability.md says what is watched, each clock, and why.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from typing import Any, List

from multigpu.host import (
    preflight,
    processes,
    records,
    secret,
    state,
    supervise_options,
    verdict_port,
    verdicts,
)
from multigpu.host.engine_output import Output, Tee
from multigpu.host.gpu_facts import Watch
from multigpu.host.keeper import Keeper
from multigpu.host.looks import Canary, Look
from multigpu.host.notify import child_environment
from multigpu.host.supervising import Supervisor
from multigpu.host.watching import Watching

HTTP_TIMEOUT_S = 5.0


def watch(options: argparse.Namespace, cards: Watch, headers: Any, output: Output) -> Watching:
    """All looks at an engine; those over HTTP begin at once."""
    base, times = supervise_options.base(options), supervise_options.times(options)
    names = supervise_options.names(options)
    metrics = None
    if names.known:
        metrics = Look(f"{base}{names.path}", headers, times.tick_s, times.dead_s * 2 / 3)
    canary = Canary(base, headers, times.alive_factor * times.stall_s)
    health = Look(options.health, headers, times.tick_s, HTTP_TIMEOUT_S)
    found = Watching(base, health, metrics, names, cards, canary, output)
    for look in filter(None, (health, metrics)):
        look.start()
    return found


def begin(options: argparse.Namespace, keeper: Keeper, stopped: List[int]) -> int:
    """From the first look at port and cards to the engine's end. Returns the exit status."""
    needed_mib = supervise_options.cards(options)
    cards = Watch(tuple(needed_mib))
    cards.start()
    wait_s = records.delay_s(keeper.state.backoff.n, options.backoff_s)
    keeper.set(
        state.BACKING_OFF, backoff=state.Backoff(keeper.state.backoff.n, time.time() + wait_s)
    )
    if not preflight.pause(wait_s, lambda: bool(stopped)):
        return keeper.stopped()
    found = preflight.port(options.health) if options.exclusive else None
    found = found or preflight.cards(cards, needed_mib)
    if found is not None:
        return keeper.verdict(found.reason, found.text)
    try:
        secrets = secret.Secrets(options)
    except (OSError, ValueError) as error:
        return keeper.verdict(verdicts.CONFIG, f"a secret cannot be handed on: {error}")
    processes.adopt_orphans()
    try:
        child = secrets.start(options.argv, child_environment(keeper.deadlocks()))
    except OSError as error:
        text = f"cannot start {options.argv[0]}: {error.strerror or error}"
        return keeper.verdict(verdicts.CONFIG, text)
    output = Output()
    output.copied_by(secrets.masked(child, Tee(sys.stdout.buffer, output)))
    watching = watch(options, cards, secrets.headers, output)
    supervisor = Supervisor(child, options, keeper, watching)
    if options.verdict_port is not None:
        verdict_port.listen(options.verdict_port, supervisor.standing)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, supervisor.stop)
    if stopped:
        supervisor.stop()
    return supervisor.run()


def main(arguments: list[str]) -> int:
    """`supervise --health URL --start-s N [--exclusive] [...] -- ENGINE ARGV...`"""
    options = supervise_options.parser().parse_args(arguments)
    stopped: List[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda signum, _: stopped.append(signum))
    named = {"service": options.service, "wish": options.wish or options.service}
    named["runtime"] = options.runtime
    keeper = Keeper(supervise_options.state_directory(), named)
    status = begin(options, keeper, stopped)
    sys.stdout.flush()
    return status
