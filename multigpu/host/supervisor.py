"""Runs one inference engine as a child and speaks sd_notify for it: no engine does so itself.

READY=1 is sent when the health URL answers 200, WATCHDOG=1 while the child lives. When the child
ends, whatever its exit status, this program ends with the status of the verdict, so that systemd
restarts the whole control group (vLLM exits 0 when its engine dies, vllm issue 48966).

Exit statuses: 10 the engine ended, 13 it was not ready in time, 14 its port is taken, 78 it could
not be started.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from typing import Dict, Optional

from multigpu.host import connections, local, secret, verdict_port

ENGINE_EXIT, START_TIMEOUT, PORT_TAKEN, CONFIG = 10, 13, 14, 78
TICK_S = 1.0
NOTICED_S = 2.5
"""Within it a load balancer has asked for the verdict (every second) and sends nothing new."""
HTTP_TIMEOUT_S = 5.0


def notify(message: str) -> bool:
    """Send one sd_notify datagram (sd_notify(3)); nothing to do outside systemd.

    False when it was not delivered: systemd may be re-executing itself just now, which is no
    reason to take an engine down; the watchdog speaks when it lasts.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return True
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.settimeout(TICK_S)
            channel.connect(address)
            channel.sendall(message.encode())
    except OSError as error:
        print(f"multigpu: systemd was not notified: {error}", file=sys.stderr, flush=True)
        return False
    return True


def healthy(url: str, headers: Optional[Dict[str, str]] = None) -> bool:
    """True when the URL answers 200 within HTTP_TIMEOUT_S."""
    request = urllib.request.Request(url, headers=headers or {})
    try:
        with local.open_url(request, HTTP_TIMEOUT_S) as answer:
            return bool(answer.status == 200)
    except local.FAILURES:
        return False


def port_taken(url: str) -> bool:
    """True when somebody else listens there, who might answer 200 while the engine still loads."""
    address = urllib.parse.urlsplit(url)
    family = socket.AF_INET6 if ":" in (address.hostname or "") else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # Connections of our own last process that still linger are nobody.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.hostname or "", address.port or 0))
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def child_environment() -> dict[str, str]:
    """The environment without what would let the engine speak to systemd in our name."""
    hidden = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
    return {name: value for name, value in os.environ.items() if name not in hidden}


def verdict(text: str, code: int) -> int:
    """Print the one line that says why this program ends, and return its exit status."""
    notify(f"STATUS={text}")
    print(f"multigpu: {text}", file=sys.stderr, flush=True)
    return code


class Supervisor:
    """One engine process, from start to verdict."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        health_url: str,
        start_s: float,
        tick_s: float = TICK_S,
        drain_s: float = 0,
        headers: Optional[Dict[str, str]] = None,
    ) -> None:
        self.child, self.health_url, self.headers = child, health_url, headers
        self.start_s, self.tick_s, self.drain_s = start_s, tick_s, drain_s
        self.stopping = False
        self.told_to_stop = 0.0
        self.ready = False

    def stop(self, *_: object) -> None:
        """Forward SIGTERM once: to llama-server a second one means to drop what it is doing.

        With `drain_s`, once its requests are done. systemd kills the control group after
        TimeoutStopSec.
        """
        if self.stopping:
            return
        self.stopping = True
        self.told_to_stop = time.monotonic()
        notify("STOPPING=1")
        if not (self.ready and self.drain_s):
            self.end_child()

    def end_child(self) -> None:
        """SIGTERM to the engine, once."""
        self.drain_s = 0
        if self.child.poll() is None:
            self.child.terminate()

    def drained(self) -> bool:
        """True when no request is left that a stop would cut, or when they had their time."""
        waited = time.monotonic() - self.told_to_stop
        if waited < min(NOTICED_S, self.drain_s):
            return False
        port = urllib.parse.urlsplit(self.health_url).port or 0
        return waited >= self.drain_s or not connections.established(port)

    def standing(self) -> str:
        """What a load balancer is told."""
        if self.stopping:
            return verdict_port.DRAIN
        return verdict_port.UP if self.ready else verdict_port.DOWN

    def run(self) -> int:
        """Wait for the engine's end. Returns this program's exit status."""
        deadline = time.monotonic() + self.start_s
        while True:
            try:
                return self.ended(self.child.wait(self.tick_s))
            except subprocess.TimeoutExpired:
                self.tick()
            if not (self.ready or self.stopping) and time.monotonic() > deadline:
                self.child.kill()
                return verdict(f"not ready after {self.start_s:g} s", START_TIMEOUT)

    def tick(self) -> None:
        """Report what is true now."""
        if self.stopping and self.drain_s and self.drained():
            self.end_child()
        if self.ready:
            notify("WATCHDOG=1")
        elif not self.stopping and healthy(self.health_url, self.headers):
            self.ready = notify("READY=1\nSTATUS=serving")
        elif not self.stopping:
            notify("STATUS=loading")

    def ended(self, status: int) -> int:
        """The verdict on a child that is gone."""
        if self.stopping:
            notify("STATUS=stopped")
            return 0
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        when = "while serving" if self.ready else "before it was ready"
        return verdict(f"the engine ended with {how} {when}", ENGINE_EXIT)


def main(arguments: list[str]) -> int:
    """`supervise --health URL --start-s N [--exclusive] [...] -- ENGINE ARGV...`"""
    parser = argparse.ArgumentParser(prog="multigpu supervise", description=__doc__)
    parser.add_argument("--health", required=True, help="URL that answers 200 when ready")
    parser.add_argument("--start-s", type=float, default=600, help="seconds until not ready fails")
    parser.add_argument("--tick-s", type=float, default=TICK_S, help="seconds between looks")
    parser.add_argument(
        "--exclusive", action="store_true", help="do not start while another process listens there"
    )
    parser.add_argument(
        "--verdict-port", type=int, help="port on loopback for HAProxy's agent checks"
    )
    parser.add_argument(
        "--drain-s", type=float, default=0, help="seconds that requests get when told to stop"
    )
    secret.options(parser)
    parser.add_argument("argv", nargs="+", help="the engine's command line, after --")
    options = parser.parse_args(arguments)
    if options.exclusive and port_taken(options.health):
        text = f"another process listens at {options.health}: see ss -ltnp, or set another port"
        return verdict(text, PORT_TAKEN)
    try:
        secrets = secret.Secrets(options)
    except (OSError, ValueError) as error:
        return verdict(f"a secret cannot be handed on: {error}", CONFIG)
    try:
        child = secrets.start(options.argv, child_environment())
    except OSError as error:
        return verdict(f"cannot start {options.argv[0]}: {error.strerror or error}", CONFIG)
    masked = secrets.masked(child)
    times = (options.start_s, options.tick_s, options.drain_s)
    supervisor = Supervisor(child, options.health, *times, headers=secrets.headers)
    if options.verdict_port is not None:
        verdict_port.listen(options.verdict_port, supervisor.standing)
    signal.signal(signal.SIGTERM, supervisor.stop)
    signal.signal(signal.SIGINT, supervisor.stop)
    try:
        return supervisor.run()
    finally:
        if masked is not None:
            masked.finish(TICK_S)
