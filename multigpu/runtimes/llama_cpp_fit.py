"""Asking `llama-fit-params` on a host that has it: the command, and its answer beside ours.

It loads without data and takes a second; src/llama-context.cpp (0c1e57098). It reckons with an
output row for every token of a batch where llama-server has one a slot, so its compute buffer of
the last card is larger by up to `ubatch x vocabulary x 4` bytes.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from multigpu.parse.engines.llama_fit_params import FitDevice, read_fit_print
from multigpu.plan import Memory, Service

PROGRAM = "llama-fit-params"
# A driver that hangs does not end at SIGTERM.
SECONDS, KILL_S = 60, 10
# Flags of llama-server that it takes too and that decide memory, all with a value.
KEPT = {
    *("--batch-size", "--cache-type-k", "--cache-type-v", "--ctx-size", "--device"),
    *("--flash-attn", "--gpu-layers", "--model", "--n-cpu-moe", "--override-tensor", "--parallel"),
    *("--rpc", "--split-mode", "--tensor-split", "--ubatch-size"),
}


@dataclass(frozen=True)
class Asked:
    """Memory of the cards of one service in device order: as planned, and as llama.cpp answered."""

    service: str
    planned: tuple[Memory, ...]
    answered: tuple[FitDevice, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """One sentence per card."""
        return tuple(self._lines())

    def _lines(self) -> Iterator[str]:
        for memory, device in zip(self.planned, self.answered, strict=False):
            planned = (memory.weights_mib, memory.kv_cache_mib, memory.activations_mib)
            found = (device.model_mib, device.context_mib, device.compute_mib)
            yield (
                f"{self.service}: {device.name} weights, KV and compute planned {_mib(planned)}; "
                f"{PROGRAM} on the host says {_mib(found)} MiB"
            )


def _mib(values: Sequence[float]) -> str:
    return " + ".join(f"{value:,.0f}" for value in values)


def command(service: Service) -> str:
    """A shell command that asks for this service's memory, bounded in time.

    It prints nothing where the program is not beside llama-server.
    """
    folder = service.argv[0].rpartition("/")[0]
    program = f"{folder}/{PROGRAM}" if folder else PROGRAM
    words = list(_kept(service.argv))
    given = [f"{setting.name}={setting.value}" for setting in service.environment]
    library = f"LD_LIBRARY_PATH={folder.rpartition('/')[0]}/lib"
    asked = [*("env", library, *given, "timeout", "-k", str(KILL_S), str(SECONDS), program, *words)]
    run = shlex.join([*asked, "--fit", "off", "--fit-print", "on"])
    return f"if test -x {shlex.quote(program)}; then {run} 2>/dev/null || true; fi"


def _kept(argv: Sequence[str]) -> Iterator[str]:
    for flag, value in zip(argv, [*argv[1:], ""], strict=True):
        if flag in KEPT:
            yield from (flag, value)


def asked(service: Service, planned: Sequence[Memory], printed: str) -> Asked | None:
    """The answer beside the plan; None where the host could not be asked."""
    devices = tuple(d for d in read_fit_print(printed) if d.name != "Host")
    if len(devices) != len(planned):
        return None
    return Asked(service.name, tuple(planned), devices)
