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

from multigpu.host import local

ENGINE_EXIT, START_TIMEOUT, PORT_TAKEN, CONFIG = 10, 13, 14, 78
TICK_S = 1.0
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


def healthy(url: str) -> bool:
    """True when the URL answers 200 within HTTP_TIMEOUT_S."""
    try:
        with local.open_url(url, HTTP_TIMEOUT_S) as answer:
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
    ) -> None:
        self.child, self.health_url = child, health_url
        self.start_s, self.tick_s = start_s, tick_s
        self.stopping = False
        self.ready = False

    def stop(self, *_: object) -> None:
        """Forward SIGTERM once: to llama-server a second one means to drop what it is doing.

        systemd kills the control group after TimeoutStopSec.
        """
        if self.stopping:
            return
        self.stopping = True
        notify("STOPPING=1")
        if self.child.poll() is None:
            self.child.terminate()

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
        if self.ready:
            notify("WATCHDOG=1")
        elif not self.stopping and healthy(self.health_url):
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
    """`supervise --health URL --start-s N [--exclusive] -- ENGINE ARGV...`"""
    parser = argparse.ArgumentParser(prog="multigpu supervise", description=__doc__)
    parser.add_argument("--health", required=True, help="URL that answers 200 when ready")
    parser.add_argument("--start-s", type=float, default=600, help="seconds until not ready fails")
    parser.add_argument("--tick-s", type=float, default=TICK_S, help="seconds between looks")
    parser.add_argument(
        "--exclusive", action="store_true", help="do not start while another process listens there"
    )
    parser.add_argument("argv", nargs="+", help="the engine's command line, after --")
    options = parser.parse_args(arguments)
    if options.exclusive and port_taken(options.health):
        text = f"another process listens at {options.health}: see ss -ltnp, or set another port"
        return verdict(text, PORT_TAKEN)
    try:
        child = subprocess.Popen(options.argv, env=child_environment())
    except OSError as error:
        return verdict(f"cannot start {options.argv[0]}: {error.strerror or error}", CONFIG)
    supervisor = Supervisor(child, options.health, options.start_s, options.tick_s)
    signal.signal(signal.SIGTERM, supervisor.stop)
    signal.signal(signal.SIGINT, supervisor.stop)
    return supervisor.run()
