"""The HTTP side of a simulated engine: the OpenAI endpoints, /health, /v1/models and /metrics."""

from __future__ import annotations

import contextlib
import http.server
import json
import time
from typing import Any

import pages
from admission import Aborted, Requests
from command_lines import Options
from control import Control
from shared import Shared


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(self, options: Options, shared: Shared, control: Control) -> None:
        self.options, self.shared, self.control = options, shared, control
        self.requests = Requests(options, shared, control)
        self.loading = True
        super().__init__((options.host, options.port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def misbehave(self) -> bool:
        """True when the request is answered already, with a refusal."""
        control = self.server.control
        while control.get("mute"):
            time.sleep(0.05)
        until = time.monotonic() + control.get("slow_http_s", 0)
        while time.monotonic() < until:
            for _ in range(10000):
                pass
            time.sleep(0.002)  # one core in four or so is enough to be seen as working
        if control.get("unavailable") or self.server.loading:
            self.refuse(503, "Loading model" if self.server.loading else "Service Unavailable")
            return True
        return self.not_allowed()

    def not_allowed(self) -> bool:
        key, given = self.server.options.key, self.headers.get("Authorization")
        guarded = self.path.startswith("/v1/") or (
            self.server.options.shape == "llama" and self.path == "/metrics"
        )
        if key is None or not guarded or given == f"Bearer {key}":
            return False
        self.refuse(401, "Unauthorized")
        return True

    def send(self, body: str, kind: str = "application/json", status: int = 200) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status: int, message: str) -> None:
        self.send(json.dumps({"error": {"message": message, "code": status}}), status=status)

    def do_GET(self) -> None:
        if self.misbehave():
            return
        server, name = self.server, self.server.options.model
        if self.path in ("/health", "/ping", "/health_generate"):
            requests = server.requests
            status = pages.health(
                server.options, prefilling=requests.prefills > 0, dead=requests.dead
            )
            self.send("", "text/plain", status)
        elif self.path == "/v1/models":
            self.send(json.dumps({"object": "list", "data": [{"id": name, "object": "model"}]}))
        elif self.path == "/metrics" and server.options.metrics:
            self.send(pages.metrics(server.options, server.shared), "text/plain; version=0.0.4")
        else:
            self.refuse(404, "Not Found")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.misbehave():
            return
        if self.path not in ("/v1/completions", "/v1/chat/completions"):
            return self.refuse(404, "Not Found")
        try:
            question = json.loads(body)
        except ValueError:
            return self.refuse(400, "not JSON")
        if self.server.requests.dead:
            return self.refuse(500, "EngineDeadError")
        self.answer(Answer(self, self.path.startswith("/v1/chat"), question))

    def answer(self, answer: Answer) -> None:
        begun = False
        try:
            if answer.question.get("stream"):
                begun = True
                self.stream(answer)
            else:
                self.send(json.dumps(answer.whole()))
        except Aborted:
            self.close_connection = True
            if not begun:
                with contextlib.suppress(OSError):
                    self.refuse(500, "EngineDeadError: EngineCore encountered an issue.")

    def stream(self, answer: Answer) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for part in answer.parts():
            self.wfile.write(f"data: {json.dumps(part)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")


class Answer:
    """One completion, in the shape of the plain or the chat endpoint."""

    def __init__(self, handler: Handler, chat: bool, question: dict[str, Any]) -> None:
        said = question.get("prompt") or question.get("messages") or ""
        self.prompt = said if isinstance(said, str) else json.dumps(said)
        if chat and isinstance(said, list) and said and isinstance(said[-1], dict):
            self.prompt = str(said[-1].get("content", ""))
        self.server, self.client = handler.server, handler.connection
        self.chat, self.question = chat, question
        asked = question.get("max_tokens") or question.get("max_completion_tokens")
        self.wanted = int(asked or 16)

    def tokens(self):
        return self.server.requests.tokens(self.prompt, self.wanted, self.client)

    def whole(self) -> dict[str, Any]:
        text = "".join(self.tokens())
        choice = (
            {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        )
        return {**self.envelope({**choice, "finish_reason": "length"}), "usage": self.usage()}

    def parts(self):
        for number, text in enumerate(self.tokens(), start=1):
            part = {"delta": {"content": text}} if self.chat else {"text": text}
            why = "length" if number == self.wanted else None
            yield self.envelope({**part, "finish_reason": why})
        if (self.question.get("stream_options") or {}).get("include_usage"):
            yield {**self.envelope({}), "choices": [], "usage": self.usage()}

    def envelope(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": "cmpl-simulated",
            "object": "chat.completion" if self.chat else "text_completion",
            "created": int(time.time()),
            "model": self.server.options.model,
            "choices": [{"index": 0, **choice}],
        }

    def usage(self) -> dict[str, int]:
        prompt = max(1, len(self.prompt.split()))
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.wanted,
            "total_tokens": prompt + self.wanted,
        }
