"""Running uv, pip and compilers: their words kept, their progress in one line, their end judged."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections import deque
from typing import Deque, Dict, Iterator, List, Sequence

from multigpu.host.install_words import reason, shortened

HEARTBEAT_S = 5.0
KEPT_LINES = 400
STEP = re.compile(r"\[\d+/\d+\]")
"""What ninja prints before each of its steps."""
_SAID: Deque[str] = deque(maxlen=KEPT_LINES)


class Failed(Exception):
    """One line for the operator: what was found, what to do."""


def run(argv: Sequence[str], environment: Dict[str, str]) -> None:
    """Run one tool, passing its words on to the journal. Raises Failed with one line."""
    _SAID.clear()
    try:
        process = subprocess.Popen(
            list(argv),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise Failed(f"{argv[0]}: {error.strerror}") from None
    assert process.stdout is not None
    for line in process.stdout:
        _SAID.append(line.rstrip("\n"))
        print(shortened(line), flush=True)
    if process.wait():
        raise Failed(reason(list(_SAID)))


def free_mib(directory: str) -> int:
    """Free space in MiB of the file system that the directory lies on."""
    return shutil.disk_usage(directory).free >> 20


@contextlib.contextmanager
def watched(name: str, directory: str) -> Iterator[None]:
    """Say how far it is every few seconds, in the journal and in the unit's status file."""
    done = threading.Event()
    arguments = (name, os.path.dirname(directory), done)
    thread = threading.Thread(target=heartbeat, args=arguments, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def heartbeat(name: str, directory: str, done: threading.Event) -> None:
    """What is written, from the space that went, and the last step of a compiler."""
    started, before = time.monotonic(), free_mib(directory)
    while not done.wait(HEARTBEAT_S):
        written = max(0, before - free_mib(directory))
        step = latest_step(list(_SAID))
        seconds = time.monotonic() - started
        say(f"{name}: {seconds:.0f} s, {step or f'{written} MiB written'}")


def latest_step(lines: List[str]) -> str:
    """`[12/345]` of the newest line that has one; empty without."""
    found = (STEP.search(line) for line in reversed(lines))
    return next((match[0] for match in found if match), "")


def say(line: str) -> None:
    """One line of progress."""
    print(line, flush=True)
    report.write({"line": line})


class Report:
    """The status file that the deploy looks at; none without a path."""

    path: "str | None" = None

    def write(self, status: Dict[str, str]) -> None:
        """Whole or not at all; a status that cannot be written stops nothing."""
        if self.path is None:
            return
        with contextlib.suppress(OSError):
            with open(f"{self.path}.new", "w", encoding="utf-8") as stream:
                json.dump(status, stream)
            os.replace(f"{self.path}.new", self.path)

    def remove(self) -> None:
        """All is complete: the stamp says that."""
        if self.path is not None:
            with contextlib.suppress(OSError):
                os.remove(self.path)


report = Report()
