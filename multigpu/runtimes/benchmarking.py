"""What the runtimes' own benchmark tools are told: the plan's workload, as their options.

`argv[0]` of every command is a program in the directory of the runtime's executable, and the
command runs with the environment of the service; a key travels as `OPENAI_API_KEY` in it, which
the tools of vLLM (`benchmarks/lib/endpoint_request_func.py`) and SGLang (`benchmark/serving.py`)
send as a bearer token.
"""

from __future__ import annotations

from multigpu.plan import Plan, Workload

PER_SEAT, FEWEST = 8, 16
"""Requests of one benchmark for each that runs at a time; no benchmark has fewer than the second.

Few requests per seat measure the ramps at begin and end instead of the load between.
"""


def options(**given: object) -> tuple[str, ...]:
    """`--max-concurrency 8 --ignore-eos` from names with underscores; True is a bare flag."""
    words: list[str] = []
    for name, value in given.items():
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words.append(str(value))
    return tuple(words)


def requests(workload: Workload) -> int:
    """How many requests one benchmark sends."""
    return max(FEWEST, PER_SEAT * workload.concurrency)


def served_name(plan: Plan) -> str:
    """What clients ask for."""
    return plan.wish.served_model_name or plan.wish.name
