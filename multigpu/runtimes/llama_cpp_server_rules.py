"""What `llama_cpp.server` of llama-cpp-python 0.3.36 cannot do, told before it is installed."""

from __future__ import annotations

from collections.abc import Iterator

from multigpu.hardware import Host
from multigpu.labels import counted
from multigpu.plan import Candidate, ModelSpec, Reason, Strategy, Wish
from multigpu.runtimes import llama_cpp
from multigpu.workload import workload

NAME = "llama_cpp.server"
STRATEGIES = (Strategy.SINGLE, Strategy.LAYER_SPLIT)

# `__main__.py` lets HOST, PORT and CONFIG_FILE win over the command line; the settings are
# pydantic's, which take every other one from the environment too (API_KEY is meant so).
OVERRIDING = ("HOST", "PORT", "CONFIG_FILE")
USE = "use runtime = llama.cpp (llama-server)"


def objections(candidate: Candidate, host: Host, model: ModelSpec, wish: Wish) -> Iterator[Reason]:
    """What stands against serving this candidate with llama_cpp.server."""
    if wish.runtime != NAME:
        found = "llama_cpp.server: it is for a single user who asks for it"
        yield Reason("runtime-on-request", found, "runtime = llama_cpp.server")
    if candidate.strategy in STRATEGIES:
        yield from llama_cpp.objections(candidate, host, model, wish)
    else:
        found = f"strategy {candidate.strategy} with llama_cpp.server"
        yield Reason("single-process", found, "single or layer_split", USE)
    yield from one_at_a_time(model, wish)
    if wish.cpu_offload_gib is not None:
        found = "llama_cpp.server has no flag that keeps experts in the host's memory"
        yield Reason("offload-flags", found, "all weights on the cards", USE)
    yield from environment(wish)


def one_at_a_time(model: ModelSpec, wish: Wish) -> Iterator[Reason]:
    """A lock around the model: a second request waits for the end of the first."""
    requests = workload(model, wish).concurrency
    if requests > 1:
        found = f"{counted(requests, 'request')} at a time, llama_cpp.server serves one"
        yield Reason("one-request-at-a-time", found, "concurrency = 1", USE)


def environment(wish: Wish) -> Iterator[Reason]:
    """Variables that would win over the command line that was planned."""
    names = [name for name in wish.env if name.upper() in OVERRIDING]
    if names:
        found = f"env {names[0]} wins over the command line of llama_cpp.server"
        yield Reason("environment-overrides", found, "port and bind of the wish", "leave it out")
