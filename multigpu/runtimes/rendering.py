"""From a plan to services: one per replica, each with its own port and cards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from multigpu import credentials
from multigpu.plan import Plan, Service, Setting
from multigpu.progress import UNKNOWN, Progress

VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


def merged(ours: Mapping[str, str | None], wished: Mapping[str, str | None]) -> list[str]:
    """Flags as words; a flag of the wish replaces ours of the same name, or is appended."""
    return [
        word
        for name, value in {**ours, **wished}.items()
        for word in ((name,) if value is None else (name, value))
    ]


def replica_services(
    plan: Plan,
    argv: Callable[[int], tuple[str, ...]],
    *,
    health_path: str,
    progress: Progress = UNKNOWN,
) -> tuple[Service, ...]:
    """`chat`, or `chat-0`, `chat-1` on ports wish.port + i; `argv` is asked per port."""
    replicas, wish = plan.chosen.replicas, plan.wish
    runtime, size = plan.chosen.runtime, len(plan.chosen.gpus) // replicas
    names = [wish.name] if replicas == 1 else [f"{wish.name}-{i}" for i in range(replicas)]
    return tuple(
        Service(
            name=name,
            argv=(*argv(wish.port + i), *credentials.words(runtime, name, wish)),
            environment=_environment(plan, i * size, (i + 1) * size),
            port=wish.port + i,
            health_path=health_path,
            gpus=plan.chosen.gpus[i * size : (i + 1) * size],
            progress=progress,
            credentials=credentials.of_engine(runtime, wish),
        )
        for i, name in enumerate(names)
    )


def _environment(plan: Plan, start: int, end: int) -> tuple[Setting, ...]:
    """A replica sees its own cards only; what the operator set stays as it is.

    The plan's setting lists the cards in the planned order, by the numbers of their runtime.
    """
    if plan.chosen.replicas == 1:
        return plan.environment
    return tuple(
        replace(s, value=",".join(s.value.split(",")[start:end]))
        if s.name in VISIBLE and s.name not in plan.wish.env
        else s
        for s in plan.environment
    )
