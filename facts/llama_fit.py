"""What llama.cpp itself says of the memory that a planned service would take."""

from __future__ import annotations

from pyinfra.api import FactBase
from typing_extensions import override


class LlamaFit(FactBase[str]):
    """The output of `llama-fit-params`, empty where the host does not have it.

    Argument: `asking`, the command of `multigpu.runtimes.llama_cpp_fit.command`.
    """

    @staticmethod
    @override
    def default() -> str:
        return ""

    @override
    def command(self, asking: str) -> str:
        return asking

    @override
    def process(self, output: list[str]) -> str:
        return "\n".join(output)
