"""Why a service ended: names and exit statuses, the same in logs, metrics, alerts and the runbook.

The supervisor's exit status is its verdict. What it cannot say of itself, systemd says
(systemd.exec(5), $SERVICE_RESULT), under systemd's own names.
"""

from __future__ import annotations

from typing import Dict, Tuple

ENGINE_EXIT = "engine_exit"
HTTP_DEAD = "http_dead"
STALLED = "stalled"
START_TIMEOUT = "start_timeout"
PORT_CONFLICT = "port_conflict"
GPU_LOST = "gpu_lost"
RESET_REQUIRED = "reset_required"
GPU_BUSY = "gpu_busy"
CONFIG = "config"

EXIT_STATUSES: Dict[str, int] = {
    ENGINE_EXIT: 10,
    HTTP_DEAD: 11,
    STALLED: 12,
    START_TIMEOUT: 13,
    PORT_CONFLICT: 14,
    GPU_LOST: 20,
    RESET_REQUIRED: 21,
    GPU_BUSY: 75,
    CONFIG: 78,
}
"""By reason. 75 and 78 are EX_TEMPFAIL and EX_CONFIG of sysexits.h."""

WATCHDOG = "watchdog"
OOM_KILL = "oom-kill"
SIGNAL = "signal"
CORE_DUMP = "core-dump"
TIMEOUT = "timeout"
START_LIMIT_HIT = "start-limit-hit"
OF_SYSTEMD: Tuple[str, ...] = (WATCHDOG, OOM_KILL, SIGNAL, CORE_DUMP, TIMEOUT, START_LIMIT_HIT)
"""$SERVICE_RESULT where the supervisor had no say: it was frozen (watchdog), the kernel killed for
memory (oom-kill), somebody killed it (signal, core-dump), it did not stop in time (timeout)."""

REASONS: Tuple[str, ...] = (*EXIT_STATUSES, *OF_SYSTEMD)
"""Every value of the metrics' label `reason`, and the anchors of the runbook."""

NOT_RETRIED: Tuple[str, ...] = (CONFIG,)
"""Reasons after which systemd does not start again (RestartPreventExitStatus=)."""


def exit_status(reason: str) -> int:
    """Of a reason of ours. Raises KeyError."""
    return EXIT_STATUSES[reason]


def reason_of(status: int) -> str | None:
    """The reason that an exit status stands for; None for others."""
    return next((name for name, code in EXIT_STATUSES.items() if code == status), None)
