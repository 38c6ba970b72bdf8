"""The processes behind the API of a simulated engine: a core that makes steps, workers on cards.

A step is a collective: the core waits until every worker has acknowledged it, so a worker that is
stopped stops the engine, and one that is killed takes the core with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable

import cards
from command_lines import Options
from shared import Shared, ended, rename

NAMES = {
    "vllm": ("VLLM::EngineCore", "VLLM::Worker_TP"),
    "sglang": ("sglang::engine", "sglang::scheduler_TP"),
}
WORK_S, REST_S, IDLE_S = 0.004, 0.012, 0.02
"""A quarter of a core for each worker that works: many hosts share few cores in the lab."""
ORPHANED_S = 180
"""Orphans keep their claim, as those of vLLM do (vllm issue 34643), but not for ever."""
NO_BLOCK = (
    "No available shared memory broadcast block found in {:g} seconds. This typically happens when "
    "some processes are hanging or doing some time-consuming work (e.g. compilation, weight/kv "
    "cache quantization)."
)


def log(text: str, level: str = "INFO") -> None:
    with contextlib.suppress(OSError):
        print(f"{level} {time.strftime('%m-%d %H:%M:%S')} [simulated] {text}", flush=True)


def fork(name: str, body: Callable[[], int]) -> int:
    """A child with that name. Returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    status = 1
    try:
        rename(name)
        status = body()
    except cards.OutOfMemory as error:
        log(f"ValueError: {error}", "ERROR")
    except KeyboardInterrupt:
        pass
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(status)


class Parents:
    """Whether this process still has its parent, and how long it has been an orphan."""

    def __init__(self) -> None:
        self.parent, self.since = os.getppid(), 0.0

    def lost_for_long(self) -> bool:
        if os.getppid() == self.parent:
            return False
        self.since = self.since or time.monotonic()
        return time.monotonic() > self.since + ORPHANED_S


def worker(options: Options, shared: Shared, number: int, card: int | None) -> int:
    """One rank: claims its card, acknowledges steps, burns CPU while there is work."""
    parents = Parents()
    if card is not None:
        cards.claim(card, options.memory_fraction)
    log(f"world_size={options.workers} rank={number} local_rank={number}")
    seen = shared.step
    while not parents.lost_for_long():
        if shared.step != seen:
            seen = shared.step
            shared.acknowledge(number)
        if shared.working:
            until = time.monotonic() + WORK_S
            while time.monotonic() < until:
                pass
        time.sleep(REST_S if shared.working else IDLE_S)
    cards.release()
    return 0


class Core:
    """Starts the workers and makes steps while requests run."""

    def __init__(self, options: Options, shared: Shared) -> None:
        self.options, self.shared = options, shared
        self.pids: list[int] = []
        self.pending_since = 0.0

    def run(self) -> int:
        parents = Parents()
        signal.signal(signal.SIGTERM, self.leave)
        self.start_workers()
        while not parents.lost_for_long():
            dead = self.dead_worker()
            if dead:
                return self.shut_down(dead)
            self.step()
        self.leave()
        return 0

    def start_workers(self) -> None:
        seen = cards.visible(self.options.workers) or [None] * self.options.workers
        name = NAMES.get(self.options.shape, NAMES["vllm"])[1]
        for number, card in enumerate(seen):
            body = lambda n=number, c=card: worker(self.options, self.shared, n, c)  # noqa: E731
            self.pids.append(fork(f"{name}{number}", body))

    def step(self) -> None:
        """One step, or a rest; the shm line while a step finds no answer."""
        shared = self.shared
        if shared.errored:
            raise cards.OutOfMemory("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if not shared.all_acknowledged() or (shared.held and shared.running):
            self.complain()
            time.sleep(0.002 if shared.step_s < 1 else IDLE_S)
            return
        self.pending_since = 0.0
        if shared.running:
            until = time.monotonic() + shared.step_s
            while time.monotonic() < until and not shared.held and not self.dead_worker():
                time.sleep(max(0.0, min(shared.step_s, until - time.monotonic(), 0.1)))
            if not shared.held:
                shared.step += 1
        else:
            time.sleep(IDLE_S / 4)

    def complain(self) -> None:
        now = time.monotonic()
        self.pending_since = self.pending_since or now
        if now > self.pending_since + self.shared.shm_s and self.options.shape == "vllm":
            log(NO_BLOCK.format(self.shared.shm_s), "WARNING")
            self.pending_since = now

    def dead_worker(self) -> tuple[int, int] | None:
        """Its number and exit code."""
        for number, pid in enumerate(self.pids):
            code = ended(pid)
            if code is not None:
                return number, code
        return None

    def shut_down(self, dead: tuple[int, int]) -> int:
        number, code = dead
        log(f"Worker proc VllmWorker-{number} died unexpectedly (exit code: {code}), "
            "shutting down executor.", "ERROR")  # fmt: skip
        self.end_workers()
        return 1

    def end_workers(self) -> None:
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def leave(self, *_: object) -> None:
        self.end_workers()
        os._exit(0)
