"""Inference runtimes: one module each, in one explicit tuple.

Adding a runtime touches its module, `RUNTIMES` and one test.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from multigpu.errors import WishError
from multigpu.hardware import Host
from multigpu.install import Files, Recipe
from multigpu.plan import Candidate, Check, ModelSpec, Plan, Reason, Service, Wish
from multigpu.progress import Progress
from multigpu.runtimes import llama_cpp, llama_cpp_server, sglang, vllm


class Runtime(Protocol):
    """What a runtime module offers to planning and rendering."""

    @property
    def NAME(self) -> str:
        """The name in wishes and plans."""

    @property
    def VERSION(self) -> str:
        """The pinned release that the rules, flags and numbers hold for."""

    def candidates(self, host: Host, model: ModelSpec, wish: Wish) -> tuple[Candidate, ...]:
        """Ways to serve, with memory per card; not yet checked."""

    def objections(
        self, candidate: Candidate, host: Host, model: ModelSpec, wish: Wish
    ) -> Iterator[Reason]:
        """Why this runtime cannot serve a candidate; nothing when it can."""

    def cautions(self, candidate: Candidate, host: Host, model: ModelSpec) -> Iterator[Reason]:
        """What the operator should know of a candidate that works."""

    @property
    def LOG_PATTERNS(self) -> tuple[str, ...]:
        """Regular expressions of the log lines that `signs` reads."""

    def signs(self, plan: Plan, lines: Sequence[str]) -> Iterator[Check]:
        """What the engine's own log says of the plan."""

    def recipe(self, host: Host, wish: Wish, files: Files) -> Recipe:
        """How the runtime gets onto the host. Raises MultigpuError when it cannot."""

    def render(self, plan: Plan, executable: str, model_path: str) -> tuple[Service, ...]:
        """One service per replica."""

    def progress(self, plan: Plan) -> Progress:
        """Which of its metrics show that it works; every service carries it."""

    def benchmark(self, plan: Plan, url: str, model_path: str) -> tuple[str, ...]:
        """Command of the runtime's own benchmark tool, for the plan's workload.

        `argv[0]` is a program beside the runtime's executable; `url` is that of one engine, without
        a path, `model_path` what the engine was started with. Empty where the runtime has no tool.
        """


RUNTIMES: tuple[Runtime, ...] = (vllm, llama_cpp, sglang, llama_cpp_server)
"""Order is preference where everything else is equal."""


def runtime(name: str) -> Runtime:
    """The runtime of that name. Raises WishError when there is none."""
    for module in RUNTIMES:
        if name == module.NAME:
            return module
    known = ", ".join(module.NAME for module in RUNTIMES)
    raise WishError(f"runtime {name!r} is not known: use one of {known}")
