"""Short names for candidates, cards and numbers, the same on every screen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from math import floor, log10

from multigpu.plan import Candidate, Estimate, Strategy


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


def rounded(value: float) -> str:
    """Two digits that mean something, three from 100 on: `4.1`, `41`, `413`, `4,130`.

    From a million on `1.2e+06`: such a number is a mistake somewhere and must not break a table.
    """
    if value <= 0:
        return "0"
    if value >= 999_500:
        return f"{value:.2g}"
    if 10 <= value < 100:
        return str(round(value))
    digits = (3 if value >= 100 else 2) - 1 - floor(log10(value))
    if digits <= 0:
        return f"{round(value, digits):,.0f}"
    return f"{round(value, digits):,.{max(digits, 0)}f}"


def spread(estimate: Estimate) -> str:
    """`30 to 50`."""
    return f"{rounded(estimate.low)} to {rounded(estimate.high)}"


def counted(count: int, one: str, many: str | None = None) -> str:
    """`1 way`, `1,024 ways`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


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


def models(names: Sequence[str | None]) -> str:
    """`2 x RTX 3090`, `RTX 4090 + RTX 3090`; empty where a name is not known."""
    if not names or None in names:
        return ""
    short = [re.sub(r"^(NVIDIA|AMD)\s+|\b(GeForce|Radeon)\s+", "", name or "") for name in names]
    counts = {name: short.count(name) for name in short}
    return " + ".join(f"{n} x {name}" if n > 1 else name for name, n in counts.items())


def runtime_name(runtime: str) -> str:
    """The runtime as its makers write it."""
    return {"vllm": "vLLM", "sglang": "SGLang"}.get(runtime, runtime)


def split(candidate: Candidate) -> str:
    """How the model is spread: `tensor parallel 2 x pipeline 2 (28+36)`, `tensor split 3,1`."""
    also = ", expert parallel" if candidate.expert_parallel else ""
    if candidate.cpu_offload_mib:
        also += f", {size(candidate.cpu_offload_mib)} offloaded"
    return _split(candidate, "tensor parallel ", "pipeline ") + also


def short_split(candidate: Candidate) -> str:
    """The same for a table: `TP 2 x PP 2 (28+36) EP`."""
    also = " EP" if candidate.expert_parallel else ""
    return _split(candidate, "TP ", "PP ") + also


def _split(candidate: Candidate, tensor: str, pipeline: str) -> str:
    tp, pp = candidate.tensor_parallel_size, candidate.pipeline_parallel_size
    counts = [str(n) for n in candidate.layers or ()]
    stages = f" ({'+'.join(counts)})" if counts else ""
    parts = [f"{tensor}{tp}"] if tp > 1 else []
    parts += [f"{pipeline}{pp}{stages}"] if pp > 1 else []
    way = " x ".join(parts)
    match candidate.strategy:
        case Strategy.SINGLE:
            return "one card"
        case Strategy.REPLICAS:
            inner = way.replace(tensor, "TP ").replace(pipeline, "PP ")
            return counted(candidate.replicas, "replica") + (f" of {inner}" if inner else "")
        case Strategy.LAYER_SPLIT:
            return f"layer split {'+'.join(counts)}".rstrip()
        case Strategy.TENSOR_SPLIT:
            return f"tensor split {','.join(counts)}".rstrip()
        case _:
            return way or str(candidate.strategy).replace("_", " ")


def label(candidate: Candidate) -> str:
    """One candidate in a line: `vLLM tensor parallel 2 on GPU 0, 1`."""
    return f"{runtime_name(candidate.runtime)} {split(candidate)} on {cards(candidate.gpus)}"
