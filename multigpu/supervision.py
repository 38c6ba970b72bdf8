"""The supervisor's part of a unit's command line: what it watches, and by which clocks.

docs/reliability.md says what each flag is for.
"""

from __future__ import annotations

from math import ceil

from multigpu.plan import Plan, Service

RESTART_S = 5
"""RestartSec= of the unit, and the first step of the supervisor's own growing pauses."""
KILL_S = 15
"""From SIGTERM to SIGKILL: vLLM takes 5 + 4 s to leave."""
STOP_S = KILL_S + 5
"""What a stop takes at most, without the time that requests get."""
WATCHDOG_S, ABORT_S = 12, 5
START_LIMIT, START_LIMIT_S = 6, 3600


def words(plan: Plan, service: Service) -> tuple[str, ...]:
    """Flags that say what the engine is and how its progress is seen."""
    progress = service.progress
    path = progress.metrics_path
    metrics = ("--metrics-path", path) if progress.known and path else ()
    return (
        *("--service", service.name, "--wish", plan.wish.name),
        *("--runtime", plan.chosen.runtime),
        *metrics,
        *(word for name in progress.busy for word in ("--busy", name)),
        *(word for name in progress.moving for word in ("--moving", name)),
        *_cards(plan, service),
        *(("--stall-s", str(plan.wish.stall_s)) if plan.wish.stall_s else ()),
    )


def _cards(plan: Plan, service: Service) -> tuple[str, ...]:
    """NVIDIA cards of this process by UUID, each with what the engine will take of it in MiB."""
    uuids = dict(zip(plan.chosen.gpus, plan.gpu_uuids, strict=False))
    needed = dict(zip(plan.chosen.gpus, plan.chosen.memory, strict=False))
    found = [
        f"{uuid}={ceil(needed[gpu].total_mib)}" if gpu in needed else uuid
        for gpu in dict.fromkeys(service.gpus)
        if (uuid := uuids.get(gpu)) and uuid.startswith(("GPU-", "MIG-"))
    ]
    return ("--gpus", ",".join(found)) if found else ()
