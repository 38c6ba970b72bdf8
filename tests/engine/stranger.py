"""A stranger on a port: answers 200 to everything, and is nobody's engine.

python3 stranger.py PORT [HOST]
"""

from __future__ import annotations

import http.server
import sys


class Stranger(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    where = (sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1", int(sys.argv[1]))
    http.server.ThreadingHTTPServer(where, Stranger).serve_forever()
