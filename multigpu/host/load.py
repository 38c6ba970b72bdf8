"""A short real load against an OpenAI-compatible server: one thread per concurrent user."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from typing import Any, Dict, Optional

from multigpu.host import local

PROMPT = "Count from one to one hundred in words: one, two, three,"
REQUEST_TIMEOUT_S = 90.0
"""For each answer, and for those that are still under way when the load ends."""


def complete(
    url: str, model: str, max_tokens: int, headers: Optional[Dict[str, str]] = None
) -> tuple[int, str]:
    """Tokens and text of one /v1/completions request. Raises one of `local.FAILURES`.

    `ignore_eos` keeps the length fixed; vLLM, SGLang and llama-server all know it.
    """
    body = {
        "model": model,
        "prompt": PROMPT,
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
    }
    request = urllib.request.Request(
        f"{url}/v1/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **(headers or {})},
    )
    with local.open_url(request, REQUEST_TIMEOUT_S) as answer:
        return read(json.load(answer))


def read(answer: Any) -> tuple[int, str]:
    """Tokens and text of an answer. Raises ValueError when it is no completion."""
    try:
        text = str(answer["choices"][0]["text"])
        return int((answer.get("usage") or {}).get("completion_tokens") or 0), text
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError("no completion: " + json.dumps(answer)[:200]) from None


class Load:
    """Keeps `concurrency` requests in flight at each URL until stopped, and counts."""

    def __init__(
        self,
        urls: list[str],
        model: str,
        concurrency: int,
        max_tokens: int,
        headers: Optional[Dict[str, str]] = None,
    ) -> None:
        self.model, self.max_tokens, self.headers = model, max_tokens, headers
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.started = time.monotonic()
        self.completed = self.failed = self.completion_tokens = 0
        self.sample_text: str | None = None
        self.error: str | None = None
        self.threads = [
            threading.Thread(target=self.user, args=(url,), daemon=True)
            for url in urls
            for _ in range(concurrency)
        ]

    def user(self, url: str) -> None:
        """One user: asks again as soon as the answer is there; pauses after a failure."""
        while not self.stopped.is_set():
            try:
                self.count(*complete(url, self.model, self.max_tokens, self.headers))
            except local.FAILURES as error:
                self.fail(f"{url}: {local.said(error)}")
                self.stopped.wait(1.0)

    def count(self, tokens: int, text: str) -> None:
        """Add one answer."""
        with self.lock:
            self.completed += 1
            self.completion_tokens += tokens
            self.sample_text = self.sample_text or text[:200]

    def fail(self, error: str) -> None:
        """Add one failure; the first error is kept."""
        with self.lock:
            self.failed += 1
            self.error = self.error or error[:300]

    def start(self) -> None:
        """Begin."""
        self.started = time.monotonic()
        for thread in self.threads:
            thread.start()

    def stop(self, timeout_s: float = REQUEST_TIMEOUT_S) -> dict[str, Any]:
        """Let the requests in flight end, and return the counts; what has no answer failed."""
        self.stopped.set()
        deadline = time.monotonic() + timeout_s
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for _ in range(sum(thread.is_alive() for thread in self.threads)):
            self.fail(f"no answer within {timeout_s:g} s")
        return self.result()

    def result(self) -> dict[str, Any]:
        """The counts so far."""
        with self.lock:
            return {
                "seconds": round(time.monotonic() - self.started, 3),
                "completed": self.completed,
                "failed": self.failed,
                "completion_tokens": self.completion_tokens,
                "sample_text": self.sample_text,
                "error": self.error,
            }
