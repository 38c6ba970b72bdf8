"""How one sees from outside whether an engine works, by the engine's own metric names.

A health answer is no proof: llama-server answers 200 on every path while a device of it hangs, and
vLLM's is a flag. What tells a hang from idleness is a counter that should move while requests run.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where an engine publishes what it does, in Prometheus text format.

    `metrics_path` is the path of the HTTP server, None where it has none. `busy` are gauges that
    are above zero while requests run or wait; `moving` are metrics of which at least one changes
    within seconds while requests run. Names are written as on the page (counters with `_total`);
    a name may stand there several times, with different labels: their sum counts.
    """

    metrics_path: str | None = None
    busy: tuple[str, ...] = ()
    moving: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """True where a hang can be told from idleness."""
        return self.metrics_path is not None and bool(self.busy) and bool(self.moving)


UNKNOWN = Progress()
"""An engine that says nothing of what it does."""
