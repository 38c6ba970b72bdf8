"""What the engine prints, passed on and remembered: its last lines, and what they say.

One table, `CONFIGURATION`, holds what engines say when another start would end the same way.
Sources: argparse and vLLM 0.33.0, SGLang 0.5.23, llama.cpp 0.5.0 as captured from real runs.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from typing import IO, Deque, List, Optional

from multigpu.host.secret import Masked

KEPT_LINES = 50
LONGEST_LINE = 500

CONFIGURATION = tuple(
    re.compile(text)
    for text in (
        r"error: unrecognized arguments: ",
        r"error: argument .*: (invalid|expected)",
        r"error: invalid argument: ",
        r"error while handling argument ",
        r"unknown argument",
        r"does not appear to have a file named",
        r"is not a local folder and is not a valid model identifier",
        r"failed to open GGUF file",
        r"gguf_init_from_file: failed to open",
        r"No such file or directory: '.*\.(gguf|safetensors|json)'",
        r"Model architectures \[.*\] are not supported",
        r"unknown model architecture",
        r"To serve at least one request with the models's max seq len",
        r"No available memory for the cache blocks",
        r"is larger than the maximum number of tokens that can be stored in KV cache",
        r"the estimated maximum model length is",
        r"Loaded weights leave no GPU memory for the KV cache",
    )
)
TRANSIENT = tuple(
    re.compile(text)
    for text in (
        r"out of memory",
        r"OutOfMemoryError",
        r"ddress already in use",
        r"less than desired GPU memory utilization",
        r"NCCL|ncclSystemError|unhandled cuda error",
        r"CUDA error",
        r"GPU is lost|fallen off the bus",
        r"No space left on device",
        r"Killed|SIGKILL",
    )
)
"""What another start may find otherwise, however often it was said."""
WAITS_FOR_RANKS = re.compile(r"No available shared memory broadcast block found")
"""vLLM, once a minute while a rank does not answer, also during a compilation."""
VARYING = re.compile(r"0x[0-9a-fA-F]+|[0-9]+|\x1b\[[0-9;]*m")


class Output:
    """Copies a stream to another one without the secrets, and keeps the last lines."""

    def __init__(self) -> None:
        self.lines: Deque[str] = deque(maxlen=KEPT_LINES)
        self.rest = b""
        self.lock = threading.Lock()
        self.waits_for_ranks = 0
        self.masked: Optional[Masked] = None

    def copied_by(self, masked: Masked) -> None:
        """The thread that feeds this."""
        self.masked = masked

    def settle(self, limit_s: float) -> None:
        """Wait for the end of the stream: processes that were left behind may hold it."""
        if self.masked is not None:
            self.masked.finish(limit_s)

    def feed(self, data: bytes) -> None:
        """Take what was passed on; called by the thread that copies."""
        whole, _, self.rest = (self.rest + data).rpartition(b"\n")
        self.rest = self.rest[-LONGEST_LINE:]
        for line in whole.split(b"\n") if whole else ():
            text = line[:LONGEST_LINE].decode("utf-8", "replace").rstrip("\r")
            if WAITS_FOR_RANKS.search(text):
                self.waits_for_ranks += 1
            if text.strip():
                with self.lock:
                    self.lines.append(text)

    def last(self) -> List[str]:
        """The last lines, oldest first."""
        with self.lock:
            return list(self.lines)


class Tee:
    """A target for `secret.Masked` that also feeds an Output."""

    def __init__(self, target: IO[bytes], output: Output) -> None:
        self.target, self.output = target, output

    def write(self, data: bytes) -> int:
        """Both; the target's failure is the caller's to forgive."""
        self.output.feed(data)
        return self.target.write(data)

    def flush(self) -> None:
        """The target's."""
        self.target.flush()


def configuration_error(lines: List[str], status: Optional[int]) -> Optional[str]:
    """The line that says that another start would end the same way; None without one."""
    for line in reversed(lines):
        if any(pattern.search(line) for pattern in CONFIGURATION):
            return line.strip()
    usage = status == 2 and any(line.startswith("usage: ") for line in lines)
    return lines[-1].strip() if usage and lines else None


def message(lines: List[str]) -> Optional[str]:
    """The last line as what to compare with that of the next start: without numbers.

    None where nothing was said, or something that another start may find otherwise.
    """
    if not lines or any(p.search(line) for p in TRANSIENT for line in lines[-20:]):
        return None
    return VARYING.sub("#", lines[-1]).strip() or None
