"""Asks an engine over HTTP in threads of their own, so that nothing it does holds anybody up.

A request stays open for a long time: a slow answer is an answer. What was seen is left in plain
attributes, which a thread replaces as a whole.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from typing import Callable, Dict, List, Optional, Tuple

from multigpu.host import local
from multigpu.host.judging import ANSWERED, ASKED, FAILED

LONGEST_PAGE_BYTES = 8_000_000
SETTLED = (400, 401, 403, 404, 405, 422)
"""Answers to a canary that say nothing of the engine: it is asked wrongly and not asked again."""
Headers = Optional[Dict[str, str]]


def refused(error: BaseException) -> bool:
    """True when nobody listens."""
    reason = getattr(error, "reason", error)
    return isinstance(reason, ConnectionRefusedError)


class Look(threading.Thread):
    """Gets one URL again and again. `wanted` says when; `pause_s` lies between two requests.

    `status` is that of the last answer, `text` its body where that was whole and 200, `number`
    counts answers, `refused` says that the last request met nobody.
    """

    def __init__(
        self,
        url: str,
        headers: Headers,
        pause_s: float,
        timeout_s: float,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(daemon=True)
        self.url, self.headers, self.wanted = url, headers, wanted
        self.pause_s, self.timeout_s = pause_s, timeout_s
        self.number = 0
        self.refused = False
        self.status: Optional[int] = None
        self.text: Optional[str] = None

    def run(self) -> None:
        """For ever."""
        while True:
            if self.wanted():
                self.once()
            time.sleep(self.pause_s)

    def once(self) -> None:
        """One request. An answer that is torn off is an answer without a text."""
        request = urllib.request.Request(self.url, headers=self.headers or {})
        text: Optional[str] = None
        try:
            with local.open_url(request, self.timeout_s) as answer:
                status = int(answer.status)
                text = answer.read(LONGEST_PAGE_BYTES).decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            status = error.code
            error.close()
        except local.FAILURES as error:
            self.refused = refused(error)
            if not isinstance(error, http.client.IncompleteRead):
                self.status = None
                return
            status = 200
        self.status, self.text, self.refused = status, text, False
        self.number += 1


class Canary:
    """One request of one token at a time, when it is asked for; `events` is what became of them."""

    def __init__(self, base: str, headers: Headers, timeout_s: float) -> None:
        self.base, self.headers, self.timeout_s = base, headers, timeout_s
        self.events: List[str] = []
        self.useless: Optional[str] = None
        self.model: Optional[str] = None

    def send(self) -> None:
        """Ask now, in a thread."""
        if self.useless is None:
            self.events.append(ASKED)
            threading.Thread(target=self._ask, daemon=True).start()

    def last_event(self) -> Optional[str]:
        """The newest event since the last call: an end comes after its begin."""
        events, self.events = self.events, []
        return events[-1] if events else None

    def _ask(self) -> None:
        try:
            self.model = self.model or self._model()
            self._complete(self.model)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in SETTLED:
                self.useless = f"a request of one token is answered {error.code}"
            self.events.append(ANSWERED if error.code in SETTLED else FAILED)
        except local.FAILURES:
            self.events.append(FAILED)
        else:
            self.events.append(ANSWERED)

    def _model(self) -> str:
        """The first name that the engine answers to (all runtimes list it at /v1/models)."""
        request = urllib.request.Request(f"{self.base}/v1/models", headers=self.headers or {})
        with local.open_url(request, self.timeout_s) as answer:
            try:
                return str(json.load(answer)["data"][0]["id"])
            except (KeyError, IndexError, TypeError):
                raise ValueError("no model is listed") from None

    def _complete(self, model: str) -> None:
        body = {"model": model, "prompt": "1", "max_tokens": 1, "temperature": 0}
        request = urllib.request.Request(
            f"{self.base}/v1/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **(self.headers or {})},
        )
        with local.open_url(request, self.timeout_s) as answer:
            answer.read(LONGEST_PAGE_BYTES)


def answers(looks: Tuple[Look, ...]) -> int:
    """How many answers came, all together."""
    return sum(look.number for look in looks)
