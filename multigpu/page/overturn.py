"""What to measure before somebody believes otherwise: the close seconds, and how to run them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from multigpu import labels
from multigpu.page.alternatives import best, kind
from multigpu.page.text import WIDTH, bullets, hanging, heading
from multigpu.plan import Candidate, Estimate, Objective, Plan, Strategy


def section(plan: Plan) -> Iterator[str]:
    """The alternatives whose range meets that of the plan, their pins, and the load to put on."""
    close = [item.candidate for item in best(plan) if _close(plan, item.candidate)]
    if not close:
        return
    yield from heading("To overturn it, measure")
    yield from bullets(_why(plan, candidate) for candidate in close)
    yield from hanging("  ", f"Under {plan.wish.name} in plans/{plan.host}.yaml write")
    for candidate in close:
        yield from hanging("    pins: ", _pins(plan, candidate))
    text = "and serve it with deploys/plan.py and deploys/serve.py; then the same load on each:"
    yield from hanging("  ", text)
    yield from command(plan)


def _key(candidate: Candidate, objective: Objective) -> Estimate | None:
    found = candidate.predicted
    if found is None:
        return None
    return found.decode_tokens_per_s if objective is Objective.THROUGHPUT else found.tpot_ms


def _close(plan: Plan, other: Candidate) -> bool:
    """True when the ranges overlap; without speeds nothing tells them apart but a measurement."""
    objective = plan.workload.objective
    if objective is Objective.CONTEXT:
        return False
    ours, theirs = _key(plan.chosen, objective), _key(other, objective)
    if ours is None or theirs is None:
        return True
    return ours.low <= theirs.high and theirs.low <= ours.high


def _why(plan: Plan, other: Candidate) -> str:
    objective = plan.workload.objective
    ours, theirs = _key(plan.chosen, objective), _key(other, objective)
    name = f"{kind(other)} on {labels.cards(other.gpus)}"
    if ours is None or theirs is None:
        return f"{name}: its speed is not known"
    unit = "tokens/s of decode" if objective is Objective.THROUGHPUT else "ms per token"
    return f"{name}: {labels.spread(theirs)} {unit} against {labels.spread(ours)}"


def _pins(plan: Plan, candidate: Candidate) -> str:
    """The fewest pins that leave this way only."""
    strategy, tp = candidate.strategy, candidate.tensor_parallel_size
    pins: dict[str, object] = {}
    if candidate.runtime != plan.chosen.runtime:
        pins["runtime"] = candidate.runtime
    pins["strategy"] = strategy
    if tp > 1 and strategy is not Strategy.TENSOR_PARALLEL:
        pins["tensor_parallel_size"] = tp
    if candidate.layers is not None:
        pins["layers"] = list(candidate.layers)
    elif candidate.pipeline_parallel_size > 1:
        pins["pipeline_parallel_size"] = candidate.pipeline_parallel_size
    if candidate.expert_parallel:
        pins["expert_parallel"] = "true"
    pins["gpus"] = list(candidate.gpus)
    return "{" + ", ".join(f"{key}: {value}" for key, value in pins.items()) + "}"


def command(plan: Plan) -> Iterator[str]:
    """`vllm bench serve`, which loads any OpenAI server (`pip install 'vllm[bench]'`)."""
    load, wish = plan.workload, plan.wish
    gguf = plan.model.format == "gguf"
    words = [
        "vllm bench serve --backend openai-chat --endpoint /v1/chat/completions",
        f"--base-url http://{_address(wish.bind)}:{wish.port}",
        f"--model {'REPOSITORY' if gguf else shlex.quote(plan.model.name)}",
        f"--served-model-name {shlex.quote(wish.served_model_name or wish.name)}",
        f"--dataset-name random --random-input-len {load.input_tokens}",
        f"--random-output-len {load.output_tokens} --ignore-eos",
        f"--max-concurrency {load.concurrency}",
        f"--num-prompts {max(8, 4 * load.concurrency)}",
    ]
    yield from _joined(words)
    if gguf:
        yield from hanging("  ", "REPOSITORY is where the GGUF comes from: its tokenizer is read")
    if plan.chosen.replicas > 1:
        yield from hanging("  ", "with the port of the balancer in front of the replicas")


def _address(bind: str) -> str:
    return "127.0.0.1" if bind in ("0.0.0.0", "::") else bind


def _joined(words: list[str]) -> Iterator[str]:
    """Lines that a shell takes as one command; only a name longer than a line is broken."""
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) <= WIDTH - 8:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    for line in lines[:-1]:
        yield from hanging("    ", f"{line} \\")
    yield from hanging("    ", lines[-1])
