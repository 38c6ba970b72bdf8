"""What a simulated engine is told to do wrong: a JSON file that is read again every 50 ms.

All keys are optional and hold together; an empty or missing file is a healthy engine.

| key | value | effect |
|---|---|---|
| started_before | Unix seconds | the whole file concerns only engines started before then |
| load_s | seconds or "never" | the time of the load |
| oom | "load", "later" | out of memory while loading, or now |
| config_error | true | refuses its configuration when it starts |
| exit | code | the engine ends now; its workers with it |
| crash_after_s | seconds | it ends so long after it was ready |
| stall | true | requests run, nothing moves |
| waiting_only | true | nothing is scheduled: requests only wait |
| spin | true | workers burn CPU though nothing moves, as ranks in a collective do |
| token_s | seconds | time of one token |
| prefill_s, chunks | seconds, bool | prompts that begin with "long"; counters move or not |
| compile | true | a step takes as long as this holds: workers work, nothing moves, shm lines |
| shm_s | seconds | after which a step without an answer prints vLLM's shm_broadcast line |
| unavailable | true | 503 on every path |
| mute | true | connections are accepted and never answered |
| closed | true | the listening socket is closed, the processes live |
| slow_http_s | seconds | saturation: the API process burns CPU so long for every answer |
| no_exit | true | after a worker's death the API stays, /health lies (200) |
| ignore_term | true | SIGTERM is ignored, as llama-server does while a device hangs |
"""

from __future__ import annotations

import json
import threading
import time
from typing import Any

LOOK_S = 0.05
STARTED = time.time()


class Control:
    """The file's present content; a torn file leaves the last one in force."""

    def __init__(self, path: str | None) -> None:
        self.path, self.told = path, {}  # type: str | None, dict[str, Any]
        self.look()

    def look(self) -> None:
        try:
            with open(self.path or "/nonexistent") as file:
                told = json.load(file)
        except FileNotFoundError:
            told = {}
        except (OSError, ValueError):
            return
        self.told = told if told.get("started_before", float("inf")) > STARTED else {}

    def get(self, name: str, default: Any = None) -> Any:
        return self.told.get(name, default)

    def watch(self, changed) -> None:
        """Look for ever, in a thread, and tell."""

        def loop() -> None:
            while True:
                self.look()
                changed(self)
                time.sleep(LOOK_S)

        threading.Thread(target=loop, daemon=True).start()
