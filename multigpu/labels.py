"""Short names for candidates and sizes, the same on every screen."""

from __future__ import annotations

from collections.abc import Iterable

from multigpu.plan import Candidate, Strategy


def gib(mib: float) -> str:
    """MiB as GiB with one decimal, without the unit."""
    return f"{mib / 1024:.1f}"


def size(mib: float) -> str:
    """`21.7 GiB`, and `602 MiB` below one GiB, where a decimal of a GiB would say little."""
    return f"{gib(mib)} GiB" if mib >= 1024 else f"{mib:.0f} MiB"


def of(part_mib: float, whole_mib: float) -> str:
    """`21.7 of 24.1 GiB`, `602 MiB of 24.1 GiB`."""
    part = gib(part_mib) if part_mib >= 1024 and whole_mib >= 1024 else size(part_mib)
    return f"{part} of {size(whole_mib)}"


def cards(gpus: Iterable[int]) -> str:
    """`GPU 0, 1`; three and more in a row as `GPU 0..7`. The order is the planned one."""
    runs: list[list[int]] = []
    for index in gpus:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return "GPU " + ", ".join(_run(run) for run in runs)


def _run(run: list[int]) -> str:
    return f"{run[0]}..{run[-1]}" if len(run) > 2 else ", ".join(map(str, run))


def runtime_name(runtime: str) -> str:
    """The runtime as its makers write it."""
    return {"vllm": "vLLM"}.get(runtime, runtime)


def split(candidate: Candidate) -> str:
    """How the model is spread: `TP=2`, `PP=2 (33+31)`, `2 replicas`, `layer split 33+32`."""
    tp, pp = candidate.tensor_parallel_size, candidate.pipeline_parallel_size
    layers = "+".join(str(n) for n in candidate.layers or ())
    if candidate.strategy is Strategy.SINGLE:
        return "one card"
    if candidate.strategy is Strategy.REPLICAS:
        return f"{candidate.replicas} replicas" + (f" of TP={tp}" if tp > 1 else "")
    if candidate.strategy is Strategy.LAYER_SPLIT:
        return f"layer split {layers}".rstrip()
    parts = [f"TP={tp}"] if tp > 1 else []
    parts += [f"PP={pp}" + (f" ({layers})" if layers else "")] if pp > 1 else []
    return " x ".join(parts)


def label(candidate: Candidate) -> str:
    """One candidate in a line: `vLLM TP=2 on GPU 0, 1`."""
    return f"{runtime_name(candidate.runtime)} {split(candidate)} on {cards(candidate.gpus)}"
