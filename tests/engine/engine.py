#!/usr/bin/python3
"""A SIMULATED inference engine that fails as vLLM, SGLang and llama-server do; no model, no GPU.

    python3 engine.py --shape vllm|sglang|llama --port N --workers 2 --control FILE

or under the command line of the engine itself (`command_lines.py`). What it does wrong is told in
the control file (`control.py`). Processes: the API, for vLLM and SGLang a core and one worker for
each rank, under the names that the real ones carry. Python 3.9 and newer, stdlib only.

How each ends (knowledge of the projects' issues and sources): vLLM's API ends with 0 within 5 s
after its engine died (vllm issue 48966) and leaves orphans when killed (34643); SGLang's kills
itself when a child fails (`SIGQUIT received.`); llama-server is one process and aborts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import cards
import command_lines
from command_lines import Options
from control import Control
from ranks import NAMES, Core, fork, log
from server import Server
from shared import Shared, ended

WATCHDOG_S = 5.0
"""Period of vLLM's watchdog_loop (entrypoints/launcher.py)."""
KV_CACHE_TOKENS = 65536
TICK_S = 0.02
STUCK_S = 0.5
"""Ranks that wait for one that does not answer rest, unless they are told to `spin`."""


class Engine:
    """The API process."""

    def __init__(self, options: Options) -> None:
        self.options, self.shared = options, Shared(options.workers)
        self.shared.step_s, self.shared.shm_s = options.token_s, 60
        self.control = Control(options.control)
        self.core: int | None = None
        self.server: Server | None = None
        self.told_to_stop = False
        self.ready_at = self.answered_at = 0.0

    def run(self) -> int:
        print(f"simulated {self.options.engine}", flush=True)
        if self.options.ignored:
            log(f"flags without effect here: {' '.join(self.options.ignored)}")
        if self.control.get("config_error"):
            return self.refuse_configuration()
        signal.signal(signal.SIGTERM, self.stop)
        if self.options.workers:
            name = NAMES[self.options.shape][0] if self.options.shape in NAMES else "engine"
            self.core = fork(name, Core(self.options, self.shared).run)
        self.control.watch(self.follow)
        if self.options.shape == "llama":
            self.listen()
        return self.load() or self.serve()

    def refuse_configuration(self) -> int:
        if self.options.shape == "llama":
            print("error: invalid argument: --simulated", flush=True)
            return 1
        print("usage: simulated serve [options]\nerror: unrecognized arguments: --simulated",
              file=sys.stderr, flush=True)  # fmt: skip
        return 2

    # --- load ---

    def load(self) -> int:
        """0 when loaded, else the exit status."""
        begun = time.monotonic()
        log("Loading weights ...")
        while not self.loaded(begun):
            if self.told_to_stop:
                self.end_children()
                return self.leave(0)
            if self.core is not None and (code := ended(self.core)) is not None:
                return self.failed_to_load(code)
            time.sleep(TICK_S)
        if self.control.get("oom") == "load":
            return self.out_of_memory()
        self.report()
        if self.server is None:
            self.listen()
        self.server.loading = False
        self.ready_at = time.monotonic()
        log("Application startup complete." if self.options.shape != "sglang"
            else "The server is fired up and ready to roll!")  # fmt: skip
        return 0

    def loaded(self, begun: float) -> bool:
        seconds = self.control.get("load_s", self.options.load_s)
        return seconds != "never" and time.monotonic() > begun + float(seconds)

    def failed_to_load(self, code: int) -> int:
        if self.options.shape == "sglang":
            return self.child_failed()
        log("Engine core initialization failed. See root cause above. Failed core proc(s): "
            f"{{'EngineCore': {code}}}", "ERROR")  # fmt: skip
        return 1

    def out_of_memory(self) -> int:
        log("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
            if self.options.shape != "llama" else
            "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory",
            "ERROR")  # fmt: skip
        self.end_children()
        if self.options.shape == "llama":
            log("exiting due to model loading error", "ERROR")
        return 1

    def report(self) -> None:
        """The lines that verification reads."""
        options = self.options
        log("Model loading took 0.06 GiB memory and 0.10 seconds")
        if options.shape == "sglang":
            log(f"server_args={{'tp_size': {options.tensor}, 'pp_size': {options.pipeline}, "
                "'disable_radix_cache': False}")  # fmt: skip
            log(f"max_total_num_tokens={KV_CACHE_TOKENS}, available_gpu_mem=1.00 GB")
        else:
            log(f"GPU KV cache size: {KV_CACHE_TOKENS:,} tokens, Maximum concurrency for "
                f"{options.context:,} tokens per request: "
                f"{KV_CACHE_TOKENS / options.context:.2f}x")  # fmt: skip

    def listen(self) -> None:
        self.server = Server(self.options, self.shared, self.control)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    # --- serve ---

    def follow(self, control: Control) -> None:
        """Tell the other processes what holds now; runs in the control's thread."""
        shared, requests = self.shared, self.server and self.server.requests
        prefilling = bool(requests and requests.prefills)
        waiting_only = bool(control.get("waiting_only") and not shared.running)
        shared.held = bool(
            control.get("stall") or control.get("compile") or prefilling or waiting_only
        )
        if shared.all_acknowledged():
            self.answered_at = time.monotonic()
        stuck = control.get("stall") or time.monotonic() > self.answered_at + STUCK_S
        busy = shared.running and not (stuck or waiting_only)
        shared.working = bool(busy or control.get("compile") or control.get("spin"))
        shared.step_s = float(control.get("token_s", self.options.token_s))
        shared.shm_s = float(control.get("shm_s", 60))
        shared.errored = control.get("oom") == "later"
        if control.get("closed") and self.server:
            with contextlib.suppress(OSError):
                self.server.socket.close()

    def serve(self) -> int:
        while True:
            time.sleep(TICK_S)
            if self.told_to_stop and self.drained():
                return self.leave(0)
            code = self.control.get("exit")
            after = self.control.get("crash_after_s")
            if code is None and after is not None and time.monotonic() > self.ready_at + after:
                code = 1
            if code is not None:
                log(f"ends with {code}, as it was told", "ERROR")
                return self.leave(int(code))
            if self.options.shape == "llama" and self.shared.errored:
                log("CUDA error: out of memory", "ERROR")
                os.abort()
            if self.core is not None and ended(self.core) is not None:
                return self.core_died()

    def core_died(self) -> int:
        """What each API process does without its engine."""
        if self.options.shape == "sglang":
            return self.child_failed()
        log("AsyncLLM output_handler failed.", "ERROR")
        log("vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.", "ERROR")
        self.core = None
        stays = bool(self.control.get("no_exit"))
        self.server.requests.dead = not stays
        self.shared.held = 1
        if stays:
            return self.serve()
        time.sleep(WATCHDOG_S - time.monotonic() % WATCHDOG_S)
        return 0

    def child_failed(self) -> int:
        log("SIGQUIT received. signum=None, frame=None. It usually means one child failed.",
            "ERROR")  # fmt: skip
        self.end_children()
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)
        return 137

    # --- end ---

    def stop(self, *_: object) -> None:
        self.told_to_stop = not self.control.get("ignore_term")

    def drained(self) -> bool:
        """vLLM aborts what runs; the others wait for it without limit."""
        return self.options.shape == "vllm" or not self.shared.running

    def end_children(self) -> None:
        if self.core is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.core, signal.SIGTERM)
            deadline = time.monotonic() + 2
            while ended(self.core) is None and time.monotonic() < deadline:
                time.sleep(0.01)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.core, signal.SIGKILL)
            self.core = None

    def leave(self, code: int) -> int:
        self.end_children()
        cards.release()
        return code


def main(words: list[str], shape: str | None = None) -> None:
    options = command_lines.read(words, shape)
    cards.visible(options.workers)
    status = Engine(options).run()
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
