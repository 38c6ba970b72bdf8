"""Running commands: quietly, or with a line every few seconds where they take long."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from .settings import LabError

HEARTBEAT_SECONDS = 15.0
Argument = str | Path


def say(text: str) -> None:
    """A line of progress; on stderr, because stdout belongs to the command that was asked for."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


def environment() -> dict[str, str]:
    """Ours, with the administrator's directories on the path and untranslated messages."""
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    return {**os.environ, "PATH": path, "LC_ALL": "C.UTF-8"}


def run(*argv: Argument, check: bool = True, text: str | None = None) -> str:
    """Standard output of a command. Raises LabError with its last words when it fails."""
    done = subprocess.run(
        [str(word) for word in argv],
        input=text,
        capture_output=True,
        text=True,
        errors="replace",
        env=environment(),
    )
    if check and done.returncode:
        raise LabError(f"{failed(argv, done.returncode)}: {last_line(done.stderr, done.stdout)}")
    return done.stdout


def failed(argv: Sequence[Argument], code: int) -> str:
    return f"`{' '.join(str(word) for word in argv)[:200]}` ended with {code}"


def last_line(*texts: str) -> str:
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def run_visibly(
    label: str, *argv: Argument, env: Mapping[str, str] | None = None, step: str = ""
) -> None:
    """Run something long: a line every 15 s with the elapsed time and the last match of `step`.

    Raises LabError after printing the last 30 lines of the command when it fails.
    """
    started = time.monotonic()
    say(f"{label} ...")
    process = subprocess.Popen(
        [str(word) for word in argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**environment(), **(env or {})},
    )
    tail: deque[str] = deque(maxlen=30)
    reader = threading.Thread(target=keep_tail, args=(process, tail), daemon=True)
    reader.start()
    seen = ""
    while reader.is_alive():
        reader.join(HEARTBEAT_SECONDS)
        if reader.is_alive():
            seen = latest(step, tail) or seen
            say(f"{label}: {time.monotonic() - started:.0f} s {seen}".rstrip())
    if code := process.wait():
        print("".join(tail), file=sys.stderr)
        raise LabError(f"{label}: {failed(argv, code)}; its last lines are above")
    say(f"{label}: done in {time.monotonic() - started:.1f} s")


def keep_tail(process: subprocess.Popen[str], tail: deque[str]) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        tail.extend(lines)


def latest(pattern: str, lines: deque[str]) -> str:
    matches = [found.group(0) for line in tuple(lines) if (found := re.search(pattern, line))]
    return matches[-1].strip() if pattern and matches else ""
