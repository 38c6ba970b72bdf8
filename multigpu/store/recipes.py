"""The controller's files that a runtime's recipe is made from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from multigpu import install
from multigpu.hardware import Host
from multigpu.install import Recipe
from multigpu.plan import Plan
from multigpu.runtimes import runtime
from multigpu.store import texts


@dataclass(frozen=True)
class Files:
    """Reads locks and the identity of wheels for `multigpu.runtimes`."""

    templates: Path

    def requirements(self, name: str) -> str:
        """The text of a hashed lock."""
        return texts.requirements(self.templates, name)

    def identity(self, path: str) -> tuple[str, int]:
        """SHA-256 and size of a file."""
        return texts.file_identity(path)


def recipe(machine: Host, plan: Plan, templates: Path) -> Recipe:
    """How the planned runtime gets onto this machine. Raises MultigpuError when it cannot."""
    if plan.wish.executable is not None:
        return install.already_there(plan.wish.executable)
    gpus = tuple(gpu for gpu in machine.gpus if gpu.index in plan.chosen.gpus)
    used = replace(machine, gpus=gpus)
    return runtime(plan.chosen.runtime).recipe(used, plan.wish, Files(templates))
