"""When a request of a busy service sees its first token: in steps with others, or behind them.

Closed loop: every answer is followed by the next request at once. A benchmark starts all of them
together; with answers of equal length they finish together, and the bunches last. Between bunched
and evenly spread arrivals lies what a service sees; both ends are given.
"""

from __future__ import annotations

from dataclasses import dataclass

# Tokens of prompts that one step takes: vLLM's --max-num-batched-tokens for its server
# (vllm/engine/arg_utils.py: 8192 from 70 GiB of memory on, 2048 below), SGLang's
# --chunked-prefill-size (server_args.py: 2048 below 35 GB, 4096 below 60, 8192 above).
LARGE_STEP, SMALL_STEP = 8192, 2048
LARGE_CARD_MIB = 60 * 1024
MOST_PROMPTS, ROUNDS, FEWEST_ROUNDS = 1000, 20, 2
"""Requests of a benchmark: 1,000, the default of `vllm bench serve --num-prompts`, fewer where 20
rounds need fewer. The first of them start at once and wait for all prompts before them."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Prompts, of which each takes `own` seconds, that stand before the first token of a request.

    `usual` is the mean over all rounds of a benchmark, `spread` with arrivals by chance,
    `together` when all start at once. `between` are prompts that are read between the first and
    the last token of a request.
    """

    usual: float
    spread: float
    together: float
    between: float


def prompts(concurrency: int) -> int:
    """Requests of the benchmark that predictions stand for, and that a page asks to run."""
    most = max(MOST_PROMPTS, FEWEST_ROUNDS * concurrency)
    return min(most, ROUNDS * concurrency)


def rounds(concurrency: int) -> float:
    """How often each place of a closed loop is taken in that benchmark."""
    return prompts(concurrency) / concurrency


def arrivals(running: int, step_requests: float, prompts_first: bool, times: float) -> Arrivals:
    """How prompts queue in one engine that runs so many requests.

    `step_requests` prompts fit one step and finish together; there are `times` rounds. With
    `prompts_first` (SGLang's scheduler, managers/schedule_policy.py) no token is decoded while
    prompts wait: those that started together stay together, and half of the others' prompts come
    before the first token.
    Else (vLLM V1, llama.cpp) prompts are mixed into steps of decoding.
    """
    if running == 1:
        return Arrivals(1.0, 1.0, 1.0, 0.0)
    bunch = min(float(running), max(1.0, step_requests))
    together = (running + bunch) / 2
    spread = min(float(running**0.5), together)
    if prompts_first:
        return Arrivals(together, spread, together, (running - bunch) / 2)
    usual = spread + (together - spread) / times
    return Arrivals(usual, spread, together, running - 1.0)
