"""What `multigpu.host.observe` saw of running services: the values, and the reader of its JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import cattrs

from multigpu import credentials
from multigpu.errors import CaptureError
from multigpu.host.load import REQUEST_TIMEOUT_S
from multigpu.plan import Plan, Wish
from multigpu.units import RenderedUnit

SCHEMA = 1
END = "multigpu-observation-end"
SECONDS = 8
MAX_TOKENS = 64
COMMANDS_S = 30
"""For what is asked of systemd, /proc and the journal about one unit."""

FIRST_WORDS_S = 60
"""Within it every engine has said something; one that begins later has lost its begin."""


@dataclass(frozen=True)
class LoadSeen:
    """Counts of the load; `sample_text` is the begin of one completion."""

    seconds: float
    completed: int
    failed: int
    completion_tokens: int
    sample_text: str | None
    error: str | None


@dataclass(frozen=True)
class CardSeen:
    """NVML samples of one card under load: percent, MiB (largest seen), watts."""

    index: int
    uuid: str | None
    utilization: tuple[int, ...]
    power_w: tuple[float, ...]
    memory_used_mib: int | None
    memory_total_mib: int | None
    processes: tuple[tuple[int, int | None], ...]
    error: str | None

    @property
    def busy_percent(self) -> float | None:
        """Mean utilization, or None when there is no sample."""
        return sum(self.utilization) / len(self.utilization) if self.utilization else None


@dataclass(frozen=True)
class UnitSeen:
    """One unit: its state, the engine's command line and chosen environment, its log lines.

    `log_begins_s` is how long after the start of the process the journal's first line of it is, in
    seconds; None when the journal has no line of it.
    """

    unit: str
    active_state: str | None
    sub_state: str | None
    n_restarts: int
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    log: tuple[str, ...]
    log_begins_s: float | None = None

    @property
    def says_its_start(self) -> bool:
        """True where the journal still has what the engine said while it loaded."""
        return self.log_begins_s is not None and self.log_begins_s < FIRST_WORDS_S


@dataclass(frozen=True)
class ServiceSeen:
    """Everything seen of one service. `endpoint` is what went wrong there, "" for nothing, None
    where there is none."""

    name: str
    load: LoadSeen
    gpus: tuple[CardSeen, ...]
    nvml_error: str | None
    units: tuple[UnitSeen, ...]
    endpoint: str | None = None


def read(text: str) -> tuple[ServiceSeen, ...]:
    """The printed observation as values. Raises CaptureError when it is not a whole one."""
    line = next((line for line in text.splitlines() if line.startswith('{"schema"')), None)
    if line is None:
        printed = " ".join(text.split())[-200:] or "nothing"
        raise CaptureError(f"the observation printed no result, it ends: {printed}")
    try:
        document = json.loads(line)
    except ValueError:
        raise CaptureError("the observation was cut short: run deploys/verify.py again") from None
    if document.get("schema") != SCHEMA or document.get("end") != END:
        raise CaptureError("the observation is of another version: run deploys/serve.py again")
    try:
        return cattrs.structure(document["services"], tuple[ServiceSeen, ...])
    except (cattrs.BaseValidationError, KeyError, TypeError, ValueError) as error:
        raise CaptureError(
            f"the observation does not have the expected shape, {type(error).__name__}: "
            "run deploys/serve.py again"
        ) from None


def spec(
    plan: Plan,
    units: Iterable[RenderedUnit],
    log_patterns: Iterable[str],
    seconds: int = SECONDS,
    endpoint: str | None = None,
) -> dict[str, object]:
    """What `observe` is to do for one service, as JSON-ready values. `endpoint` is a URL."""
    return {
        "name": plan.wish.name,
        "model": served_model_name(plan),
        "concurrency": users(plan),
        "seconds": seconds,
        "max_tokens": MAX_TOKENS,
        "units": [{"unit": unit.name, "url": unit.url} for unit in units],
        "endpoint": endpoint,
        "api_key_file": api_key_file(plan.wish),
        "environment_names": [setting.name for setting in plan.environment],
        "log_patterns": list(log_patterns),
    }


def api_key_file(wish: Wish) -> str | None:
    """Where the key that the service asks for lies on its host; the observation runs as root."""
    return None if wish.api_key_file is None else credentials.path(wish.name, credentials.API_KEY)


def limit_s(specs: Iterable[Mapping[str, Any]]) -> int:
    """Seconds after which an observation is given up: the sum of its own limits."""
    return 30 + sum(
        int(_requests(s) * REQUEST_TIMEOUT_S + s["seconds"] + COMMANDS_S * len(s["units"]))
        for s in specs
    )


def _requests(spec: Mapping[str, Any]) -> int:
    """How many times in a row an observation may wait for an answer."""
    return 2 if spec.get("endpoint") is None else 3


def users(plan: Plan) -> int:
    """Requests in flight at each engine: replicas share what was wished for."""
    return max(1, -(-(plan.wish.concurrency or plan.workload.concurrency) // plan.chosen.replicas))


def served_model_name(plan: Plan) -> str:
    """The name clients ask for: the wish's, else the service's."""
    return plan.wish.served_model_name or plan.wish.name
