"""An HTTP server of ours that misbehaves by script: it cuts, refuses, redirects, lies, or is slow.

Each path has a content and a list of turns; a request takes the next turn, and when none is left
the path behaves well (`Range`, `If-Range`, `ETag`).
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Turn:
    """How one request is answered. `cut` ends the connection after so many bytes of the body."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    ranges: bool = True
    body: bytes | None = None
    pause_s: float = 0.0
    chunk: int = 1 << 16
    length: bool = True


@dataclass
class Seen:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]


class Server(ThreadingHTTPServer):
    """`contents` by path, `turns` by path, `etags` by path; `seen` are all requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents: dict[str, bytes] = {}
        self.turns: dict[str, list[Turn]] = {}
        self.etags: dict[str, str] = {}
        self.seen: list[Seen] = []
        self.always: Turn | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is part of the script."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        server = self.server
        path = self.path.split("?")[0]
        server.seen.append(Seen(self.command, self.path, dict(self.headers)))
        turns = server.turns.get(path)
        turn = turns.pop(0) if turns else server.always or Turn()
        content = turn.body if turn.body is not None else server.contents.get(path)
        if content is None and turn.status is None:
            turn, content = Turn(status=404), b"not here"
        self.answer(turn, content or b"", server.etags.get(path))

    def answer(self, turn: Turn, content: bytes, etag: str | None) -> None:
        start = self.begin(turn, len(content), etag)
        self.send_response(turn.status or (206 if start else 200))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if etag and turn.status is None:
            self.send_header("ETag", etag)
        for name, value in turn.headers.items():
            self.send_header(name, value)
        if turn.length:
            self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        if self.command != "HEAD":
            self.send(turn, content[start:])

    def begin(self, turn: Turn, size: int, etag: str | None) -> int:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        condition = self.headers.get("If-Range")
        if not asked or not turn.ranges or turn.status is not None:
            return 0
        if condition is not None and condition != etag:
            return 0
        return int(asked[1]) if int(asked[1]) < size else 0

    def send(self, turn: Turn, body: bytes) -> None:
        left = body if turn.cut is None else body[: turn.cut]
        for at in range(0, len(left), turn.chunk):
            self.wfile.write(left[at : at + turn.chunk])
            self.wfile.flush()
            time.sleep(turn.pause_s)


@contextmanager
def serving() -> Iterator[Server]:
    """A server on a free port of the loopback."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
