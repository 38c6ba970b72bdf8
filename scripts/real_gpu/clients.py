"""Requests of known length to an OpenAI-compatible server, each token timed as it comes."""

from __future__ import annotations

import json
import random
import threading
import time
import urllib.request
from dataclasses import dataclass
from statistics import median
from typing import Any

TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Speed:
    """What clients saw: `requests` at a time, each of so many tokens in and out."""

    requests: int
    input_tokens: int
    output_tokens: int
    ttft_ms: float
    tpot_ms: float
    output_tokens_per_s: float
    failed: int


def measured(url: str, requests: int, input_tokens: int, output_tokens: int) -> Speed:
    """So many users at once who ask twice, or one who asks five times."""
    times: list[list[float]] = []
    failed: list[str] = []
    rounds = 2 if requests > 1 else 5

    def user() -> None:
        for _ in range(rounds):
            try:
                times.append(streamed(url, input_tokens, output_tokens))
            except (OSError, ValueError) as error:
                failed.append(str(error))

    started = time.monotonic()
    threads = [threading.Thread(target=user, daemon=True) for _ in range(requests)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - started
    if not times:
        raise ValueError(failed[0] if failed else "no answer")
    ttft = median(t[1] - t[0] for t in times)
    tpot = median((t[-1] - t[1]) / max(1, len(t) - 2) for t in times)
    tokens = sum(len(t) - 1 for t in times)
    sizes = (requests, input_tokens, output_tokens)
    return Speed(*sizes, 1000 * ttft, 1000 * tpot, tokens / took, len(failed))


def streamed(url: str, input_tokens: int, output_tokens: int) -> list[float]:
    """The time of asking, then that of every piece; the prompt is random, so never cached."""
    body: dict[str, Any] = {
        "model": "service",
        "prompt": [random.randrange(10, 1000) for _ in range(input_tokens)],
        "max_tokens": output_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    request = urllib.request.Request(
        f"{url}/v1/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    times = [time.monotonic()]
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        for line in answer:
            if line.startswith(b"data: {"):
                times.append(time.monotonic())
    if len(times) < 3:
        raise ValueError("fewer than two tokens came")
    return times
