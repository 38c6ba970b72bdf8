"""What to measure before somebody believes otherwise: the close seconds, and how to run them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from multigpu import labels
from multigpu.gpus import what_if
from multigpu.listening import address, wanted
from multigpu.page.alternatives import best, kind
from multigpu.page.text import WIDTH, bullets, hanging, heading
from multigpu.plan import (
    Candidate,
    Estimate,
    Objective,
    Plan,
    Prediction,
    Rejected,
    Strategy,
    Workload,
)
from multigpu.speed.arrivals import prompts

CLOSE = "close-second"


def section(plan: Plan) -> Iterator[str]:
    """The second and all close to it, what they would have to show, their pins, and the load."""
    found = best(plan)
    worth = [item.candidate for n, item in enumerate(found) if n == 0 or _close(item)]
    if not worth:
        return
    yield from heading("To overturn it, measure")
    yield from bullets(_target(plan, candidate) for candidate in worth)
    yield from hanging("  ", _where(plan))
    for candidate in worth:
        yield from hanging("    pins: ", _pins(plan, candidate))
    yield from hanging("  ", "and serve it with deploys/plan.py and deploys/serve.py.")
    if plan.workload.objective is not Objective.CONTEXT:
        yield from hanging("  ", "Put the same load on each:")
        yield from command(plan)


def _where(plan: Plan) -> str:
    if plan.host == what_if.NAME:
        return f"On a real host, in its plan file under {plan.wish.name}, write"
    return f"Under {plan.wish.name} in plans/{plan.host}.yaml write"


def _close(item: Rejected) -> bool:
    """The ranking called it close, or nothing but a measurement tells the two apart."""
    unknown = item.candidate.predicted is None or item.candidate.predicted.tpot_ms is None
    return unknown or any(reason.rule == CLOSE for reason in item.reasons)


def _target(plan: Plan, other: Candidate) -> str:
    """What the other way is predicted to give, and what it would have to."""
    name = f"{kind(other)} on {labels.cards(other.gpus)}"
    objective = plan.workload.objective
    if objective is Objective.CONTEXT:
        tokens = f"{plan.chosen.kv_tokens or 0:,} tokens"
        return f"{name}: a KV cache of more than {tokens}, by its log when it starts"
    ours, theirs = _figure(plan.chosen, plan.workload), _figure(other, plan.workload)
    if ours is None or theirs is None:
        return f"{name}: its speed is not known"
    if objective is Objective.THROUGHPUT:
        needed = f"more than {labels.rounded(ours.value)} tokens/s of decode"
    else:
        needed = f"a whole request in less than {labels.rounded(ours.value)} s"
    return f"{name}: {needed} ({labels.rounded(theirs.value)} predicted, {labels.spread(theirs)})"


def _figure(candidate: Candidate, load: Workload) -> Estimate | None:
    """What the objective asks for: output tokens per second, else seconds of a whole request."""
    found = candidate.predicted or Prediction()
    if load.objective is Objective.THROUGHPUT:
        return found.decode_tokens_per_s
    first, further = found.ttft_ms, found.tpot_ms
    if first is None or further is None:
        return None
    tokens = load.output_tokens
    return Estimate(
        (first.value + tokens * further.value) / 1000,
        (first.low + tokens * further.low) / 1000,
        (first.high + tokens * further.high) / 1000,
    )


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
        f"--base-url {_url(plan)}",
        f"--model {'REPOSITORY' if gguf else shlex.quote(plan.model.name)}",
        f"--served-model-name {shlex.quote(wish.served_model_name or wish.name)}",
        *_prompts(load),
        f"--random-output-len {load.output_tokens} --ignore-eos",
        f"--max-concurrency {load.concurrency}",
        f"--num-prompts {prompts(load.concurrency)}",
    ]
    yield from _joined(words)
    if gguf:
        yield from hanging("  ", "REPOSITORY is where the GGUF comes from: its tokenizer is read")
    if plan.chosen.replicas > 1 and not wanted(plan):
        yield from hanging("  ", "with the port of the balancer in front of the replicas")


def _prompts(load: Workload) -> list[str]:
    """Random tokens, behind those that all requests share."""
    shared = load.shared_prefix_tokens
    words = [f"--dataset-name random --random-input-len {load.input_tokens - shared}"]
    return [*words, f"--random-prefix-len {shared}"] if shared else words


def _url(plan: Plan) -> str:
    bind, port = address(plan)
    endpoint = wanted(plan)
    scheme = "https" if endpoint is not None and endpoint.certificate else "http"
    return f"{scheme}://{'127.0.0.1' if bind in ('0.0.0.0', '::') else bind}:{port}"


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
