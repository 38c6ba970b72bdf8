"""Requests of a simulated engine: who waits, who runs, and the tokens that steps give them."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator

from command_lines import Options
from control import Control
from shared import Shared

LOOK_S = 0.05
WORK_S = 0.005


class Aborted(Exception):
    """The client is gone, or the engine is dead."""


class Requests:
    """Admits at most `max_running` and counts what the metrics page shows."""

    def __init__(self, options: Options, shared: Shared, control: Control) -> None:
        self.options, self.shared, self.control = options, shared, control
        self.stepped = threading.Condition()
        self.running = self.waiting = self.prefills = 0
        self.dead = False
        threading.Thread(target=self.pump, daemon=True).start()

    def pump(self) -> None:
        """Wake those who wait for a step."""
        seen, own = self.shared.step, not self.options.workers
        while True:
            time.sleep(0.005 if self.running else 0.02)
            if own and self.running and not self.shared.held:
                time.sleep(max(0.0, self.shared.step_s - 0.005))
                self.shared.step += 1
            if own and self.shared.working:
                until = time.monotonic() + WORK_S
                while time.monotonic() < until:
                    pass
            if self.shared.step != seen:
                seen = self.shared.step
                self.shared.decoded += 1
                with self.stepped:
                    self.stepped.notify_all()

    def count(self, running: int = 0, waiting: int = 0) -> None:
        """Callers hold the condition."""
        self.running, self.waiting = self.running + running, self.waiting + waiting
        shared = self.shared
        shared.running, shared.waiting = self.running, self.waiting
        shared.kv_usage = min(1.0, 0.01 * self.running)

    def wait(self, client: socket.socket, over) -> None:
        """Until `over()`. Raises Aborted."""
        while not over():
            self.stepped.wait(LOOK_S)
            if self.dead or (gone(client) and not self.shared.held):
                raise Aborted

    def tokens(self, prompt: str, wanted: int, client: socket.socket) -> Iterator[str]:
        """One text for each step; a stalled engine does not even notice that a client has gone."""
        with self.admitted(client):
            self.prefill(prompt, client)
            for number in range(wanted):
                with self.stepped:
                    before = self.shared.step
                    self.wait(client, lambda seen=before: self.shared.step > seen)
                    self.shared.generated += 1
                yield f" token{number}"
            with self.stepped:
                self.shared.finished += 1

    @contextlib.contextmanager
    def admitted(self, client: socket.socket) -> Iterator[None]:
        with self.stepped:
            self.count(waiting=1)
            try:
                self.wait(client, self.has_room)
            finally:
                self.count(waiting=-1)
            self.count(running=1)
        try:
            yield
        finally:
            with self.stepped:
                self.count(running=-1)
                self.stepped.notify_all()

    def has_room(self) -> bool:
        return self.running < self.options.max_running and not self.control.get("waiting_only")

    def prefill(self, prompt: str, client: socket.socket) -> None:
        """A long one takes `prefill_s`; with `chunks` its counters move, without them nothing."""
        seconds = self.control.get("prefill_s", 0) if prompt.startswith("long") else 0
        until = time.monotonic() + seconds
        with self.stepped:
            self.prefills += bool(seconds)
            try:
                while time.monotonic() < until:
                    self.stepped.wait(0.2)
                    if self.control.get("chunks"):
                        self.shared.kv_usage = (self.shared.kv_usage + 0.001) % 1
                        self.shared.decoded += 1
                    if self.dead or gone(client):
                        raise Aborted
            finally:
                self.prefills -= bool(seconds)
            self.shared.prompted += max(1, len(prompt.split()))


def gone(client: socket.socket) -> bool:
    """True when the other side has closed."""
    try:
        readable, _, _ = select.select([client], [], [], 0)
        return bool(readable) and client.recv(1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):
        return True
