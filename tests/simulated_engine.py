"""A stand-in for an engine: it answers like one, streams slowly, and can be frozen or killed.

    python simulated_engine.py PORT [FIRST_TOKEN_S [TOKENS [TOKEN_S]]]

`POST /v1/...` waits FIRST_TOKEN_S, then sends TOKENS events TOKEN_S apart where `stream` is asked
for, else one answer. Every answer names the port, so that a test sees which engine it was.
"""

from __future__ import annotations

import http.server
import json
import sys
import time

PORT = int(sys.argv[1])
FIRST_TOKEN_S, TOKENS, TOKEN_S = (
    float(sys.argv[i]) if len(sys.argv) > i else default
    for i, default in ((2, 0.2), (3, 5), (4, 0.05))
)


class Engine(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer({"status": "ok", "port": PORT})

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        asked = json.loads(self.rfile.read(length))
        time.sleep(FIRST_TOKEN_S)
        if asked.get("stream"):
            self.stream()
        else:
            time.sleep(TOKENS * TOKEN_S)
            self.answer({"port": PORT, "bytes": length})

    def stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(int(TOKENS)):
            self.chunk(f"data: {json.dumps({'port': PORT, 'token': number})}\n\n".encode())
            time.sleep(TOKEN_S)
        self.chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def answer(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is gone, and HAProxy's checks reset when they know enough."""


if __name__ == "__main__":
    Server(("127.0.0.1", PORT), Engine).serve_forever()
